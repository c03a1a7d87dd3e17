"""Annotation files and images that a detection config cannot be trained or measured on, by mmdet's own data sets."""

import copy
import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmmlo.preflight.check_detection import find_detection_problems
from mmmlo.utils.errors import MissingFileError

pytest.importorskip('mmdet')
BOX = [4, 4, 16, 8]
SQUARE = [[4, 4, 20, 4, 20, 12, 4, 12]]


@pytest.fixture
def cfg(tmp_path):
    """A Mask R-CNN of two classes, ``cfg(box=..., image=..., **content)``: what to change in all annotations and images."""

    def build(box=(), image=(), size=(40, 36), orientation: int = 1, split: str = '', **content) -> Config:
        exif = Image.Exif()
        exif[0x0112] = orientation
        whole = dict(
            images=[dict(dict(id=i, file_name=f'{i}.jpg', width=40, height=36), **dict(image)) for i in (1, 2)],
            annotations=[
                dict(dict(id=i, image_id=i, category_id=2, bbox=BOX, area=128, iscrowd=0, segmentation=SQUARE), **dict(box))
                for i in (1, 2)
            ],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        )
        for name in ('train', 'val'):
            (tmp_path / name).mkdir(exist_ok=True)
            for i in (1, 2):
                Image.new('RGB', size).save(tmp_path / name / f'{i}.jpg', exif=exif)
            changed = dict(whole, **content) if name == split or not split else whole
            (tmp_path / f'{name}.json').write_text(json.dumps(changed))
        (tmp_path / 'other.json').write_text(json.dumps(dict(whole, annotations=[])))
        steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]

        def loader(name: str) -> dict:
            return dict(
                type='CocoDataset', data_root=str(tmp_path), ann_file=f'{name}.json', data_prefix=dict(img=name),
                metainfo=dict(classes=('cat', 'dog')), pipeline=copy.deepcopy(steps), test_mode=name == 'val',
                filter_cfg=dict(filter_empty_gt=True, min_size=32))  # fmt: skip

        roi_head = dict(bbox_head=[dict(num_classes=2)] * 2, mask_head=dict(num_classes=2))
        return Config(
            dict(
                default_scope='mmdet',
                model=dict(rpn_head=dict(type='RPNHead'), roi_head=roi_head),
                train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=loader('train'))),
                val_dataloader=dict(dataset=loader('val')),
                val_evaluator=dict(type='CocoMetric', metric=['bbox', 'segm'], ann_file=str(tmp_path / 'val.json')),
                test_dataloader=None,
            )
        )

    return build


def find(cfg: Config) -> list:
    return list(find_detection_problems(cfg, 200, lambda text: None))


def error(cfg: Config) -> str:
    problems = [problem for problem in find(cfg) if not problem.warning]
    return str(problems[0]) if problems else ''


def test_what_is_right_is_told(cfg):
    told: list[str] = []
    assert not list(find_detection_problems(cfg(), 200, told.append))
    assert len(told) == 2
    assert told[0].startswith('train_dataloader.dataset.dataset: mmdet keeps 2 of the 2 images of ')
    assert told[0].endswith('train.json, with 2 of 2 boxes')
    # A category that is no class is left out by mmdet.
    more = [dict(id=i, name=name) for i, name in enumerate(('ant', 'cat', 'dog', 'cow'))]
    assert not find(cfg(categories=more))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(annotations=[]), 'with 0 of 0 boxes. There is nothing to learn'),
        (dict(categories=[dict(id=1, name='cat')]), 'has the categories 1 cat, but not dog of the classes of CocoDataset'),
        (dict(categories=[dict(id=2, name='dog'), dict(id=1, name='cat')]), '2 dog, 1 cat, which mmdet numbers in this'),
        (dict(categories=[dict(id=1, name='cat'), dict(id=2, name='dog'), dict(id=3, name='dog')]), 'of the name dog'),
        (dict(box=dict(category_id=7)), '2 of 2 boxes of .* have the category_id 7, .*: there are 1 cat, 2 dog'),
        (dict(box=dict(image_id=7)), 'has boxes of images that it does not list: 7'),
        (dict(box=dict(image_id='1')), 'has boxes of images that it does not list: 1'),
        (dict(box=dict(id=1)), 'has several annotations of the id 1'),
        (dict(image=dict(id=1)), 'has several images of the id 1'),
        (dict(box=dict(area=None)), "2 of 2 annotations of .* have no 'area', which mmdet needs"),
        (dict(image=dict(height=None)), "2 of 2 images of .* have no 'height'"),
        (dict(box=dict(bbox=[1, 2])), r'a bbox is x, y, width, height, and \[1, 2\] in annotation 1'),
        (dict(image=dict(file_name='3.jpg')), '2 of the 2 images of .* are not in .*train: 3.jpg'),
        (dict(images=None), r'train.json is no COCO annotation file \(TypeError'),
        # Masks.
        (dict(box=dict(segmentation=None)), r'2 of 2 boxes of .* have no mask .* annotation 1, .*without mask_head'),
        (dict(box=dict(segmentation=[])), '2 of 2 boxes of .* have no mask'),
        (dict(box=dict(segmentation=[[1, 1, 9, 9]])), 'ignores the masks of all 2 boxes .* polygons need three points'),
        (dict(box=dict(segmentation=dict(counts=[9, 1, 30], size=[8, 5]))), 'and its annotations cannot be loaded'),
        # What mmdet's rules leave.
        (dict(box=dict(iscrowd=1)), 'with 0 of 2 boxes: 2 crowds or ignored. There is nothing to learn'),
        (dict(box=dict(bbox=[60, 4, 9, 9])), 'reach beyond their image, such as'),
        (dict(box=dict(area=0)), 'with 0 of 2 boxes: 2 boxes without area or below a pixel'),
        (dict(image=dict(width=28, height=28), size=(28, 28)), '2 images below filter_cfg.min_size=32'),
        # Boxes in other units.
        (dict(box=dict(bbox=[0.1, 0.1, 0.5, 0.5], area=0.25)), r'fractions of the image, such as \[0.1, 0.1, 0.5, 0.5\]'),
        (dict(box=dict(bbox=[20, 20, 36, 32])), '100% of the boxes .* they seem to be two corners'),
        (dict(box=dict(bbox=[36, 4, 16, 8])), 'reach beyond their image, .* width and height in the wrong order'),
        # Images of another size than the file says.
        (dict(size=(80, 72)), r'1.jpg is loaded with 80 x 72 pixels, and .* says 40 x 36 \(and 1 more of 2\)'),
        (dict(orientation=6, size=(40, 36)), 'says 40 x 36; its EXIF tag turns it, and not what .* 1 more of 2'),
    ],
)
def test_annotations(cfg, content, message):
    assert re.search(f'^train_dataloader.dataset.dataset: .*({message})', error(cfg(**content)))


