"""A look at the images and labels that a config of mmseg names, as training and validation will load them."""

import os.path as osp
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from PIL import Image

from mmmlo.datasets import check_dataset_folder
from mmmlo.utils.config import dataset_leaves
from mmmlo.utils.text import describe_error, format_list

from .problems import Problem, check_heads, draw, find_heads, find_missing, find_unread, first_of, loading_steps, read_exif

__all__ = ['find_segmentation_problems']

_HEADS = ('decode_head', 'auxiliary_head')
_IGNORED = 255  # mmseg's default, of heads and of metrics
_LEAST_IGNORED = 0.01  # share of pixels that is more than the borders of objects
_MUCH_IGNORED = 0.1


def find_segmentation_problems(cfg: Config, count: int, tell: Callable[[str], None]) -> Iterator[Problem]:
    """Look for data that trains or measures nothing, or ends in an index error in a GPU's kernel hours later.

    Of each data set ``count`` images are loaded by the transforms of its pipeline that load, so that EXIF turns,
    ``reduce_zero_label`` and the data set's own changes of labels apply.
    """
    seen: list[tuple] = []
    reduced: dict[str, set[bool]] = {}
    heads = list(find_heads(cfg.model, _HEADS))
    for name, head in heads:
        yield from _head_problems(name, head)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
        for split in ('train', 'val', 'test'):
            loader, ignored = cfg.get(f'{split}_dataloader'), _ignored(cfg, split)
            for key, own in dataset_leaves(loader['dataset'], f'{split}_dataloader.dataset') if loader else ():
                if (own, ignored) in seen:
                    continue
                seen.append((own, ignored))
                check_dataset_folder(own, key)
                dataset = DATASETS.build(dict(own, pipeline=[], lazy_init=True))
                if hasattr(dataset, 'reduce_zero_label'):
                    reduced.setdefault(split, set()).add(dataset.reduce_zero_label)
                    yield from _dataset_problems(dataset, own, key, heads, ignored, count, tell)
    for split, values in reduced.items():
        if not values & reduced.get('train', values):
            text = f'reduce_zero_label is {values.pop()} here and not in train_dataloader, so labels do not mean the same'
            yield Problem(f'{split}_dataloader.dataset', text)


def _head_problems(name: str, head: Mapping[str, Any]) -> Iterator[Problem]:
    losses = head.get('loss_decode') or dict(type='CrossEntropyLoss')
    for loss in [losses] if isinstance(losses, Mapping) else losses:
        softmax = str(loss['type']).endswith('CrossEntropyLoss') and not loss.get('use_sigmoid')
        if (head.get('out_channels') or head.get('num_classes')) == 1 and softmax and 'loss_mask' not in head:
            yield Problem(
                f'{name}.num_classes',
                'a softmax over one output is always 1, so the loss is 0 and nothing is learned. Name the background too, '
                "as in classes=('background', 'thing') and num_classes=2; or write num_classes=2, out_channels=1 and "
                'use_sigmoid=True in loss_decode',
            )


def _ignored(cfg: Config, split: str) -> int | None:
    """The label that all heads, or in evaluation all metrics, ignore; None if they do not agree."""
    if split == 'train':
        users = [head for _, head in find_heads(cfg.model, _HEADS)]
    else:
        metrics = cfg.get(f'{split}_evaluator') or []
        users = [metrics] if isinstance(metrics, Mapping) else list(metrics)
    values = {user.get('ignore_index', _IGNORED) for user in users} or {_IGNORED}
    return values.pop() if len(values) == 1 else None


