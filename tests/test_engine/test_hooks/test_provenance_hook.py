import json
import os.path as osp
import sys

from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))


def train(work_dir, iterations: int, **options) -> dict:
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    cfg = Config(cfg.to_dict() | dict(work_dir=str(work_dir), experiment_name=f'{work_dir.name}_{iterations}'))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=2)
    cfg.train_cfg.max_iters = iterations
    for key, value in options.items():
        cfg[key] = value
    Runner.from_cfg(cfg).train()
    return json.loads((work_dir / 'provenance.json').read_text())


def test_each_start_adds_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py'])
    content = train(tmp_path, 2)
    assert content['format'] == 1 and len(content['runs']) == 1
    first = content['runs'][0]
    assert first['command'] == ['train.py', 'config.py'] and first['resumed'] is None
    assert first['seed'] == 0 and first['processes'] == 1 and first['launcher'] == 'none'
    assert {'python', 'mmmlo', 'torch', 'mmengine', 'mmpretrain', 'numpy'} <= set(first['versions'])
    assert len(first['git']['commit']) == 40
    (tmp_path / 'config.py').write_text(first['config'])
    assert Config.fromfile(tmp_path / 'config.py').train_cfg.max_iters == 2
    data = first['data']
    assert list(data) == [
        'train_dataloader', 'train_cfg.dataloaders.finetune', 'train_cfg.dataloaders.masking', 'val_dataloader'
    ]
    assert data['train_dataloader']['dataset'] == 'Digits'
    # D_u is D_tr, D_val is not.
    assert data['train_dataloader'] == data['train_cfg.dataloaders.finetune'] != data['train_cfg.dataloaders.masking']
    assert data['train_dataloader']['images'] + data['train_cfg.dataloaders.masking']['images'] == 1438

    content = train(tmp_path, 4, resume=True)
    assert len(content['runs']) == 2 and content['runs'][0] == first
    second = content['runs'][1]
    assert second['resumed'] == dict(checkpoint=str(tmp_path / 'iter_2.pth'), epoch=0, iter=2)
    assert 'max_iters=4' in second['config'] and second['data'] == data
