#!/usr/bin/env python
"""Draw masks: a row an image, a column a checkpoint, with mean score, overlap and saturation below each column.

    python tools/analysis_tools/plot_masks.py work_dirs/mae/epoch_20.pth work_dirs/mlo_mae/epoch_20.pth --images DIR

Columns are a training's checkpoints one after another, or methods side by side. A cell shows the heat map of ``mask_prob``,
the visible patches and the reconstruction. docs/evaluation.md says how to read it.

A checkpoint of mmengine's holds its config. Its test pipeline prepares the images, which are then resized to the size that
the model is built for, and its ``data_preprocessor`` normalizes them. A config is Python code, the one in a
checkpoint too: open only those that you trust.

Exit status: 0; or 2, and nothing written, for wrong usage.
"""

import argparse
import json
import os
import os.path as osp
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, and check what can be checked without opening a file."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='a column each')
    add('--images', required=True, metavar='DIR', help='folder of images; folders in it are looked into')
    add('--configs', nargs='+', metavar='CONFIG', help='one config for all checkpoints, or one for each; default: their own')
    add('--labels', nargs='+', metavar='NAME', help='titles of the columns; default: the paths below a common folder')
    add('--count', type=int, default=6, metavar='N', help='images that are shown; default: 6')
    add('--statistics-count', type=int, default=64, metavar='M',
        help='images that the numbers are measured on, those shown among them; two at least; default: 64')
    add('--out', default='masks.png', metavar='FILE', help='the picture; default: masks.png')
    add('--seed', type=int, default=0, help='seed of the choice of images and of random masks')
    add('--json', metavar='FILE', help='write the numbers here as JSON; - is the standard output')
    args = parser.read(argv, count=1, statistics_count=2)
    number = len(args.checkpoints)
    if args.configs and len(args.configs) not in (1, number):
        parser.error(f'--configs takes one config or one for each of the {number} checkpoints, got {len(args.configs)}')
    if args.labels and len(args.labels) != number:
        parser.error(f'--labels takes one for each of the {number} checkpoints, got {len(args.labels)}')
    for option, path in (('--out', args.out), ('--json', args.json or '-')):
        if osp.isdir(path):
            parser.error(f'{option} {path} is a folder')
    return args


start(__name__, parse_args)

import torch
from matplotlib.figure import Figure
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmmlo.datasets import EXTENSIONS, LoadImage
from mmmlo.evaluation.encoder import checkpoint_config
from mmmlo.launch.config import load_config
from mmmlo.models.selfsup.base import BaseMaskedAutoencoder
from mmmlo.registry import MODELS, TRANSFORMS
from mmmlo.utils.checkpoints import CheckpointError, read_checkpoint
from mmmlo.utils.errors import SettingError
from mmmlo.utils.text import default_labels, describe_error, format_list
from mmmlo.visualization import MaskColumn, mask_column, plot_mask_table


@dataclass
class Loaded:
    """A checkpoint with its model and its pipeline."""

    path: str
    label: str
    model: BaseMaskedAutoencoder
    iteration: int | None
    pipeline: 'Pipeline'

    @property
    def facts(self) -> dict[str, Any]:
        """dict[str, Any]: What the model is."""
        return dict(
            checkpoint=self.path,
            label=self.label,
            model=type(self.model).__name__,
            masker=type(self.model.masker).__name__,
            grid=list(self.model.backbone.grid_size),
            mask_ratio=self.model.mask_ratio,
            norm_pix=self.model.head.norm_pix,
            iteration=self.iteration,
        )

    @property
    def detail(self) -> str:
        """str: The same in a line."""
        facts = self.facts
        parts = [facts['model'], facts['masker'], '{}×{} patches'.format(*facts['grid'])]
        return ', '.join(parts + ([] if self.iteration is None else [f'iteration {self.iteration}']))