def _dataset_problems(
    dataset: Any, cfg: Mapping, key: str, heads: list, ignored: int | None, count: int, tell: Callable[[str], None]
) -> Iterator[Problem]:
    classes = dataset.metainfo.get('classes')
    if classes is not None:
        yield from check_heads(heads, classes, f'{cfg["type"]} ({key})')
    samples = dataset.load_data_list()
    labelled = [sample for sample in samples if sample.get('seg_map_path') is not None]
    yield from (Problem(key, *found) for found in _partners(dataset, samples, labelled, f'{key}: ', tell))
    missing = {*find_missing(s['img_path'] for s in labelled), *find_missing(s['seg_map_path'] for s in labelled)}
    there = [s for s in labelled if not missing & {s['img_path'], s['seg_map_path']}]
    if there:
        names = list(classes or map(str, range(heads[0][1]['num_classes'])))
        chosen = draw(there, count)
        yield from (Problem(key, *found) for found in _labels(chosen, len(there), cfg.get('pipeline') or [], names, ignored))


def _partners(
    dataset: Any, samples: list[dict], labelled: list[dict], prefix: str, tell: Callable[[str], None]
) -> Iterator[tuple[str, bool]]:
    """Images without labels, labels without images, and images that the suffix leaves out; which are warnings."""
    folder, labels = (dataset.data_prefix.get(name) or dataset.data_root or '' for name in ('img_path', 'seg_map_path'))
    images, maps = [s['img_path'] for s in samples], [s['seg_map_path'] for s in labelled]
    unread, counts = find_unread(folder, images, maps)
    others = [osp.basename(path) for path in find_unread(labels, maps, [*images, *unread])[0]] if maps else []
    found = Counter(osp.splitext(path)[1] for path in unread)
    tell(f'{prefix}{folder}: {counts}')
    if not samples:
        hint = f'; there are images in {format_list(list(found))}: set img_suffix={next(iter(found))!r}' if found else ''
        yield f'there is no image in {folder} whose name ends in {dataset.img_suffix!r}{hint}', False
    elif absent := find_missing(images):
        hint = f'. Names are listed without {dataset.img_suffix}' if absent[0].endswith(2 * dataset.img_suffix) else ''
        text = f'{len(absent)} of the {len(images)} images that {dataset.ann_file} lists are not there: '
        yield text + format_list(absent) + hint, False
    elif absent := find_missing(maps):
        image = next(sample['img_path'] for sample in labelled if sample['seg_map_path'] == absent[0])
        hint = f'; in {labels} there are {format_list(others)}' if others else ''
        yield f'{len(absent)} of {len(maps)} images have no label file: {image} should have {absent[0]}{hint}', False
    elif maps and not dataset.ann_file:  # a list leaves out what it means to
        lonely = [name for name in others if name.endswith(dataset.seg_map_suffix)]
        if unread:
            ends = ', '.join(f'{number} in {suffix}' for suffix, number in found.items())
            text = f'{len(unread)} of {len(unread) + len(images)} images of {folder} are left out: they do not end in '
            yield f'{text}{dataset.img_suffix!r}, but {ends}', True
        if lonely:
            yield f'{len(lonely)} label files of {labels} belong to no image that is read: {format_list(lonely)}', True


def _labels(
    samples: list[dict], total: int, pipeline: list, classes: list[str], ignored: int | None
) -> Iterator[tuple[str, bool]]:
    """What is wrong with labels as they are loaded, with the first file of each kind; which are warnings."""
    steps = loading_steps(pipeline)
    if not any('Annotation' in str(step['type']) for step in steps):
        steps.append(dict(type='LoadAnnotations'))
    transforms = [TRANSFORMS.build(step) for step in steps]
    upright = any(str(getattr(t, 'color_type', '')).endswith(('ignore_orientation', 'unchanged')) for t in transforms)
    found: dict[str, list[str]] = {}
    pixels = np.zeros(256, dtype=np.int64)
    for sample in samples:
        loaded, key, thing = dict(sample, seg_fields=[]), 'img_path', 'an image'
        try:
            for transform in transforms:
                if 'Annotation' in type(transform).__name__:
                    key, thing = 'seg_map_path', 'a label map'
                loaded = loaded and transform(loaded)
        except Exception as error:  # a decoder raises anything
            found.setdefault('unread', []).append(f'{sample[key]} cannot be read as {thing} ({describe_error(error)})')
            continue
        if not loaded:
            continue  # by a loader that skips
        for kind, text in _file_problems(sample, loaded, len(classes), ignored, upright):
            found.setdefault(kind, []).append(text)
        pixels += np.bincount(loaded['gt_seg_map'].astype(np.uint8).ravel(), minlength=256)
    for kind, texts in found.items():
        from_one = kind == 'beyond' and pixels[len(classes)] and not pixels[0] and not pixels[len(classes) + 1 : 255].any()
        hint = '. The labels begin at 1: set reduce_zero_label=True' if from_one else ''
        yield first_of(texts, len(samples)) + hint, kind == 'turned'
    if pixels.any() and not found.keys() - {'turned'}:
        yield from _occurring(pixels, len(samples), total, bool(samples[0].get('reduce_zero_label')), classes, ignored)


