"""When a held level begins, in real runs."""

import copy
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmlo.engine import LevelStartHook
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.errors import SettingError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))


class Watch(Hook):
    """Notes after which iterations the masker has moved, and what the masking level logs."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.moved, self.logged, self.before = [], {}, None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = [p.clone() for p in runner.model.masker.parameters()]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if any(not torch.equal(a, b) for a, b in zip(self.before, runner.model.masker.parameters())):
            self.moved.append(runner.iter + 1)
        self.logged[runner.iter + 1] = {name for name in outputs if name.startswith('masking/')}


@pytest.fixture(scope='module')
def base_cfg():
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')), cycles=5)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.log_level = 'ERROR'
    return cfg


@pytest.fixture
def train(base_cfg, tmp_path):
    """``train(**arguments of the hook)``: the Watch of a run of five cycles of two iterations."""

    def run(**kwargs):
        cfg = copy.deepcopy(base_cfg)
        cfg.work_dir, cfg.experiment_name = str(tmp_path), tmp_path.name
        cfg.custom_hooks = [dict(type='mmmlo.LevelStartHook', **kwargs)]
        runner = Runner.from_cfg(Config(cfg.to_dict()))
        watch = Watch()
        runner.register_hook(watch)
        runner.train()
        return watch, runner

    return run


def test_a_level_moves_from_the_decision_on(train):
    watch, runner = train(margin=0.5, chance=100.0, interval=4)
    assert watch.moved == [6, 8, 10]
    assert watch.logged[4] == {'masking/loss', 'masking/seconds'}
    assert 'masking/hypergradient_norm' in watch.logged[6]
    assert runner.optim_wrapper.step_counts == dict(pretrain=10, finetune=5, masking=5)


def test_a_level_that_stays_at_chance_never_moves(train, monkeypatch):
    said = []
    monkeypatch.setattr('mmmlo.engine.hooks.level_start_hook.print_log', lambda text, *_: said.append(text))
    watch, _ = train(margin=0.9, interval=2)  # of log(10)
    assert watch.moved == []
    assert said == [
        "level 'masking' never began: its loss did not fall below 0.230. Lower LevelStartHook.margin, or train longer"
    ]


def test_the_loss_is_averaged_between_decisions():
    class Level:
        held = True

    class Wrapper:
        def level(self, name):
            return Level

    class FakeRunner:
        iter = 0
        optim_wrapper = Wrapper()

    hook = LevelStartHook(margin=0.25, chance=4.0, interval=2)
    for losses in ((2.0, 5.0), (2.5, 3.2)):  # means 3.5, which is not below 3, and 2.85
        assert Level.held
        for loss in losses:
            hook.after_train_iter(FakeRunner, 0, outputs={'masking/loss': torch.tensor(loss)})
            FakeRunner.iter += 1
    assert not Level.held


def test_wrong_values(train):
    with pytest.raises(SettingError, match=r'LevelStartHook\.margin must be between 0 and 1, both excluded, got 1'):
        LevelStartHook(margin=1)
    with pytest.raises(SettingError, match=r'LevelStartHook\.interval must be at least 1'):
        LevelStartHook(margin=0.1, interval=0)
    with pytest.raises(SettingError, match=r"LevelStartHook\.level is 'pretrain', but the levels above the lowest are"):
        train(margin=0.1, level='pretrain')
