"""Annotation files and images that a detection config cannot be trained on."""

import copy
import json

import pytest
from mmengine.config import Config
from PIL import Image

from mmmlo.preflight.check_detection import check_detection_data


@pytest.fixture
def cfg(tmp_path):
    """A config of two classes; the annotations of its one image can be changed: ``cfg(images=..., annotations=...)``."""

    def build(**content) -> Config:
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'images' / 'one.jpg')
        whole = dict(
            images=[dict(id=1, file_name='one.jpg')],
            annotations=[dict(id=1, image_id=1, category_id=2, bbox=[0, 0, 4, 4])],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        )
        (tmp_path / 'boxes.json').write_text(json.dumps(dict(whole, **content)))
        dataset = dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='boxes.json', data_prefix=dict(img='images'),
            metainfo=dict(classes=('cat', 'dog')))  # fmt: skip
        roi_head = dict(bbox_head=[dict(num_classes=2)] * 2, mask_head=dict(num_classes=2))
        return Config(
            dict(
                default_scope='mmdet',
                model=dict(rpn_head=dict(type='RPNHead'), roi_head=roi_head),
                train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)),
                val_dataloader=dict(dataset=copy.deepcopy(dataset)),
                test_dataloader=None,
            )
        )

    return build


def test_what_is_right_passes(cfg):
    check_detection_data(cfg())
    # More categories than classes: those are left out by mmdet.
    check_detection_data(cfg(categories=[dict(id=i, name=name) for i, name in enumerate(('cat', 'dog', 'cow'))]))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(annotations=[]), r'none of the 1 images of .*boxes.json has a box: there is nothing to learn'),
        (dict(categories=[dict(id=1, name='cat')]), r'has the categories cat, but not dog of the classes of CocoDataset'),
        (dict(annotations=[dict(image_id=7)]), r'has boxes of images that it does not list: 7'),
        (dict(images=[dict(id=1, file_name='two.jpg')]), r'1 of the 1 images of .* are not in .*images: two.jpg'),
        (dict(images=None), r'boxes.json is no COCO annotation file \(TypeError'),
        (dict(categories=[dict(id=1)]), r'boxes.json is no COCO annotation file \(KeyError'),
    ],
)
def test_annotations(cfg, content, message):
    with pytest.raises(ValueError, match=f'`train_dataloader.dataset.dataset`: .*{message}'):
        check_detection_data(cfg(**content))


def test_files_that_are_not_there(cfg):
    for key, value, kind in (('ann_file', 'no.json', 'file'), ('data_prefix', dict(img='no'), 'folder')):
        wrong = cfg()
        wrong.val_dataloader.dataset[key] = value
        with pytest.raises(ValueError, match=f'`val_dataloader.dataset`: there is no {kind} .*/no'):
            check_detection_data(wrong)


def test_heads_know_as_many_classes(cfg):
    wrong = cfg()
    wrong.model.roi_head.mask_head.num_classes = 80
    with pytest.raises(ValueError, match=r'`model.roi_head.mask_head.num_classes` is 80, but CocoDataset .* has 2 classes'):
        check_detection_data(wrong)
    wrong = cfg()
    wrong.model.roi_head.bbox_head = [dict(num_classes=2), dict(num_classes=3)]
    with pytest.raises(ValueError, match=r'`model.roi_head.bbox_head\[1\].num_classes` is 3'):
        check_detection_data(wrong)


def test_images_of_a_validation_split_may_have_no_boxes(cfg):
    right = cfg(annotations=[])
    right.train_dataloader = None
    check_detection_data(right)
