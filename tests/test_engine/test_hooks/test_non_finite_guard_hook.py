"""Guards in real runs, whose images are not finite where a transform says so, and the replay of what they write."""

import importlib.util
import os
import os.path as osp

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.optimizer.optimizer_wrapper import OptimWrapper
from mmengine.runner import Runner

from mmmlo.engine import NonFiniteError, NonFiniteGuardHook
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import OPTIM_WRAPPERS, TRANSFORMS
from mmmlo.utils.errors import MmmloError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))


@TRANSFORMS.register_module(force=True)
class Poison(BaseTransform):
    """Images of floats, every one of them, or the first so many, with a pixel that is none."""

    def __init__(self, below: int) -> None:
        self.below = below

    def transform(self, results: dict) -> dict:
        results['img'] = results['img'].astype(np.float32)
        if results['sample_idx'] < self.below:
            results['img'][0, 0] = np.nan
        return results


@OPTIM_WRAPPERS.register_module(force=True)
class CPUScaledOptimWrapper(AmpOptimWrapper):
    """mmengine's loss scaling where it refuses to be: on a CPU."""

    def __init__(self, **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype, self._scale_update_param = torch.bfloat16, None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)


@pytest.fixture(scope='module')
def tool():
    path = osp.join(ROOT, 'tools', 'analysis_tools', 'replay_batch.py')
    spec = importlib.util.spec_from_file_location('replay_batch', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watch(Hook):
    """Keeps the weights after each iteration."""

    def __init__(self) -> None:
        self.states: list[dict] = []

    def before_train(self, runner) -> None:
        self._keep(runner)

    def after_train_iter(self, runner, *_, **__) -> None:
        self._keep(runner)

    def _keep(self, runner) -> None:
        self.states.append({name: value.clone() for name, value in runner.model.state_dict().items()})


def poison(loader: dict, below: int) -> None:
    loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    dataset = loader['dataset']
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    dataset['pipeline'] = [*dataset['pipeline'][:-1], dict(type='mmmlo.Poison', below=below), dataset['pipeline'][-1]]


def make(method: str, work_dir, **below: int) -> Config:
    """A tiny config; level -> samples that are poisoned, of the others none."""
    cfg = shrink(load_config(osp.join(ROOT, f'configs/{method}_digits.py')), cycles=2)
    cfg.work_dir, cfg.experiment_name = str(work_dir), f'{work_dir.parent.name}_{work_dir.name}'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = []
    cfg.default_hooks.pop('non_finite_guard')
    for level, loader in (('pretrain', cfg.train_dataloader), *(cfg.train_cfg.get('dataloaders') or {}).items()):
        poison(loader, below.get(level, 0))
    return cfg


def guarded(cfg: Config, **guard) -> Runner:
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.register_hook(NonFiniteGuardHook(**guard))
    runner.states = watch.states
    return runner


MAE = 'mae/mae_vit-nano-p4_1xb64-coslr-20e'
MLO = 'mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e'


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def finite(state: dict) -> bool:
    return all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmmlo.BFloat16OptimWrapper', 'mmmlo.CPUScaledOptimWrapper'])
def test_one_bad_image_costs_one_step(tmp_path, kind, capsys):
    cfg = make(MAE, tmp_path, pretrain=1)
    cfg.optim_wrapper.type = kind
    runner = guarded(cfg)
    runner.train()
    states = runner.states
    assert len(states) == 5 and finite(states[-1])
    moved = [not same(before, after) for before, after in zip(states, states[1:])]
    assert moved == [False, True, True, True]
    text = capsys.readouterr()
    line = 'iteration 1: a loss or gradient is not finite, and the step is left out: 1 in a row, 1 in the run. Images: '
    assert f'{line}sample 0, ' in text.out + text.err
    assert runner.message_hub.get_scalar('train/skips').current() == 1


def test_without_the_hook_one_image_ends_it_all(tmp_path):
    runner = Runner.from_cfg(make(MAE, tmp_path, pretrain=1))
    runner.train()
    assert not finite(runner.model.state_dict())


def test_too_many_in_a_row_end_the_run_with_a_dump(tmp_path, tool, capsys):
    runner = guarded(make(MAE, tmp_path, pretrain=10_000), max_in_a_row=2)
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    path = str(tmp_path / 'non_finite_iter_2.pth')
    assert str(error.value) == (
        'iteration 2: a loss or gradient is not finite, 2 times in a row. The weights are still those of before. '
        f'There is no checkpoint yet. To run this step again: python tools/analysis_tools/replay_batch.py {path}'
    )
    assert same(runner.states[0], runner.states[-1])
    capsys.readouterr()
    assert tool.main([path, '--device', 'cpu']) == 1
    out = capsys.readouterr().out
    assert 'images that are not finite, by their place in the batch: 0, 1' in out
    assert 'loss: nan' in out
    first = 'backbone.patch_embed.adaptive_padding (AdaptivePadding); neither are its inputs'
    assert f'first module with an output that is not finite: {first}\n' in out


@pytest.mark.parametrize('level', ['pretrain', 'finetune', 'masking'])
def test_each_level_is_named_and_replayed(tmp_path, tool, level, capsys):
    cfg = make(MLO, tmp_path, **{level: 10_000})
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    runner = guarded(cfg, max_in_a_row=2)
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    last = 2 if level == 'pretrain' else 4  # two iterations a cycle
    assert f"iteration {last}: a loss or gradient of level '{level}' is not finite, 2 times in a row" in str(error.value)
    assert f'The last checkpoint is {tmp_path}/iter_{last - 1}.pth' in str(error.value)
    assert finite(runner.model.state_dict())
    capsys.readouterr()
    path = str(tmp_path / f'non_finite_{level}_iter_{last}.pth')
    assert tool.main([path, '--device', 'cpu']) == 1
    out = capsys.readouterr().out
    assert f'{path}: iteration {last}, level {level}\n' in out
    assert 'loss: nan' in out
    assert ('masking/hypergradient_norm: nan' in out) == (level == 'masking')


@pytest.mark.parametrize(('config', 'level'), [(MAE, ''), (MLO, 'pretrain_')])
def test_a_resumed_run_goes_on_counting(tmp_path, config, level):
    """Three in a row end it: two before the checkpoint, and one after."""
    saved = dict(type='mmmlo.SafeCheckpointHook', by_epoch=False, interval=2)
    first = make(config, tmp_path / 'first', pretrain=10_000)
    first.default_hooks.checkpoint = saved
    with pytest.raises(NonFiniteError, match='iteration 3: .* 3 times in a row'):
        guarded(first, max_in_a_row=3).train()
    second = make(config, tmp_path / 'second', pretrain=10_000)
    second.update(load_from=str(tmp_path / 'first/iter_2.pth'), resume=True)
    second.default_hooks.checkpoint = saved
    with pytest.raises(NonFiniteError, match='iteration 3: .* 3 times in a row'):
        guarded(second, max_in_a_row=3).train()
    assert (tmp_path / f'second/non_finite_{level}iter_3.pth').is_file()


def test_a_dump_that_cannot_be_written_hides_nothing(tmp_path):
    class Fill(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            (tmp_path / f'non_finite_iter_1.pth.{os.getpid()}.tmp').symlink_to('/dev/full')

    runner = guarded(make(MAE, tmp_path, pretrain=10_000), max_in_a_row=1)
    runner.register_hook(Fill())
    with pytest.raises(NonFiniteError, match='1 times in a row.*non_finite_iter_1.pth could not be written: '):
        runner.train()


def test_a_step_that_is_finite_is_replayed_with_the_same_loss(tmp_path, tool, capsys):
    """What failed for another reason than the batch: the loss is that of the run, masks and all, and the tool says so."""
    runner = guarded(make(MAE, tmp_path), max_in_a_row=1)
    losses = []

    class Break(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 1:
                loss = runner.model.head.masked_loss

                def broken(*args, **kwargs):
                    losses.append(loss(*args, **kwargs))
                    return losses[-1] * torch.inf

                runner.model.head.masked_loss = broken

    runner.register_hook(Break())
    with pytest.raises(NonFiniteError):
        runner.train()
    capsys.readouterr()
    assert tool.main([str(tmp_path / 'non_finite_iter_2.pth'), '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert out.endswith('Everything is finite here: the failure does not repeat.\n')
    assert f'loss: {losses[0].item():g}\n' in out


def test_wrong_dumps_and_options(tmp_path, tool):
    torch.save(dict(state_dict={}), tmp_path / 'other.pth')
    for path, words in ((tmp_path / 'other.pth', 'is no dump of a step'), (tmp_path / 'absent.pth', 'does not exist')):
        with pytest.raises(MmmloError, match=words):  # which the tool prints as one line
            tool.main([str(path)])
    with pytest.raises(ValueError, match='NonFiniteGuardHook.max_in_a_row must be at least 1, got 0'):
        NonFiniteGuardHook(max_in_a_row=0)
