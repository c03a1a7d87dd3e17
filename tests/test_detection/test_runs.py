"""Training, validation, resuming and pictures by the tools, as a user runs them."""

import os
import os.path as osp

import pytest
import torch

from mmmlo.launch.config import load_config

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
MASK_RCNN = 'mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco'
CASCADE = 'cascade-mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco'


@pytest.mark.parametrize('name', [MASK_RCNN, CASCADE], ids=['mask-rcnn', 'cascade'])
def test_train_validate_resume_and_draw(name, data_folder, cut_down, patch_16_checkpoint, run_tool):
    cfg = cut_down(load_config(osp.join(ROOT, f'configs/detection/{name}.py')))
    cfg.model.backbone.with_cp = name == CASCADE
    cfg.dump(data_folder / f'{name}.py')
    output = run_tool('train.py', f'{name}.py', '--backbone', patch_16_checkpoint, cwd=data_folder)
    assert f'(backbone.*) in WindowedViT: {2 + 4 * 12} matched, 2 resized, 3 left by design\n' in output
    assert 'Iter(train) [2/2]' in output and 'coco/bbox_mAP: ' in output and 'coco/segm_mAP: ' in output

    output = run_tool(
        'train.py', f'{name}.py', '--resume', '--resume-settings', 'checkpoint', '--cfg-options', 'train_cfg.max_iters=3',
        'train_cfg.val_interval=3',
        cwd=data_folder)  # fmt: skip
    assert 'resumed epoch: 0, iter: 2' in output and 'Iter(train) [3/3]' in output
    folder = data_folder / 'work_dirs' / name
    second, third = (torch.load(folder / f'iter_{i}.pth', weights_only=False)['state_dict'] for i in (2, 3))
    assert list(second) == list(third)
    assert not torch.equal(second['backbone.patch_embed.projection.weight'], third['backbone.patch_embed.projection.weight'])
    if name == MASK_RCNN:
        output = run_tool(
            'test.py', f'{name}.py', folder / 'iter_3.pth', '--show-dir', 'shown', '--show-count', 3, cwd=data_folder)
        assert 'coco/bbox_mAP: ' in output and output.endswith('Pictures: shown\n')
        assert sorted(os.listdir(data_folder / 'shown')) == ['0.png', '1.png', '2.png']


@pytest.mark.slow
def test_wrong_boxes_stop_before_the_first_step(data_folder, cut_down, run_tool):
    cfg = cut_down(load_config(osp.join(ROOT, f'configs/detection/{MASK_RCNN}.py')))
    cfg.model.roi_head.bbox_head.num_classes = 3
    cfg.dump(data_folder / 'wrong.py')
    output = run_tool('train.py', 'wrong.py', cwd=data_folder, code=1)
    assert 'error: `model.roi_head.bbox_head.num_classes` is 3, but CocoDataset' in output
    assert 'Traceback' not in output
