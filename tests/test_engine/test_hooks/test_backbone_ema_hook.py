"""The average of the backbone: its values, its place in checkpoints, resuming, and that training does not notice it."""

import logging
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
NANO = osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
SYNTHETIC = dict(type='mmmlo.SyntheticImages', per_class=4, size=16, pipeline=[dict(type='PackInputs')])


class Snapshots(Hook):
    """The raw weights after each iteration, and the backbone that validation and test run on."""

    def __init__(self):
        self.trained, self.evaluated = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.trained.append(clone(runner.model.state_dict()))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.evaluated.append(clone(runner.model.backbone.state_dict()))

    before_test_iter = before_val_iter


def clone(state):
    return {name: value.clone() for name, value in state.items()}


def with_prefix(state, prefix):
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def without_average(state):
    return {name: value for name, value in state.items() if not name.startswith('ema_backbone.')}


def assert_same(left, right, **tolerance):
    assert list(left) == list(right)
    for name, value in left.items():
        assert value.dtype == right[name].dtype, name
        torch.testing.assert_close(value, right[name], msg=name, **(tolerance or dict(rtol=0, atol=0)))


def average(states, momentum):
    """The first state, then the moving average, by the formula."""
    result = {name: value.double() for name, value in states[0].items()}
    for state in states[1:]:
        result = {name: (1 - momentum) * value + momentum * state[name].double() for name, value in result.items()}
    return {name: value.to(states[0][name].dtype) for name, value in result.items()}


def saved(runner, name):
    return torch.load(osp.join(runner.work_dir, name), weights_only=False)


class Plain(BaseModel):
    """A backbone with trained and fixed parameters and buffers, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.backbone.register_parameter('fixed', nn.Parameter(torch.randn(3), requires_grad=False))
        self.head = nn.Linear(3, 1)

    def init_weights(self):
        """Draw anew, as ``Runner.train`` does after the hook has copied the backbone."""
        for layer in (self.backbone[0], self.head):
            layer.reset_parameters()
        nn.init.normal_(self.backbone.fixed)

    def forward(self, inputs, mode='tensor'):
        outputs = self.head(self.backbone(inputs) + self.backbone.fixed)
        return dict(loss=outputs.square().mean()) if mode == 'loss' else [outputs]


@pytest.fixture
def plain(tmp_path):
    """``plain(name, ema=dict(...) or None, **options)``: a Runner of ``Plain`` and the snapshots that it takes."""

    def build(name, ema=None, seed=0, model=None, **options):
        torch.manual_seed(seed)
        model = model or Plain()
        batches = [dict(inputs=batch) for batch in torch.randn(24, 2, generator=torch.Generator().manual_seed(1))]
        loader = DataLoader(batches, batch_size=4)
        snapshots = Snapshots()
        hooks = [snapshots] if ema is None else [dict(type='mmmlo.BackboneEMAHook', **ema), snapshots]
        options.setdefault('optim_wrapper', dict(optimizer=dict(type='AdamW', lr=0.1)))
        runner = Runner(
            model,
            str(tmp_path / name),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=2),
            randomness=dict(seed=seed),
            val_dataloader=DataLoader(batches[:4], batch_size=4),
            val_cfg=dict(),
            val_evaluator=Evaluator([]),
            test_dataloader=DataLoader(batches[:4], batch_size=4),
            test_cfg=dict(),
            test_evaluator=Evaluator([]),
            custom_hooks=hooks,
            default_scope='mmpretrain',
            experiment_name=f'{tmp_path.name}_{name}',
            log_level='WARNING',
            **options,
        )
        return runner, snapshots

    return build


@pytest.fixture
def levels(tmp_path):
    """``levels(name, **cfg)``: a Runner of a tiny MLO-MAE, three epochs of four iterations, with the hook."""

    def part(name):
        return dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), seed=0, dataset=SYNTHETIC)

    def build(name, ema=None, accumulation=1, **updates):
        cfg = shrink(load_config(NANO))
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'{tmp_path.name}_{name}'
        cfg.log_level = 'WARNING'
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
        cfg.train_dataloader.update(dataset=part('train'), batch_size=5)
        cfg.train_cfg.dataloaders = {
            level: dict(dataset=part(name), batch_size=20) for level, name in dict(finetune='train', masking='val').items()
        }
        cfg.train_cfg.pop('max_iters')
        cfg.train_cfg.max_epochs = 3
        cfg.optim_wrapper.levels.pretrain.accumulative_counts = accumulation
        cfg.default_hooks.checkpoint = dict(type='mmmlo.SafeCheckpointHook', interval=1)
        cfg.custom_hooks = [] if ema is None else [dict(type='mmmlo.BackboneEMAHook', **ema)]
        cfg.update(updates)
        runner = Runner.from_cfg(Config(cfg.to_dict()))
        snapshots = Snapshots()
        runner.register_hook(snapshots)
        return runner, snapshots

    return build


@pytest.mark.parametrize('accumulation', [1, 2])
def test_average_over_the_steps_of_the_lowest_level(levels, accumulation):
    """Its closed form, at each checkpoint; iterations in which gradients are only accumulated do not count."""
    runner, snapshots = levels('run', ema=dict(momentum=0.3), accumulation=accumulation)
    runner.train()
    assert runner.iter == 12
    for epoch in (1, 2, 3):
        file = saved(runner, f'epoch_{epoch}.pth')
        stepped = snapshots.trained[accumulation - 1 : 4 * epoch : accumulation]
        assert int(file['backbone_ema']['steps']) == len(stepped) == 4 * epoch // accumulation
        expected = average([with_prefix(state, 'backbone.') for state in stepped], 0.3)
        averaged, raw = (with_prefix(file['state_dict'], prefix) for prefix in ('ema_backbone.', 'backbone.'))
        assert_same(averaged, expected, rtol=1e-5, atol=1e-6)
        # The raw weights are where they always are, and the fixed embedding is the same in both.
        assert_same(without_average(file['state_dict']), snapshots.trained[4 * epoch - 1])
        assert averaged.keys() == raw.keys()
        assert torch.equal(averaged['pos_embed'], raw['pos_embed'])
        moved = [name for name, value in averaged.items() if not torch.equal(value, raw[name])]
        assert set(averaged) - set(moved) == {'pos_embed', 'grid'}


def test_any_framework_loads_it_by_config(levels):
    """Into mmpretrain's VisionTransformer, every key of it."""
    runner, _ = levels('run', ema=dict(momentum=0.3))
    runner.train()
    path = osp.join(runner.work_dir, 'epoch_3.pth')
    vit = MODELS.build(
        dict(
            type='mmpretrain.VisionTransformer',
            arch=runner.cfg.model.backbone.arch,
            img_size=16,
            patch_size=4,
            init_cfg=dict(type='Pretrained', checkpoint=path, prefix='ema_backbone.'),
        )
    )
    vit.init_weights()
    averaged = with_prefix(saved(runner, 'epoch_3.pth')['state_dict'], 'ema_backbone.')
    assert averaged.pop('grid').tolist() == [4, 4]
    assert_same(vit.state_dict(), averaged)