def load(path: str, config: str | None, label: str) -> Loaded:
    """Build the model that a checkpoint belongs to, with its weights, or say why the two do not fit."""
    checkpoint = read_checkpoint(path)
    try:
        cfg = checkpoint_config(path, checkpoint) if config is None else load_config(config)
    except CheckpointError as error:
        raise SettingError(f'{error}; give it by --configs') from error
    whose = config or f'the config in {path}'
    if cfg.get('model') is None:
        raise SettingError(f'{whose} has no model')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        model = MODELS.build(cfg.model)
    except Exception as error:  # whatever a model's own code raises
        raise SettingError(f'the model of {whose} cannot be built: {describe_error(error)}') from error
    if not isinstance(model, BaseMaskedAutoencoder):
        raise SettingError(
            f"{whose} has a {type(model).__name__}, not a masked autoencoder of this project's such as mmmlo.MAE or "
            'mmmlo.MLOMAE: it has no draw_masks and no reconstruct'
        )
    _load_weights(model, checkpoint.state_dict, path, whose)
    return Loaded(path, label, model, checkpoint.meta.get('iter'), Pipeline(cfg, whose, model.backbone))


def _load_weights(model: BaseMaskedAutoencoder, state: dict[str, torch.Tensor], path: str, whose: str) -> None:
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise SettingError(f'the weights in {path} do not fit {whose}: {format_list(lines[1:] or lines)}') from error
    if missing:
        raise SettingError(
            f'{path} lacks {len(missing)} of the {len(model.state_dict())} weights that {whose} has: {format_list(missing)}'
        )
    # Other modules of the training, a head or an average, are not missed here. But random masks in place of a learned
    # masker's would be taken for its own.
    masker = [name for name in unexpected if name.startswith('masker.')]
    if masker:
        raise SettingError(
            f'{path} has weights of a masker that {whose}, with its {type(model.masker).__name__}, has no place for: '
            f'{format_list(masker)}'
        )


class Pipeline:
    """A config's test pipeline on the files of any folder, resized to what a backbone is built for.

    Attributes:
        key (str): Pipelines of one key do the same.
        bgr (bool): Whether the images that come out have their channels in OpenCV's order.
    """

    def __init__(self, cfg: Config, whose: str, backbone: Any) -> None:
        self.whose = whose
        transforms = self._find(cfg, whose)
        size = [cells * backbone.patch_size for cells in backbone.grid_size]
        self.key = f'{size} {transforms}'
        try:
            built = [TRANSFORMS.build(transform) for transform in transforms]
        except Exception as error:  # whatever a transform's own code raises
            raise SettingError(f'the test pipeline of {whose} cannot be built: {describe_error(error)}') from error
        loaders = [i for i, transform in enumerate(built) if isinstance(transform, LoadImageFromFile)]
        packers = [i for i, transform in enumerate(built) if isinstance(transform, TRANSFORMS.get('mmpretrain.PackInputs'))]
        if not packers:
            raise SettingError(f'the test pipeline of {whose} has no PackInputs, which makes the tensors of a batch')
        # Pillow, because OpenCV does not average where it shrinks. At the right size this changes nothing.
        plain = backbone.patch_embed.projection.in_channels in (1, 3)  # Pillow takes more for alpha
        how = dict(backend='pillow', interpolation='bicubic') if plain else dict(backend='cv2', interpolation='area')
        resize = dict(type='mmpretrain.Resize', scale=(size[1], size[0]), **how)
        built.insert(packers[-1], TRANSFORMS.build(resize))
        # mmcv's loaders return BGR whatever decodes. Datasets that hold arrays, CIFAR and the digits, return RGB.
        self.bgr = bool(loaders)
        self.loader = built[loaders[0]] if loaders else LoadImage()
        self.transforms = built[loaders[0] + 1:] if loaders else built

    @staticmethod
    def _find(cfg: Config, whose: str) -> list[dict]:
        for name in ('test_dataloader', 'val_dataloader'):
            dataset = (cfg.get(name) or {}).get('dataset')
            while dataset is not None:
                if dataset.get('pipeline') is not None:
                    return [dict(transform) for transform in dataset['pipeline']]
                inner = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
                dataset = inner
        raise SettingError(f'{whose} has neither a test_dataloader nor a val_dataloader with a pipeline for the images')

    def read(self, path: str) -> dict:
        """Decode a file, or raise an error of any kind."""
        results = self.loader(dict(img_path=path))
        if results is None:  # ignore_empty
            raise ValueError('cannot be decoded')
        if not self.bgr:
            results['img'] = results['img'][..., ::-1].copy()
        return results

    def prepare(self, results: dict) -> torch.Tensor:
        """Do the rest of the pipeline: 3 x H x W, uint8."""
        path = results['img_path']
        try:
            for transform in self.transforms:
                results = transform(results)
            return results['inputs']
        except Exception as error:  # whatever a transform's own code raises
            raise SettingError(f'the test pipeline of {self.whose} fails on {path}: {describe_error(error)}') from error


