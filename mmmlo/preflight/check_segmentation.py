"""A look at the images and labels that a config of mmseg names, before anything is built from it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from mmmlo.datasets import check_dataset_folder
from mmmlo.utils.config import dataset_leaves
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import describe_error, format_list

from .files import find_missing

__all__ = ['check_segmentation_data']

_LABEL_FILES = 21
_IGNORED = 255  # mmseg's default, of heads and of metrics


def check_segmentation_data(cfg: Config) -> None:
    """Check the data of a segmentation config: wrong labels end in an index error in a GPU's kernel, hours later or never.

    Every image must have a label file. Of each data set the first label file and twenty others, evenly spaced, are read as
    training reads them: with the config's ``LoadAnnotations``, so that ``reduce_zero_label`` and the data set's own
    changes of labels apply.

    Args:
        cfg (Config): The config; data sets that its loaders name twice are looked at once.

    Raises:
        MmmloError: A folder is missing or has no image, an image has no label file, a label file cannot be read, is no map
            of numbers, or holds values beyond the classes, or the number of classes of a head is not the data set's.
    """
    seen = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            if loader is None:
                continue
            ignored = _ignored(cfg, split)
            for key, dataset in dataset_leaves(loader['dataset'], f'{split}_dataloader.dataset'):
                if (dataset, ignored) not in seen:
                    seen.append((dataset, ignored))
                    _check_dataset(dataset, key, cfg.model, ignored)


def _heads(model: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Keys and configs of all heads; some segmentors have several of a kind."""
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        if isinstance(heads, Mapping):
            yield f'model.{name}', heads
        else:
            yield from ((f'model.{name}[{i}]', head) for i, head in enumerate(heads))


def _ignored(cfg: Config, split: str) -> int | None:
    """The label that all heads, or in evaluation all metrics, ignore; None if they do not agree."""
    if split == 'train':
        users = [head for _, head in _heads(cfg.model)]
    else:
        metrics = cfg.get(f'{split}_evaluator') or []
        users = [metrics] if isinstance(metrics, Mapping) else list(metrics)
    values = {user.get('ignore_index', _IGNORED) for user in users} or {_IGNORED}
    return values.pop() if len(values) == 1 else None


def _check_dataset(cfg: Mapping[str, Any], key: str, model: Mapping[str, Any], ignored: int | None) -> None:
    check_dataset_folder(cfg, key)
    dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True))
    classes = dataset.metainfo.get('classes')
    heads = list(_heads(model))
    for name, head in heads:
        if classes is not None and head.get('num_classes') not in (None, len(classes)):
            raise DataError(
                f'`{name}.num_classes` is {head["num_classes"]}, but {cfg["type"]} (`{key}`) has {len(classes)} classes: '
                f'{format_list(classes)}'
            )
    samples = dataset.load_data_list()
    folder = dataset.data_prefix.get('img_path') or dataset.data_root
    if not samples:
        raise DataError(f'`{key}`: there is no image in {folder} whose name ends in {dataset.img_suffix!r}')
    samples = [sample for sample in samples if sample.get('seg_map_path') is not None]
    if samples:
        absent = find_missing(sample['seg_map_path'] for sample in samples)
        if absent:
            image = next(sample['img_path'] for sample in samples if sample['seg_map_path'] == absent[0])
            raise DataError(
                f'`{key}`: {len(absent)} of {len(samples)} images have no label file: {image} should have {absent[0]}'
            )
        count = len(classes) if classes is not None else heads[0][1]['num_classes']
        loaders = [transform for transform in cfg['pipeline'] if 'LoadAnnotations' in transform['type']]
        load = TRANSFORMS.build(loaders[0] if loaders else dict(type='LoadAnnotations'))
        for i in np.unique(np.linspace(0, len(samples) - 1, _LABEL_FILES).astype(int)):
            _check_labels(samples[i], load, count, ignored)


def _check_labels(sample: dict, load: Any, classes: int, ignored: int | None) -> None:
    path = sample['seg_map_path']
    try:
        labels = load(dict(sample, seg_fields=[]))['gt_seg_map']
    except Exception as error:  # a decoder raises anything
        raise DataError(f'{path} cannot be read as a label map ({describe_error(error)})') from error
    if labels.ndim != 2:
        raise DataError(f'{path} has {labels.shape[-1]} channels; a label map has one, the number of the class')
    beyond = labels >= classes
    if ignored is not None:
        beyond &= labels != ignored
    if beyond.any():
        values = format_list([str(value) for value in np.unique(labels[beyond])])
        raise DataError(
            f'{path} holds, as it is loaded, the labels {values}; there are {classes} classes, 0 to {classes - 1}, '
            f'and {"nothing" if ignored is None else ignored} is ignored'
        )
