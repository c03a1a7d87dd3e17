"""A look at the data of a config, through the data sets and pipelines that a run would build from it."""

import os.path as osp
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmpretrain.models import BaseSelfSupervisor

from mmmlo.datasets import check_dataset_folder
from mmmlo.datasets.duplicates import shared_files
from mmmlo.datasets.sources import leaves
from mmmlo.registry import DATASETS, MODELS
from mmmlo.utils.config import named_dataloaders
from mmmlo.utils.errors import MissingPackageError, MmmloError
from mmmlo.utils.progress import track
from mmmlo.utils.text import describe_error, format_list

from .check_classes_hook import check_labels
from .check_detection import find_detection_problems
from .check_segmentation import find_segmentation_problems
from .config_types import find_type
from .problems import Problem, draw, find_unread, refuse

__all__ = ['DataCheck', 'check_frameworks', 'check_transfer']

_LEAST = 8  # samples to load of data whose files another loader has read already


def check_frameworks(cfg: Config) -> None:
    """Check that mmcv has its operators, without which mmdet cannot be imported, if the config is mmdet's.

    A plain ``pip install`` of mmcv builds a package without them and says nothing; mmpretrain and mmseg do not miss them.

    Raises:
        MissingPackageError: There is no mmcv, or there are no operators.
    """
    if cfg.get('default_scope') == 'mmdet' and (find_spec('mmcv') is None or find_spec('mmcv._ext') is None):
        raise MissingPackageError(
            'detection needs mmcv with its operators (mmcv._ext), and the one that is installed has none. '
            '`bash tools/install.sh --force` builds them; in an environment of your own, `bash tools/install.sh --active '
            '--force`'
        )


def _transfer_problems(cfg: Config, count: int, tell: Callable[[str], None]) -> Iterator[Problem]:
    check_frameworks(cfg)
    checks = dict(mmseg=find_segmentation_problems, mmdet=find_detection_problems)
    if check := checks.get(cfg.get('default_scope')):
        yield from check(cfg, count, tell)


def check_transfer(cfg: Config, count: int = 200) -> None:
    """Check the data of a config of mmseg or mmdet, before anything is built; other configs need nothing.

    Raises:
        MmmloError: Images, labels, boxes or mmcv's operators are missing, or not as the config says.
    """
    refuse(_transfer_problems(cfg, count, lambda text: print_log(text, 'current')))


