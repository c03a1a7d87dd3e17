"""What tools/analysis_tools/replay_batch.py reads of a dump; tests of the hook that writes it run the whole tool."""

import subprocess
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample

from mmmlo.engine.non_finite import random_state, set_random_state
from mmmlo.utils.checkpoints import CheckpointError


@pytest.fixture
def through_a_file(load_tool, tmp_path):
    """``through_a_file(value)``: what the tool reads of what the hook writes."""
    tool = load_tool('analysis_tools/replay_batch.py')

    def write_and_read(value):
        torch.save(dict(non_finite=1, batches=value), tmp_path / 'dump.pth')
        return tool.read_dump(str(tmp_path / 'dump.pth'))['batches']

    return write_and_read


def test_a_batch_comes_back_from_a_file_without_code(through_a_file):
    sample = DataSample(metainfo=dict(img_path='a.jpg', ori_shape=(4, 4), scale_factor=np.float64(0.5))).set_gt_label(3)
    pixels = PixelData(data=torch.arange(16).reshape(1, 4, 4))
    batch = dict(inputs=[torch.ones(3, 4, 4)], data_samples=[sample], more=(pixels, None, 'text'))
    back = through_a_file(batch)
    assert torch.equal(back['inputs'][0], batch['inputs'][0])
    assert isinstance(back['data_samples'][0], DataSample)
    assert back['data_samples'][0].gt_label.tolist() == [3]
    assert back['data_samples'][0].metainfo == sample.metainfo
    assert torch.equal(back['more'][0].data, pixels.data) and back['more'][1:] == (None, 'text')


def test_boxes_and_masks_of_mmdet(through_a_file):
    structures = pytest.importorskip('mmdet.structures')
    boxes = pytest.importorskip('mmdet.structures.bbox').HorizontalBoxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    masks = pytest.importorskip('mmdet.structures.mask').BitmapMasks(np.ones((1, 4, 4), np.uint8), 4, 4)
    sample = structures.DetDataSample()
    sample.gt_instances = InstanceData(bboxes=boxes, masks=masks, labels=torch.tensor([1]))
    back = through_a_file([sample])[0].gt_instances
    assert type(back.bboxes) is type(boxes) and torch.equal(back.bboxes.tensor, boxes.tensor)
    assert type(back.masks) is type(masks) and np.array_equal(back.masks.masks, masks.masks)


@pytest.mark.parametrize('value', [Config(), subprocess.Popen, partial(print)])
def test_a_file_cannot_name_any_other_class(through_a_file, value):
    with pytest.raises(CheckpointError, match='more than weights and plain values'):
        through_a_file(value)


def test_the_random_generators_go_back_to_where_they_were(through_a_file):
    import random

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    state = random_state(torch.device('cpu'))
    first = draw()
    set_random_state(through_a_file(state), torch.device('cpu'))
    assert draw() == first