def change_last(cfg: Config, **box) -> None:
    """Change the last box of the validation data."""
    path = Path(cfg.val_evaluator.ann_file)
    content = json.loads(path.read_text())
    content['annotations'][-1].update(box)
    path.write_text(json.dumps(content))


def test_one_box_of_many_without_a_mask(cfg):
    whole = cfg()
    change_last(whole, segmentation=[])
    assert '1 of 2 boxes of ' in error(whole) and 'such as annotation 2, and masks are asked for' in error(whole)
    whole.val_dataloader.dataset.pipeline[1].with_mask = False
    assert error(whole)  # the metric asks for them too
    whole.val_evaluator.metric = 'bbox'
    assert not find(whole)


def test_run_length_masks_need_poly2mask(cfg):
    whole = cfg(box=dict(segmentation=dict(counts=[300, 20, 40 * 36 - 320], size=[36, 40])))
    assert not find(whole)
    whole.train_dataloader.dataset.dataset.pipeline[1].poly2mask = False
    assert 'ignores the masks of all 2 boxes that were looked at' in error(whole)


def test_much_that_is_left_out_is_a_warning(cfg):
    whole = cfg()
    change_last(whole, iscrowd=1)
    (problem,) = find(whole)
    assert problem.warning and problem.text.endswith('with 1 of 2 boxes: 1 crowds or ignored')


def test_the_metric_reads_the_file_of_its_loader(cfg, tmp_path):
    whole = cfg()
    whole.val_evaluator = [whole.val_evaluator, dict(type='CocoMetric', ann_file=str(tmp_path / 'other.json'))]
    assert error(whole).startswith(f'val_evaluator.ann_file: {tmp_path}/other.json is measured by, but val_dataloader ')
    whole.val_evaluator[1].ann_file = 'no.json'
    assert error(whole).startswith('val_evaluator.ann_file: there is no file no.json; val_dataloader reads ')
    (tmp_path / 'copy.json').write_bytes((tmp_path / 'val.json').read_bytes())
    whole.val_evaluator[1].ann_file = str(tmp_path / 'copy.json')
    assert not find(whole)


def test_files_that_are_not_there_or_not_json(cfg, tmp_path):
    for key, value, kind in (('ann_file', 'no.json', 'file'), ('data_prefix', dict(img='no'), 'folder')):
        wrong = cfg()
        wrong.val_dataloader.dataset[key] = value
        with pytest.raises(MissingFileError, match=f'`val_dataloader.dataset.{key}.*: there is no {kind} .*/no'):
            find(wrong)
    wrong = cfg()
    (tmp_path / 'train.json').write_text('\ufeff{}')
    assert 'train.json is no COCO annotation file (JSONDecodeError' in error(wrong)
    (tmp_path / 'train.json').write_text('[]')
    assert 'train.json is no COCO annotation file (AssertionError' in error(wrong)


def test_a_tuple_of_one_without_its_comma(cfg):
    wrong = cfg()
    wrong.train_dataloader.dataset.dataset.metainfo.classes = 'cat'
    wrong.model.roi_head = {}
    assert "metainfo.classes is a text, 'cat'; a tuple of one has a comma: ('cat', )" in error(wrong)


def test_heads_know_as_many_classes(cfg):
    wrong = cfg()
    wrong.model.roi_head.mask_head.num_classes = 80
    assert error(wrong).startswith('model.roi_head.mask_head.num_classes: 80, but CocoDataset ')
    wrong.model.roi_head = dict(bbox_head=[dict(num_classes=2), dict(num_classes=3)])
    assert error(wrong).startswith('model.roi_head.bbox_head.1.num_classes: 3')


def test_images_of_a_validation_split_may_have_no_boxes(cfg):
    assert not find(cfg(annotations=[], split='val'))