class DataCheck:
    """Builds the data sets of all loaders of a config, looks at what they hold and load, and tells a line about each."""

    def __init__(self, cfg: Config, tell: Callable[[str], None]) -> None:
        self.cfg, self.tell = cfg, tell
        self.scope = cfg.get('default_scope') or 'mmengine'
        self.datasets: dict[str, Any] = {}
        self._seen: set[str] = set()

    def problems(self, count: int) -> Iterator[Problem]:
        """Look at ``count`` samples of each loader, for what is missing, broken, left out or means something else."""
        init_default_scope(self.scope)
        found = [*_caught('', _transfer_problems(self.cfg, count, self.tell))]
        yield from found
        if any(not problem.warning for problem in found):
            return
        configs = {f'{loader}.dataset': cfg['dataset'] for loader, cfg in named_dataloaders(self.cfg)}
        for key, cfg in configs.items():
            same = next(other for other, own in configs.items() if own == cfg)
            if same == key:
                yield from _caught(key, self._dataset_problems(key, cfg, count))
            elif same in self.datasets:
                self.datasets[key] = self.datasets[same]
        yield from _caught('', self._class_problems())

    def _dataset_problems(self, key: str, cfg: dict, count: int) -> Iterator[Problem]:
        check_dataset_folder(cfg, key)
        dataset = DATASETS.build(cfg)
        self.tell(f'{key}: {len(dataset):,} samples')
        if not len(dataset):
            yield Problem(key, 'there is no image')
            return
        self.datasets[key] = dataset
        if self.scope not in ('mmseg', 'mmdet'):  # those have told it
            for leaf, _ in leaves(dataset):
                yield from self._left_out(key, leaf)
        yield from self._broken(key, dataset, count)

    def _left_out(self, key: str, leaf: Any) -> Iterator[Problem]:
        """Count what a data set reads of its folder, and name what it leaves out."""
        folder = (getattr(leaf, 'data_prefix', None) or {}).get('img_path') or ''
        if folder in self._seen or not osp.isdir(folder) or not leaf.get_data_info(0).get('img_path'):
            return
        self._seen.add(folder)
        paths = [leaf.get_data_info(i)['img_path'] for i in range(len(leaf))]
        unread, counts = find_unread(folder, paths)
        self.tell(f'  {folder}: {counts}' + (f'; {leaf.ann_file} lists those that are' if unread and leaf.ann_file else ''))
        if unread and not leaf.ann_file:
            text = f'{len(unread)} images of {folder} are left out by {type(leaf).__name__}: {format_list(unread)}'
            yield Problem(key, text, warning=True)

    def _broken(self, key: str, dataset: Any, count: int) -> Iterator[Problem]:
        """Load a sample through the whole pipeline."""
        chosen = draw(range(len(dataset)), count)
        infos = [dataset.get_data_info(i) if hasattr(dataset, 'get_data_info') else {} for i in chosen]
        names = [info.get('img_path') or f'sample {i} of {key}' for i, info in zip(chosen, infos)]
        failed, first = [], None
        pairs = [(i, name) for n, (i, name) in enumerate(zip(chosen, names)) if n < _LEAST or name not in self._seen]
        for i, name in track(pairs, f'loading {key}'):
            self._seen.add(name)
            try:
                sample = dataset[i]
                first = sample if first is None else first
            except Exception as error:  # a decoder raises anything
                reason = str(error) if isinstance(error, MmmloError) else describe_error(error)
                failed.append(reason if name in reason else f'{name} ({reason})')
        inputs: Any = first.get('inputs') if isinstance(first, dict) else None
        gives = f': the first gives {" x ".join(map(str, inputs.shape))}, {inputs.dtype}' if hasattr(inputs, 'shape') else ''
        self.tell(f'  loaded {len(pairs) - len(failed):,} of {len(pairs):,}{gives}')
        if failed:
            yield Problem(key, f'{len(failed)} of {len(pairs)} images cannot be decoded: {format_list(failed, 20)}')

    def _class_problems(self) -> Iterator[Problem]:
        """Compare the classes of data whose labels are used, with each other and with the head."""
        model = self.cfg.get('model') or {}
        kind = find_type(str(model.get('type')), self.scope, 'MODELS')
        downstream = model.get('downstream') or {}
        heads = dict(downstream=MODELS.build(downstream)) if downstream else {}
        if 'num_classes' in (head := model.get('head') or {}):
            heads['head'] = MODELS.build(head)
        groups: dict[str, dict[str, Any]] = {}
        for key, dataset in self.datasets.items():
            levels = isinstance(kind, type) and issubclass(kind, BaseSelfSupervisor) and key.startswith('train_')
            if levels and key == 'train_dataloader.dataset':
                continue  # D_u, whose labels nobody uses
            # The tasks of levels may have other classes than the images of kNN, and than each other.
            group = '' if not levels else key.split('.tasks.')[1] if '.tasks.' in key else 'levels'
            groups.setdefault(group, {})[key] = dataset
        if not getattr(find_type(str(downstream.get('type')), self.scope, 'MODELS'), 'reads_labels', True):
            groups.pop('levels', None)
        for group, own in groups.items():
            check_labels(SimpleNamespace(**heads) if group == 'levels' or 'levels' not in groups else None, own)
        yield from ()

    def leakage(self) -> str | None:
        """Look for test files that are training files too, by content: a sentence about them, None if there are none."""
        train, test = (self._files(prefix) for prefix in ('train', 'test_dataloader'))
        pairs = shared_files(train, test)
        if not train or not test:
            return 'there are no training and test files to compare'
        examples = format_list([f'{copy} is {original}' for original, copy in pairs], 3)
        return f'{len(pairs)} of {len(test)} test images are training images too, by content: {examples}' if pairs else None

    def _files(self, prefix: str) -> list[str]:
        """Paths of the images of some loaders' data sets, or of the wholes of which these are parts."""
        datasets = [dataset for key, dataset in self.datasets.items() if key.startswith(prefix)]
        found = [leaf for dataset in datasets for leaf, _ in leaves(dataset)]
        paths = (leaf.get_data_info(i).get('img_path') for leaf in found for i in range(len(leaf)))
        return list(filter(None, dict.fromkeys(paths)))


def _caught(key: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """The problems, and what their search raises as one more."""
    try:
        yield from problems
    except Exception as error:  # whatever the reader of a data set raises
        known = isinstance(error, MmmloError)
        yield Problem('' if known else key, str(error) if known else f'cannot be read ({describe_error(error)})')