@dataclass
class Images:
    """The images of a table.

    Attributes:
        shown (list[str]): Paths below the folder, sorted.
        tensors (dict[str, torch.Tensor]): Key of a pipeline -> the images, B x 3 x H x W; those shown come first.
        skipped (dict[str, str]): Files that are no images, and why.
    """

    shown: list[str] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_images(folder: str) -> list[str]:
    """Paths of all image files in a folder and the folders in it, sorted, without what is hidden."""
    if not osp.isdir(folder):
        raise SettingError(f'--images: there is no folder {folder}')
    paths = [osp.join(parent, name) for parent, names in _walk(folder) for name in names]
    found = sorted(path for path in paths if path.lower().endswith(EXTENSIONS))
    if not found:
        raise SettingError(f'--images: {folder} and the folders in it hold no image ({", ".join(EXTENSIONS)})')
    return found


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Folders and the files in them; links are followed, but not in circles."""
    seen = {osp.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        inner = {osp.realpath(osp.join(parent, name)): name for name in sorted(folders) if not name.startswith('.')}
        folders[:] = [name for real, name in inner.items() if real not in seen]
        seen |= set(inner)
        yield parent, [name for name in names if not name.startswith('.')]


def load_images(folder: str, pipelines: dict[str, Pipeline], count: int, total: int, seed: int) -> Images:
    """Choose images by the seed and prepare them in every way that the models need.

    A file that one of the pipelines cannot read is left out of all columns, and the next one takes its place.
    """
    paths = find_images(folder)
    candidates = random.Random(seed).sample(paths, len(paths))
    total = min(max(count, total), len(paths))
    images, chosen = Images(), []
    for path in candidates:
        if len(chosen) == total:
            break
        try:
            read = {key: pipeline.read(path) for key, pipeline in pipelines.items()}
        except Exception as error:  # decoders raise anything
            reason = describe_error(error.__cause__ or error)
            images.skipped[path] = 'it cannot be read' if path in reason else reason
            continue
        chosen.append((path, {key: pipeline.prepare(read[key]) for key, pipeline in pipelines.items()}))
    if len(chosen) < 2:
        broken = f'; {len(images.skipped)} cannot be read, such as {min(images.skipped)}' if images.skipped else ''
        found = f'{len(chosen)} image' if len(chosen) else 'no image that can be read'
        raise SettingError(f'--images: {folder} holds {found}, two are needed for an overlap{broken}')
    chosen[:count] = sorted(chosen[:count], key=lambda one: one[0])
    images.shown = [osp.relpath(path, folder) for path, _ in chosen[:count]]
    images.tensors = {key: torch.stack([tensors[key] for _, tensors in chosen]) for key in pipelines}
    return images


def chance_overlap(mask_ratio: float) -> float:
    """The overlap of independent random masks: v / (2 - v) for a share v of visible patches."""
    return (1 - mask_ratio) / (1 + mask_ratio)


def make_report(models: Sequence[Loaded], columns: Sequence[MaskColumn], images: Images, seed: int) -> dict:
    """All numbers."""
    rows = [
        dict(loaded.facts, **column.statistics, chance_overlap=chance_overlap(loaded.model.mask_ratio))
        for loaded, column in zip(models, columns)
    ]
    return dict(measured=columns[0].measured, shown=images.shown, skipped=len(images.skipped), seed=seed, columns=rows)


def note(report: dict) -> str:
    """The small print of the picture: what the numbers are, and what is not the model's own."""
    chances = sorted({(row['mask_ratio'], row['chance_overlap']) for row in report['columns']})
    chance = ', '.join(f'{overlap:.2f} at mask ratio {ratio:g}' for ratio, overlap in chances)
    text = (
        f'Numbers are of {report["measured"]} images. overlap: mean intersection over union of the visible patches of two '
        f'images; 1 = one mask for all images, independent random masks have about {chance}. '
        'saturation: share of mask_prob below 0.01 or above 0.99.'
    )
    if any(row['norm_pix'] for row in report['columns']):
        text += " reconstruction: where pixels are normalized by patch, the mean and deviation of each are the original's."
    return text


