"""A look at the images and boxes that a config of mmdet names, before anything is built from it."""

import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, Registry

from mmmlo.utils.config import dataset_leaves
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import format_list

from .files import find_missing, read_coco

__all__ = ['check_detection_data']


def check_detection_data(cfg: Config) -> None:
    """Check the data of a detection config whose data sets are COCO's or like it.

    Without boxes, or with other categories, mmdet trains on nothing or ends in an index error much later. The annotation
    files are read once each, which takes COCO's training split half a minute; images are looked for by name, not opened.

    Args:
        cfg (Config): The config. Data sets of other formats than COCO's are left alone.

    Raises:
        DataError: An annotation file or a folder is missing, the file is not COCO's format, holds no box, has categories
            unlike the data set's classes or boxes of images that are not there, images are missing, or a head has another
            number of classes.
    """
    seen = []
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope', 'mmdet')) as registry:
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            for key, dataset in dataset_leaves(loader['dataset'], f'{split}_dataloader.dataset') if loader else ():
                files = (dataset.get('data_root'), dataset.get('ann_file'), dict(dataset.get('data_prefix') or {}))
                if files not in seen and 'Coco' in str(dataset.get('type')) and dataset.get('ann_file'):
                    seen.append(files)
                    _check_dataset(dataset, key, cfg.model, registry, with_boxes=split == 'train')


def _heads(model: Any) -> Iterator[tuple[str, int]]:
    """Keys and numbers of classes of all heads but the RPN's, which knows one."""
    for name, head in model.items():
        if name in ('bbox_head', 'mask_head', 'roi_head'):
            heads = head if isinstance(head, list | tuple) else [head]
            for i, one in enumerate(heads):
                where = f'{name}[{i}]' if isinstance(head, list | tuple) else name
                if one.get('num_classes') is not None:
                    yield where, one['num_classes']
                yield from ((f'{where}.{inner}', count) for inner, count in _heads(one))


def _check_dataset(
    cfg: Mapping[str, Any], key: str, model: Mapping[str, Any], registry: Registry, with_boxes: bool
) -> None:
    root = cfg.get('data_root') or ''
    annotations = osp.join(root, cfg['ann_file'])
    folder = osp.join(root, (cfg.get('data_prefix') or {}).get('img', ''))
    if '://' in annotations or '://' in folder:
        return
    for path, exists, kind in ((annotations, osp.isfile(annotations), 'file'), (folder, osp.isdir(folder), 'folder')):
        if not exists:
            raise DataError(f'`{key}`: there is no {kind} {path} (that is, {osp.abspath(path)}); see docs/data.md')
    try:
        images, boxes, names = read_coco(annotations)
    except DataError as error:
        raise DataError(f'`{key}`: {error}') from error
    classes = (cfg.get('metainfo') or {}).get('classes') or registry.get(cfg['type']).METAINFO.get('classes') or ()
    classes = [classes] if isinstance(classes, str) else list(classes)
    absent = [name for name in classes if name not in names]
    if absent:
        raise DataError(
            f'`{key}`: {annotations} has the categories {format_list(names)}, but not {format_list(absent)} of the classes '
            f"of {cfg['type']}. Name its own by dataset.metainfo=dict(classes=(...)), and give the heads' num_classes"
        )
    for where, count in _heads(model):
        if count != len(classes):
            raise DataError(
                f'`model.{where}.num_classes` is {count}, but {cfg["type"]} (`{key}`) has {len(classes)} classes'
            )
    unknown = [str(image) for image in sorted(set(boxes) - {number for number, _ in images.values()})]
    if unknown:
        raise DataError(f'`{key}`: {annotations} has boxes of images that it does not list: {format_list(unknown)}')
    if with_boxes and not boxes:
        raise DataError(f'`{key}`: none of the {len(images)} images of {annotations} has a box: there is nothing to learn')
    missing = [osp.relpath(path, folder) for path in find_missing(osp.join(folder, name) for name in images)]
    if missing:
        raise DataError(
            f'`{key}`: {len(missing)} of the {len(images)} images of {annotations} are not in {folder}: '
            f'{format_list(missing)}'
        )
