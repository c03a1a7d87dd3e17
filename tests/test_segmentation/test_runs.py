"""Training, validation and resuming by tools/train.py, as a user runs it."""

import os.path as osp

import pytest
import torch

from mmmlo.launch.config import load_config

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
UPERNET = 'upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512'
LINEAR = 'linear_vit-mini-p16_camvid'


def state(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.parametrize(('name', 'left'), [(UPERNET, 3), (LINEAR, 1)], ids=['upernet', 'linear'])
def test_train_validate_and_resume(name, left, data_folder, cut_down, patch_16_checkpoint, run_tool):
    cfg = cut_down(load_config(osp.join(ROOT, f'configs/segmentation/{name}.py')))
    cfg.dump(data_folder / f'{name}.py')
    output = run_tool('train.py', f'{name}.py', '--backbone', patch_16_checkpoint, cwd=data_folder)
    # Embeddings and blocks, and the final norm where it is used; the positions are resized to 4 x 5.
    matched = 2 + 1 + 4 * 12 + (3 - left)
    assert f'(backbone.*) in VisionTransformer: {matched} matched, 1 resized, {left} left by design\n' in output
    assert 'Iter(train) [2/2]' in output and 'mIoU: ' in output
    folder = data_folder / 'work_dirs' / name

    output = run_tool(
        'train.py', f'{name}.py', '--resume', '--resume-settings', 'checkpoint', '--cfg-options', 'train_cfg.max_iters=3',
        'train_cfg.val_interval=1',
        cwd=data_folder)  # fmt: skip
    assert 'resumed epoch: 0, iter: 2' in output
    assert 'Iter(train) [3/3]' in output and 'mIoU: ' in output
    pretrained, second, third = state(patch_16_checkpoint), state(folder / 'iter_2.pth'), state(folder / 'iter_3.pth')
    assert list(second) == list(third)
    assert not torch.equal(second['decode_head.conv_seg.weight'], third['decode_head.conv_seg.weight'])
    for key, value in third.items():
        if key in pretrained and key != 'backbone.pos_embed':
            assert torch.equal(value, pretrained[key]) == (name == LINEAR), key
    assert torch.equal(second['backbone.pos_embed'], third['backbone.pos_embed']) == (name == LINEAR)


@pytest.mark.slow
def test_wrong_labels_stop_before_the_first_step(data_folder, cut_down, run_tool):
    cfg = cut_down(load_config(osp.join(ROOT, f'configs/segmentation/{LINEAR}.py')))
    cfg.model.decode_head.num_classes = 12
    cfg.dump(data_folder / 'wrong.py')
    output = run_tool('train.py', 'wrong.py', cwd=data_folder, code=1)
    assert 'error: `model.decode_head.num_classes` is 12, but mmmlo.CamVidDataset' in output
    assert 'Traceback' not in output
