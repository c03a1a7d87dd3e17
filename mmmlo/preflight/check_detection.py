"""A look at the images and boxes that a config of mmdet names, as mmdet will keep them."""

import copy
import filecmp
import io
import os.path as osp
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from mmmlo.datasets import check_dataset_folder
from mmmlo.utils.config import dataset_leaves
from mmmlo.utils.text import describe_error, format_list

from .problems import Problem, check_heads, draw, find_heads, find_missing, first_of, loading_steps, read_exif

__all__ = ['find_detection_problems']

_MANY = 0.1  # share of boxes that is no accident
# What mmdet reads.
_NEEDED = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
    categories=('id', 'name'),
)


def find_detection_problems(cfg: Config, count: int, tell: Callable[[str], None]) -> Iterator[Problem]:
    """Look for boxes that mmdet drops, misreads or does not find, in data sets of COCO's format; others are left alone.

    Each annotation file is read once, by the data set's own reader, and ``count`` images of each data set are loaded.
    """
    seen: list[tuple] = []
    heads = list(find_heads(cfg.model, ('bbox_head', 'mask_head', 'roi_head')))  # the RPN's knows one class
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope', 'mmdet')) as registry:
        for split in ('train', 'val', 'test'):
            loader, metrics = cfg.get(f'{split}_dataloader'), cfg.get(f'{split}_evaluator') or []
            metrics = [metrics] if isinstance(metrics, Mapping) else list(metrics)
            leaves = list(dataset_leaves(loader['dataset'], f'{split}_dataloader.dataset')) if loader else []
            if len(leaves) == 1:
                yield from _metric_problems(metrics, split, leaves[0][1])
            for key, own in leaves:
                files = own.get('data_root'), own.get('ann_file'), own.get('data_prefix'), own.get('metainfo')
                reader = getattr(registry.get(str(own.get('type'))), 'COCOAPI', None)
                if files in seen or getattr(reader, '__name__', '') != 'COCO' or not own.get('ann_file'):
                    continue
                seen.append(files)
                check_dataset_folder(own, key)
                segm = any('segm' in str(metric.get('metric')) for metric in metrics)
                check = _CocoCheck(own, segm, split == 'train')
                yield from check_heads(heads, check.classes, f'{own["type"]} ({key})')
                yield from (Problem(key, text, warning) for text, warning in check.problems(count, f'{key}: ', tell))


def _metric_problems(metrics: list, split: str, dataset: Mapping) -> Iterator[Problem]:
    own = osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    for theirs in (metric['ann_file'] for metric in metrics if metric.get('ann_file')):
        if '://' not in theirs and not osp.isfile(theirs):
            yield Problem(f'{split}_evaluator.ann_file', f'there is no file {theirs}; {split}_dataloader reads {own}')
        elif osp.isfile(own) and osp.isfile(theirs) and not filecmp.cmp(own, theirs):
            text = f'{theirs} is measured by, but {split}_dataloader reads {own}: both must be the same'
            yield Problem(f'{split}_evaluator.ann_file', text)


