import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample

from mmmlo.engine.batch_dump import pack, unpack
from mmmlo.engine.non_finite import random_state, set_random_state


def through_a_file(value, path):
    torch.save(pack(value), path)
    from mmmlo.utils.checkpoints import read_content

    return unpack(read_content(str(path)))


def test_a_batch_comes_back_from_a_file_without_code(tmp_path):
    sample = DataSample(metainfo=dict(img_path='a.jpg', ori_shape=(4, 4), scale_factor=np.float64(0.5))).set_gt_label(3)
    pixels = PixelData(data=torch.arange(16).reshape(1, 4, 4))
    batch = dict(inputs=[torch.ones(3, 4, 4)], data_samples=[sample], more=(pixels, None, 'text'))
    back = through_a_file(batch, tmp_path / 'batch.pth')
    assert torch.equal(back['inputs'][0], batch['inputs'][0])
    assert isinstance(back['data_samples'][0], DataSample)
    assert back['data_samples'][0].gt_label.tolist() == [3]
    assert back['data_samples'][0].metainfo == sample.metainfo
    assert torch.equal(back['more'][0].data, pixels.data) and back['more'][1:] == (None, 'text')


def test_boxes_and_masks_of_mmdet(tmp_path):
    structures = pytest.importorskip('mmdet.structures')
    boxes = pytest.importorskip('mmdet.structures.bbox').HorizontalBoxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    masks = pytest.importorskip('mmdet.structures.mask').BitmapMasks(np.ones((1, 4, 4), np.uint8), 4, 4)
    sample = structures.DetDataSample()
    sample.gt_instances = InstanceData(bboxes=boxes, masks=masks, labels=torch.tensor([1]))
    back = through_a_file([sample], tmp_path / 'batch.pth')[0].gt_instances
    assert type(back.bboxes) is type(boxes) and torch.equal(back.bboxes.tensor, boxes.tensor)
    assert type(back.masks) is type(masks) and np.array_equal(back.masks.masks, masks.masks)


@pytest.mark.parametrize(
    'value',
    [
        dict(__element__='os:path', meta={}, data={}),
        dict(__element__='mmengine.runner:Runner', meta={}, data={}),
        dict(__masks__='mmengine.config:Config', masks=0, height=0, width=0),
        dict(__boxes__='subprocess:Popen', tensor=0),
    ],
)
def test_a_file_cannot_name_any_other_class(value):
    with pytest.raises(ValueError, match='is no structure of a batch'):
        unpack(value)


def test_the_random_generators_go_back_to_where_they_were(tmp_path):
    import random

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    state = random_state(torch.device('cpu'))
    first = draw()
    set_random_state(through_a_file(state, tmp_path / 'state.pth'), torch.device('cpu'))
    assert draw() == first