@pytest.mark.parametrize('accumulation', [1, 2])
def test_resume_equals_the_uninterrupted_run(levels, accumulation):
    options = dict(ema=dict(momentum=0.3), accumulation=accumulation)
    whole, _ = levels('whole', **options)
    whole.train()
    resumed, _ = levels('resumed', **options, resume=True, load_from=osp.join(whole.work_dir, 'epoch_1.pth'))
    resumed.train()
    files = [saved(runner, 'epoch_3.pth') for runner in (whole, resumed)]
    assert_same(files[0]['state_dict'], files[1]['state_dict'])
    assert files[0]['backbone_ema'] == files[1]['backbone_ema'] == dict(steps=torch.tensor(12 // accumulation))


@pytest.mark.parametrize('accumulation', [1, 4])
def test_other_wrappers_and_buffers(plain, accumulation):
    """mmengine's wrapper steps in every so manieth iteration and in the last one; buffers go along."""
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=accumulation)
    runner, snapshots = plain('run', ema=dict(momentum=0.3), optim_wrapper=wrapper)
    runner.train()
    stepped = [state for i, state in enumerate(snapshots.trained, 1) if i % accumulation == 0]
    assert len(stepped) == 12 // accumulation
    file = saved(runner, 'epoch_2.pth')
    averaged, raw = (with_prefix(file['state_dict'], prefix) for prefix in ('ema_backbone.', 'backbone.'))
    assert {k: (v.shape, v.dtype) for k, v in averaged.items()} == {k: (v.shape, v.dtype) for k, v in raw.items()}
    expected = average([with_prefix(state, 'backbone.') for state in stepped], 0.3)
    for name in ('0.weight', '0.bias', '1.weight', '1.bias'):
        torch.testing.assert_close(averaged[name], expected[name])
    for name in ('fixed', '1.running_mean', '1.running_var', '1.num_batches_tracked'):
        assert torch.equal(averaged[name], raw[name])


def test_training_does_not_notice(plain):
    """Weights, optimizer and draws bit for bit, with validations on the average in between."""
    files, states = [], []
    for name, ema in dict(without=None, with_=dict(momentum=0.3)).items():
        runner, snapshots = plain(name, ema=ema)
        runner.train()
        files.append(saved(runner, 'epoch_2.pth'))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    averaged = with_prefix(files[1]['state_dict'], 'ema_backbone.')
    assert_same(files[0]['state_dict'], without_average(files[1]['state_dict']))
    for one, other in zip(files[0]['optimizer']['state'].values(), files[1]['optimizer']['state'].values()):
        assert_same(one, other)
    assert len(snapshots.evaluated) == 2
    assert_same(snapshots.evaluated[-1], averaged)


def test_tests_run_on_the_average(plain):
    """After training, from a file with an average, and from one without."""
    runner, snapshots = plain('run', ema=dict(momentum=0.3))
    runner.train()
    file = saved(runner, 'epoch_2.pth')['state_dict']
    path = osp.join(runner.work_dir, 'epoch_2.pth')
    averaged, raw = (with_prefix(file, prefix) for prefix in ('ema_backbone.', 'backbone.'))
    runner.test()
    assert_same(snapshots.evaluated[-1], averaged)
    assert_same(clone(runner.model.backbone.state_dict()), raw)

    loaded, snapshots = plain('loaded', ema=dict(momentum=0.3), seed=5, load_from=path)
    loaded.test()
    assert_same(snapshots.evaluated[-1], averaged)
    assert_same(clone(loaded.model.backbone.state_dict()), raw)

    without, _ = plain('without')
    without.train()
    path = osp.join(without.work_dir, 'epoch_2.pth')
    loaded, snapshots = plain('loaded_without', ema=dict(momentum=0.3), seed=5, load_from=path)
    loaded.test()
    assert_same(snapshots.evaluated[-1], with_prefix(saved(without, 'epoch_2.pth')['state_dict'], 'backbone.'))


@pytest.mark.parametrize('with_average', [True, False])
@pytest.mark.parametrize('resume', [True, False])
def test_from_which_weights_the_average_begins(plain, caplog, capsys, with_average, resume):
    """A file without an average begins one at its weights, with a warning when resuming; so does ``load_from`` always."""
    first, _ = plain('first', ema=dict(momentum=0.3) if with_average else None)
    first.train()
    path = osp.join(first.work_dir, 'epoch_1.pth')
    with caplog.at_level(logging.WARNING):
        second, snapshots = plain('second', ema=dict(momentum=0.3), seed=5, load_from=path, resume=resume)
        second.logger.addHandler(caplog.handler)
        second.train()
    assert 'unexpected key' not in capsys.readouterr().out + caplog.text
    file = with_prefix(saved(second, 'epoch_2.pth')['state_dict'], 'ema_backbone.')
    messages = [record.getMessage() for record in caplog.records if 'ema_backbone' in record.getMessage()]
    if with_average and resume:
        assert_same(file, with_prefix(saved(first, 'epoch_2.pth')['state_dict'], 'ema_backbone.'))
    else:
        expected = average([with_prefix(state, 'backbone.') for state in snapshots.trained], 0.3)
        for name in ('0.weight', '1.bias'):
            torch.testing.assert_close(file[name], expected[name])
    if resume and not with_average:
        assert len(messages) == 1 and 'BackboneEMAHook' in messages[0] and '\n' not in messages[0]
    else:
        assert messages == []


def test_averaging_can_begin_later(plain):
    runner, snapshots = plain('run', ema=dict(momentum=0.3, begin_epoch=2))
    runner.train()
    file = saved(runner, 'epoch_1.pth')
    assert int(file['backbone_ema']['steps']) == 0
    averaged, raw = (with_prefix(file['state_dict'], prefix) for prefix in ('ema_backbone.', 'backbone.'))
    assert_same(averaged, raw)
    expected = average([with_prefix(state, 'backbone.') for state in snapshots.trained[6:]], 0.3)
    averaged = with_prefix(saved(runner, 'epoch_2.pth')['state_dict'], 'ema_backbone.')
    torch.testing.assert_close(averaged['0.weight'], expected['0.weight'])


def test_a_wrapped_model(plain):
    class Wrapped(MMDistributedDataParallel):
        def __init__(self, module):
            nn.Module.__init__(self)
            self.module = module

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)

        def train_step(self, data, optim_wrapper):
            return self.module.train_step(data, optim_wrapper)

        def val_step(self, data):
            return self.module.val_step(data)

    states = []
    for name, wrap in dict(plain=lambda model: model, wrapped=Wrapped).items():
        runner, _ = plain(name, ema=dict(momentum=0.3))
        runner.model = wrap(runner.model)
        runner.hooks[:] = [hook for hook in runner.hooks if not isinstance(hook, Snapshots)]
        runner.train()
        states.append(saved(runner, 'epoch_2.pth')['state_dict'])
    assert any(name.startswith('ema_backbone.') for name in states[1])
    assert_same(*states)


def test_a_model_without_a_backbone_is_refused(plain):
    class Headless(Plain):
        def __init__(self):
            super().__init__()
            self.encoder = self.backbone
            del self.backbone

    runner, _ = plain('run', ema={}, model=Headless())
    with pytest.raises(ValueError, match=r'BackboneEMAHook averages model\.backbone, but a Headless has no'):
        runner.train()