class _CocoCheck:
    """One data set of COCO's format: what its file holds, and what mmdet makes of it."""

    def __init__(self, cfg: Mapping[str, Any], segm: bool, train: bool) -> None:
        self.cfg, self.train = cfg, train
        self.dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True, serialize_data=False))
        self.file = self.dataset.ann_file
        self.classes = self.dataset.metainfo.get('classes') or ()
        self.steps = loading_steps(cfg.get('pipeline'))
        self.loads_masks = any(step.get('with_mask') for step in self.steps)
        self.needs_masks = segm or self.loads_masks

    def problems(self, count: int, prefix: str, tell: Callable[[str], None]) -> Iterator[tuple[str, bool]]:
        """Look at what the file holds, at what is kept and at a sample of what is loaded: texts, and which are warnings."""
        content, error = self._read()
        if content is None:
            if error is not None:  # else another reader was used, as for LVIS
                yield f'{self.file} is no COCO annotation file ({error})', False
            return
        found = [*self._format(content)] or [*self._categories(content)] or [*self._boxes(content)]
        if not found and error is not None:
            found = [f'mmdet cannot read {self.file} ({error})']
        yield from ((text, False) for text in found)
        if found:
            return
        kept = self.dataset.filter_data()
        text, left, number = self._kept(content, kept)
        if not left and (number or self.train):
            yield f'{text}. There is nothing to {"learn" if self.train else "measure"}', False
        elif left < (1 - _MANY) * number:
            yield text, True
        else:
            tell(prefix + text)
        missing = find_missing(info['img_path'] for info in kept if '://' not in info['img_path'])
        if missing:
            folder = self.dataset.data_prefix['img']
            names = format_list([osp.relpath(path, folder) for path in missing])
            yield f'{len(missing)} of the {len(kept)} images of {self.file} are not in {folder}: {names}', False
        absent = set(missing)
        there = [info for info in kept if info['img_path'] not in absent]
        yield from ((text, False) for text in self._loaded(draw(there, count)))

    def _read(self) -> tuple[dict | None, str | None]:
        """What the file holds, None if it cannot be read, and the error at which mmdet stops."""
        read, files = self.dataset.COCOAPI, []

        def keep(path: str) -> Any:
            files.append(read(path))
            return files[-1]

        self.dataset.COCOAPI, error = keep, None
        try:
            with redirect_stdout(io.StringIO()):
                self.dataset.data_list = self.dataset.load_data_list()
        except Exception as stop:  # whatever a file may have in wrong places
            error = describe_error(stop)
        return files[0].dataset if files else None, error

    def _format(self, content: dict) -> Iterator[str]:
        """Keys that mmdet asks for, and numbers that stand for two things."""
        for kind, needed in _NEEDED.items():
            entries = content.setdefault(kind, [])
            for name in needed:
                without = [entry for entry in entries if entry.get(name) is None]
                if without:
                    text = f'{len(without)} of {len(entries)} {kind} of {self.file} have no {name!r}, which mmdet needs'
                    yield f'{text}, for example {str(without[0])[:100]}'
            for name in ('id', 'name') if kind == 'categories' else ('id', ):
                numbers = Counter(str(entry.get(name)) for entry in entries)
                if twice := [value for value, times in numbers.items() if times > 1]:
                    yield f'{self.file} has several {kind} of the {name} {format_list(twice)}'
        wrong = [box for box in content['annotations'] if box.get('bbox') is not None and len(box['bbox']) != 4]
        if wrong:
            yield f'{self.file}: a bbox is x, y, width, height, and {wrong[0]["bbox"]} in annotation {wrong[0]["id"]}'

    def _categories(self, content: dict) -> Iterator[str]:
        """Labels follow the order of the file's categories, names that of the classes."""
        names = {category['id']: category['name'] for category in content['categories']}
        there = format_list([f'{number} {name}' for number, name in names.items()])
        labels = [name for name in names.values() if name in self.classes]
        if isinstance(self.classes, str):
            yield f"metainfo.classes is a text, {self.classes!r}; a tuple of one has a comma: ('{self.classes}', )"
        elif labels != list(self.classes):
            absent = format_list([name for name in self.classes if name not in labels])
            unlike = f'but not {absent} of' if absent else 'which mmdet numbers in this order, unlike'
            yield (
                f'{self.file} has the categories {there}, {unlike} the classes of {self.cfg["type"]}. Name its own, in the '
                "same order in all files, by dataset.metainfo=dict(classes=(...)), and give the heads' num_classes"
            )
        unknown = Counter(str(box['category_id']) for box in content['annotations'] if box['category_id'] not in names)
        if unknown:
            yield (
                f'{unknown.total()} of {len(content["annotations"])} boxes of {self.file} have the category_id '
                f'{format_list(list(unknown))}, which its categories do not list: there are {there}'
            )

    def _boxes(self, content: dict) -> Iterator[str]:
        images, annotations = {image['id']: image for image in content['images']}, content['annotations']
        if unknown := sorted({str(box['image_id']) for box in annotations if box['image_id'] not in images}):
            yield f'{self.file} has boxes of images that it does not list: {format_list(unknown)}'
            return
        without = [box['id'] for box in annotations if not box.get('segmentation')] if self.needs_masks else []
        if without:
            yield (
                f'{len(without)} of {len(annotations)} boxes of {self.file} have no mask (`segmentation`), such as '
                f'annotation {without[0]}, and masks are asked for: add them, or take a detector without mask_head, '
                "with_mask=False in LoadAnnotations and metric='bbox'"
            )
        if not annotations:
            return
        boxes = np.array([box['bbox'] for box in annotations], dtype=float)  # N x 4: x, y, width, height
        sizes = np.array([[images[box['image_id']][name] for name in ('width', 'height')] for box in annotations])  # N x 2
        example = f'such as {list(annotations[0]["bbox"])}'
        outside = (boxes[:, :2] + boxes[:, 2:] > sizes + 1).any(axis=1).mean()
        corners = (boxes[:, 2:] > boxes[:, :2]).all()
        if (boxes <= 1).all(axis=1).mean() > 0.5:
            yield f'the boxes of {self.file} are fractions of the image, {example}; COCO has pixels: x, y, width, height'
        elif outside > _MANY:
            why = 'are they of images of another size, or width and height in the wrong order?'
            why = 'they seem to be two corners, and COCO has x, y, width, height' if corners else why
            yield f'{outside:.0%} of the boxes of {self.file} reach beyond their image, {example}: {why}'

    def _kept(self, content: dict, kept: list[dict]) -> tuple[str, int, int]:
        """What is left after mmdet's own rules and why the rest is not, the boxes that are left, and all of them."""
        images, boxes = content['images'], content['annotations']
        left = sum(not box['ignore_flag'] for info in kept for box in info['instances'])
        least = 0 if self.dataset.test_mode else (self.dataset.filter_cfg or {}).get('min_size', 0)
        reasons = {
            'boxes of categories that are no classes': sum(b['category_id'] not in self.dataset.cat_ids for b in boxes),
            'boxes without area or below a pixel': sum(b['area'] <= 0 or min(b['bbox'][2:]) < 1 for b in boxes),
            'crowds or ignored': sum(bool(b.get('iscrowd') or b.get('ignore')) for b in boxes),
            f'images below filter_cfg.min_size={least}': sum(min(i['width'], i['height']) < least for i in images),
        }
        why = ', '.join(f'{number:,} {reason}' for reason, number in reasons.items() if number)
        text = f'mmdet keeps {len(kept):,} of the {len(images):,} images of {self.file}'
        return f'{text}, with {left:,} of {len(boxes):,} boxes' + (f': {why}' if why else ''), left, len(boxes)

    def _loaded(self, chosen: list[dict]) -> Iterator[str]:
        """What is wrong with a sample after the transforms of the pipeline that load."""
        transforms = [TRANSFORMS.build(step) for step in self.steps]
        broken, sizes = [], []
        before = after = 0
        for info in chosen:
            loaded = copy.deepcopy(info)
            try:
                for transform in transforms:
                    loaded = transform(loaded) or {}
            except Exception as error:  # of a decoder, or of masks that do not fit
                broken.append(f'{info["img_path"]} and its annotations cannot be loaded ({describe_error(error)})')
                continue
            before += sum(not box['ignore_flag'] for box in info['instances'])
            after += sum(not flag for flag in loaded.get('gt_ignore_flags', ()))
            (height, width), stated = loaded.get('ori_shape', (0, 0)), (info['height'], info['width'])
            if (height, width) not in ((0, 0), stated):
                text = f'{info["img_path"]} is loaded with {width} x {height} pixels, and {self.file} says '
                sizes.append(f'{text}{stated[1]} x {stated[0]}{read_exif(info["img_path"])[1]}')
        yield from (first_of(texts, len(chosen)) for texts in (broken, sizes) if texts)
        if before and not after and self.loads_masks:
            yield (
                f'LoadAnnotations ignores the masks of all {before} boxes that were looked at: polygons need three points, '
                'and run-length masks poly2mask=True'
            )