def render(report: dict) -> str:
    """The numbers as a table."""
    names = [row['label'] for row in report['columns']]
    width = max(map(len, [*names, 'column']))
    maskers = max(len(row['masker']) for row in report['columns'])
    lines = [f'{"column":{width}}  {"masker":{maskers}}{"mean score":>12}{"overlap":>10}{"by chance":>11}{"saturation":>12}']
    for name, row in zip(names, report['columns']):
        figures = f'{row["mean_score"]:>12.4f}{row["overlap"]:>10.4f}{row["chance_overlap"]:>11.2f}'
        figures += f'{row["saturation"]:>12.4f}'
        lines.append(f'{name:{width}}  {row["masker"]:{maskers}}{figures}')
    return '\n'.join([*lines, f'Measured on {report["measured"]} images, seed {report["seed"]}.'])


def main(argv: Sequence[str] | None = None) -> None:
    """Load checkpoints and images, draw, and print the numbers."""
    args = parse_args(argv)
    formats = sorted(f'.{name}' for name in Figure().canvas.get_supported_filetypes())
    if osp.splitext(args.out)[1].lower() not in formats:
        raise SettingError(f'--out {args.out}: the ending must be one of {", ".join(formats)}')
    number = len(args.checkpoints)
    configs = (args.configs or [None]) * (number // len(args.configs or [None]))
    # Log messages go to the standard error: there may be JSON on the standard output, and nothing else then.
    with redirect_stdout(sys.stderr):
        MMLogger.get_current_instance().setLevel('WARNING')
        models = [load(*one) for one in zip(args.checkpoints, configs, args.labels or default_labels(args.checkpoints))]
        pipelines = {loaded.pipeline.key: loaded.pipeline for loaded in models}
        images = load_images(args.images, pipelines, args.count, args.statistics_count, args.seed)
    for path, reason in images.skipped.items():
        print(f'left out: {path} ({reason})', file=sys.stderr)
    columns = [
        mask_column(
            loaded.label,
            loaded.model,
            images.tensors[loaded.pipeline.key],
            len(images.shown),
            bgr=loaded.pipeline.bgr,
            seed=args.seed,
            detail=loaded.detail,
        )
        for loaded in models
    ]
    report = make_report(models, columns, images, args.seed)
    os.makedirs(osp.dirname(osp.abspath(args.out)), exist_ok=True)
    plot_mask_table(columns, args.out, [osp.splitext(name)[0] for name in images.shown], note(report))
    report_to = sys.stderr if args.json == '-' else sys.stdout
    print(f'{render(report)}\nPicture: {args.out}', file=report_to)
    if args.json == '-':
        print(json.dumps(report, indent=2))
    elif args.json:
        os.makedirs(osp.dirname(osp.abspath(args.json)), exist_ok=True)
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(report, file, indent=2)


if __name__ == '__main__':
    run(main, status=2)