def _file_problems(
    sample: dict, loaded: dict, classes: int, ignored: int | None, upright: bool
) -> Iterator[tuple[str, str]]:
    """Kind and text of what is wrong with one image and its labels."""
    path, image, labels = sample['seg_map_path'], sample['img_path'], loaded['gt_seg_map']
    if labels.ndim != 2:
        yield 'channels', f'{path} has {labels.shape[-1]} channels; a label map has one, the number of the class'
        return
    if (largest := _largest(path)) > 255:
        yield 'depth', f'{path} holds numbers up to {largest}; mmseg reads labels of 8 bits, and the rest is cut off'
        return
    beyond = labels >= classes
    if ignored is not None:
        beyond &= labels != ignored
    if beyond.any():
        values = format_list([str(value) for value in np.unique(labels[beyond])])
        rest = f'0 to {classes - 1}, and {"nothing" if ignored is None else ignored} is ignored'
        yield 'beyond', f'{path} holds, as it is loaded, the labels {values}; there are {classes} classes, {rest}'
    turn, hint = read_exif(image, upright)
    height, width = loaded['img'].shape[:2] if 'img' in loaded else labels.shape
    if (height, width) != labels.shape:
        sizes = f'{width} x {height} pixels, and its label {path} with {labels.shape[1]} x {labels.shape[0]}'
        yield 'size', f'{image} is loaded with {sizes}{hint}'
    elif turn > 1 and (turn < 5 or height == width):  # which the sizes do not tell
        so = 'as it is stored, whatever its EXIF tag says' if upright else 'turned by its EXIF tag'
        yield 'turned', f'{image} is loaded {so}: was {path} drawn on it like this?'


def _largest(path: str) -> int:
    """The largest number in a label file of 16 bits or more, and 0 of others."""
    try:
        with Image.open(path) as file:
            return int(np.asarray(file).max()) if file.mode[0] in 'IF' else 0
    except OSError:  # remote, or of a kind that only the loader knows
        return 0


def _occurring(
    pixels: np.ndarray, files: int, total: int, reduced: bool, classes: list[str], ignored: int | None
) -> Iterator[tuple[str, bool]]:
    """Classes that do not occur among the loaded labels, 256 counts of pixels."""
    occur = [name for name, number in zip(classes, pixels) if number]
    share = pixels[ignored % 256] / pixels.sum() if ignored is not None else 0.0
    where = f'in the {files} label files that were looked at'
    if not occur or len(occur) == 1 < len(classes):
        only = f'of {len(classes)} classes only {occur[0]} occurs' if occur else 'no class occurs'
        hint = f'where {ignored} stands for a class, write its number'
        hint = 'reduce_zero_label=True makes 255 of 0, and 0 of 1: leave it out if 0 is a class' if reduced else hint
        much = f', and {share:.0%} of their pixels have the label {ignored}, which is ignored: {hint}'
        yield f'{only} {where}{much if share >= _LEAST_IGNORED else ""}', share < _LEAST_IGNORED
    elif share >= _MUCH_IGNORED and len(occur) < len(classes) and (files == total or files >= 10 * len(classes)):
        absent = format_list([name for name in classes if name not in occur])
        yield f'{absent} of {len(classes)} classes never occur {where}, and {share:.0%} of the pixels are ignored', True
