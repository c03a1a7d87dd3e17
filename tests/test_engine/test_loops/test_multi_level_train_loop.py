"""The multi-level loop through real Runners on synthetic images."""

import copy
import os.path as osp
from functools import reduce
from operator import getitem

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from mmpretrain.models import SelfSupDataPreprocessor
from torch.utils.data import BatchSampler

from mmmlo.datasets import SplitOverlapError
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
NANO = osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
SYNTHETIC = dict(type='mmmlo.SyntheticImages', per_class=6, size=16, pipeline=[dict(type='PackInputs')])


def part(name):
    return dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), seed=0, dataset=SYNTHETIC)


@pytest.fixture(scope='module')
def base_cfg():
    cfg = shrink(load_config(NANO))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.custom_hooks = []
    cfg.log_level = 'WARNING'
    cfg.train_dataloader.dataset = part('train')
    cfg.train_cfg.dataloaders = dict(finetune=dict(dataset=part('train')), masking=dict(dataset=part('val')))
    cfg.train_cfg.pop('max_iters')
    cfg.train_cfg.max_epochs = 3  # of three batches: cycles of two iterations run on across their ends
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    return cfg


@pytest.fixture
def make(base_cfg, tmp_path):
    """``make(name, **updates)``: a Runner of the tiny config; ``a__b=1`` replaces ``cfg.a.b``."""

    def build(name='run', **updates):
        cfg = copy.deepcopy(base_cfg)
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'{tmp_path.name}_{name}'
        for key, value in updates.items():
            *parents, last = key.split('__')
            reduce(getitem, parents, cfg)[last] = value
        return Runner.from_cfg(Config(cfg.to_dict()))

    return build


class Recorder(Hook):
    """Notes which images each level gets."""

    def __init__(self, runner):
        self.seen = []
        runner.register_hook(self)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append({level: [batch['inputs'].clone() for batch in given] for level, given in data_batch.items()})


def test_levels_run_when_due_across_epochs(make):
    runner = make()
    recorder = Recorder(runner)
    runner.train()
    assert [len(levels) for levels in recorder.seen] == [1, 3, 1, 3, 1, 3, 1, 3, 1]
    assert (runner.iter, runner.epoch) == (9, 3)
    assert runner.optim_wrapper.step_counts == dict(pretrain=9, finetune=4, masking=4)
    # Three batches of masking data, then the fourth begins a new round in another order.
    masking = [levels['masking'][0] for levels in recorder.seen if 'masking' in levels]
    assert len({tuple(batch.sum(dim=(1, 2, 3)).tolist()) for batch in masking}) == 4


def test_each_level_draws_in_an_order_of_its_own(make):
    runner = make()
    recorder = Recorder(runner)
    runner.train()
    second = recorder.seen[1]
    assert not torch.equal(recorder.seen[0]['pretrain'][0], second['finetune'][0])


def test_a_level_can_share_a_batch(make):
    runner = make(train_cfg__dataloaders__finetune='pretrain')
    recorder = Recorder(runner)
    runner.train()
    assert all(torch.equal(s['pretrain'][0], s['finetune'][0]) for s in recorder.seen if 'finetune' in s)


def test_schedules_count_each_level_s_own_steps(make):
    """A warm-up and a cosine given once end with the last step of every level."""
    schedule = [
        dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=2),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=2),
    ]
    runner = make(train_cfg__max_epochs=None, train_cfg__max_iters=12, param_scheduler=schedule)
    rates = {level: [] for level in ('pretrain', 'finetune', 'masking')}

    class Rates(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            for level in data_batch:
                rates[level].append(runner.optim_wrapper[level].optimizer.param_groups[0]['lr'])

    runner.register_hook(Rates())
    runner.train()
    for level, steps in dict(pretrain=12, finetune=6, masking=6).items():
        lr = runner.cfg.optim_wrapper.levels[level].optimizer.lr
        half = torch.pi / (steps - 2)
        expected = [0.5 * lr, lr] + [lr * (1 + torch.cos(torch.tensor(half * i)).item()) / 2 for i in range(steps - 2)]
        # mmengine's LinearLR reaches its end factor in its last step.
        assert rates[level] == pytest.approx(expected, rel=1e-5)


def test_resume_continues_the_cycle_and_the_schedules(make):
    """Stopped after one epoch, in the middle of a cycle; on resume nothing is counted twice or left out."""
    whole = make('whole')
    whole.train()
    path = osp.join(whole.work_dir, 'epoch_1.pth')
    saved = torch.load(path, weights_only=False)
    assert saved['optimizer']['step_counts'] == dict(pretrain=3, finetune=1, masking=1)

    resumed = make('resumed', resume=True, load_from=path)
    recorder = Recorder(resumed)
    resumed.train()
    assert [len(levels) for levels in recorder.seen] == [3, 1, 3, 1, 3, 1]
    assert resumed.iter == 9
    assert resumed.optim_wrapper.step_counts == whole.optim_wrapper.step_counts
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    for level, schedulers in resumed.param_schedulers.items():
        assert {s._global_step for s in schedulers} == {resumed.optim_wrapper.step_counts[level]}


def test_continued_pretraining_starts_from_every_tensor_of_the_file(make, base_cfg):
    """By ``load_from`` and by ``init_cfg``, after ``Runner.train`` has initialized and before the first step."""
    first = make('first', train_cfg__max_epochs=1)
    first.train()
    path = osp.join(first.work_dir, 'epoch_1.pth')
    saved = torch.load(path, weights_only=False)['state_dict']

    pretrained = dict(type='Pretrained', checkpoint=path)
    starts = dict(
        load_from=(dict(load_from=path), saved),
        init_cfg=(dict(model__init_cfg=pretrained), saved),
        init_cfg_of_parts=(
            dict(
                model__backbone__init_cfg=[dict(type='Xavier', layer='Linear'), dict(pretrained, prefix='backbone.')],
                model__neck__init_cfg=dict(pretrained, prefix='neck.'),
            ),
            {name: value for name, value in saved.items() if name.startswith(('backbone.', 'neck.'))},
        ),
    )
    for name, (updates, expected) in starts.items():
        runner = make(name, randomness__seed=5, train_cfg__max_epochs=1, **updates)
        start = {}

        class Start(Hook):
            def before_train_iter(self, runner, batch_idx, data_batch=None, start=start):
                if not start:
                    start.update({k: v.clone() for k, v in runner.model.state_dict().items()})

        runner.register_hook(Start())
        runner.train()
        different = [key for key, value in expected.items() if not torch.equal(start[key], value)]
        assert different == [], name


def test_a_checkpoint_from_inside_an_epoch_does_not_lengthen_the_run(make):
    options = dict(train_cfg__max_epochs=None, train_cfg__max_iters=8)
    checkpoint = dict(type='CheckpointHook', interval=5, by_epoch=False)
    first = make('first', **options, default_hooks__checkpoint=checkpoint)
    first.train()
    resumed = make('resumed', **options, resume=True, load_from=osp.join(first.work_dir, 'iter_5.pth'))
    recorder = Recorder(resumed)
    resumed.train()
    assert resumed.iter == 8
    assert [len(levels) for levels in recorder.seen] == [3, 1, 3]
    assert resumed.optim_wrapper.step_counts == first.optim_wrapper.step_counts


@pytest.mark.parametrize(('batch_size', 'length'), [(16, 1), (4, 7)])
def test_another_batch_size_on_resume_trains_the_epochs_that_are_left(make, batch_size, length):
    """As another number of processes does, it changes how many iterations an epoch has."""
    first = make('first')
    first.train()
    path = osp.join(first.work_dir, 'epoch_1.pth')
    resumed = make('resumed', resume=True, load_from=path, train_dataloader__batch_size=batch_size)
    recorder = Recorder(resumed)
    resumed.train()
    assert len(resumed.train_dataloader) == length
    assert resumed.epoch == 3
    assert len(recorder.seen) == 2 * length


def test_batch_samplers_have_batch_sizes_of_their_own(make):
    DATA_SAMPLERS.register_module(module=BatchSampler, force=True)
    runner = make(train_dataloader__batch_sampler=dict(type='BatchSampler', batch_size=5, drop_last=True))
    for name in ('batch_size', 'drop_last'):
        runner._train_dataloader.pop(name)
    for loader in runner._train_loop['dataloaders'].values():
        loader['batch_size'] = 8
    runner.train()
    assert runner.iter == 3 * 6


def levels_cfg(**updates):
    return {f'optim_wrapper__levels__{key}': value for key, value in updates.items()}


@pytest.mark.parametrize(
    ('updates', 'error', 'words'),
    [
        (dict(train_cfg__max_iters=4), ValueError, ['max_epochs or max_iters']),
        (levels_cfg(pretrain__accumulative_counts=4), ValueError, ['levels.pretrain.accumulative_counts=4', '9 iterations']),
        (
            levels_cfg(pretrain__steps=10),
            ValueError,
            ["level 'finetune' would never move", '9 iterations', 'a cycle takes 10', 'runs in cycle 1'],
        ),
        (levels_cfg(masking__start=4), ValueError, ["level 'masking' would never move", '9 iterations', 'runs in cycle 5']),
        (
            levels_cfg(finetune__start=2),
            ValueError,
            ['levels.masking runs in cycles in which', "'finetune'", 'start=0, every=1 against start=2, every=1'],
        ),
        (
            dict(
                train_cfg__dataloaders__finetune='pretrain',
                train_cfg__dataloaders__masking='finetune',
                **levels_cfg(finetune__every=2, masking__paths=['pretrain']),
            ),
            ValueError,
            ['dataloaders.masking', "'finetune'"],
        ),
        (dict(train_cfg__dataloaders__decode='pretrain'), ValueError, ["'decode'", 'finetune']),
        (dict(train_cfg__dataloaders__masking='decode'), ValueError, ['dataloaders.masking', "'decode'"]),
        (
            dict(train_cfg__dataloaders__finetune='pretrain', **levels_cfg(finetune__steps=2)),
            ValueError,
            ['dataloaders.finetune', 'needs 2'],
        ),
        (dict(train_cfg__dataloaders__masking__dataset__part='train'), SplitOverlapError, ['finetune', 'masking', 'share']),
        (
            dict(train_cfg__dataloaders__masking__dataset=dict(SYNTHETIC, split='test')),
            SplitOverlapError,
            ['train_cfg.dataloaders.masking.dataset', 'test split'],
        ),
        (
            dict(train_dataloader__batch_size=64, train_dataloader__drop_last=True),
            ValueError,
            ['train_dataloader', '30 images', 'batch_size 64'],
        ),
        (
            dict(
                train_cfg__dataloaders__masking=dict(dataset=dict(type='CustomDataset', data_root='no/such/folder'))
            ),
            FileNotFoundError,
            ['train_cfg.dataloaders.masking.dataset.data_root', 'no/such/folder'],
        ),
        (
            dict(default_hooks__param_scheduler=dict(type='ParamSchedulerHook')),
            ValueError,
            ['default_hooks.param_scheduler', 'mmmlo.LevelParamSchedulerHook'],
        ),
        (dict(param_scheduler=dict(decode=dict(type='ConstantLR'))), ValueError, ["'decode'", 'pretrain']),
    ],
)
def test_wrong_configs_are_refused_before_training(make, updates, error, words):
    runner = make(**updates)
    with pytest.raises(error) as raised:
        runner.train()
    for word in words:
        assert word in str(raised.value)


def test_missing_loader_is_named(make):
    runner = make()
    runner._train_loop['dataloaders'].pop('masking')
    with pytest.raises(ValueError, match=r"train_cfg.dataloaders has \['finetune'\], .* are \['finetune', 'masking'\]"):
        runner.train()


def test_a_wrapper_that_trains_one_loss_is_refused(make):
    """Several processes: mmengine's wrapper would train the pretrain loss with all parameters."""
    from mmengine.model import MMDistributedDataParallel

    class Wrapped(MMDistributedDataParallel):
        def __init__(self, module):
            torch.nn.Module.__init__(self)
            self.module, self.detect_anomalous_params = module, False

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)

    single = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), train_cfg=dict(by_epoch=True, max_epochs=1))
    for name, updates, error in (('levels', {}, RuntimeError), ('one_optimizer', single, SettingError)):
        runner = make(name, **updates)
        runner.model = Wrapped(runner.model)
        with pytest.raises(error, match=r"type='mmmlo.MultiLevelDistributedDataParallel'"):
            runner.train()


def test_batches_are_prepared_once_each_by_their_level_s_preprocessor(make):
    """A batch that is shared is prepared once; a level may have a preprocessor of its own."""
    calls = []

    @MODELS.register_module(force=True)
    class Counting(SelfSupDataPreprocessor):
        def forward(self, data, training=False):
            calls.append(self.mean.flatten()[0].item())
            return super().forward(data, training)

    def counting(mean):
        return dict(type='mmmlo.Counting', mean=[mean] * 3, std=[1.0] * 3)

    own = dict(dataset=part('train'), data_preprocessor=counting(2.0))
    for name, finetune, expected in (('own', own, [1.0, 1.0, 2.0, 1.0]), ('shared', 'pretrain', [1.0, 1.0, 1.0])):
        calls.clear()
        make(
            name,
            model__data_preprocessor=counting(1.0),
            train_cfg__dataloaders=dict(finetune=finetune, masking=dict(dataset=part('val'))),
            train_cfg__max_epochs=None,
            train_cfg__max_iters=2,
        ).train()
        assert calls == expected


def messages(runner, monkeypatch):
    """What the loop says, without mmengine's logger, whose instances outlive a test."""
    from mmmlo.engine.loops import multi_level_train_loop

    said = []
    monkeypatch.setattr(multi_level_train_loop, 'print_log', lambda text, *args: said.append(text))
    runner.train()
    return said


def test_the_schedule_is_printed_once(make, monkeypatch):
    said = messages(make(**levels_cfg(masking__start=1, masking__every=2)), monkeypatch)
    (table,) = [text for text in said if text.startswith('Levels')]
    rows = [line.replace('|', ' ').split() for line in table.splitlines()[3:]]
    assert [row[0] for row in rows] == ['pretrain', 'finetune', 'masking']
    # images, steps, start, every; a batch of 8 without accumulation on one process; steps in the run
    assert [row[-10:] for row in rows] == [
        ['30', '2', '0', '1', '8', 'x', '1', 'x', '1', '9'],
        ['30', '1', '0', '1', '8', 'x', '1', 'x', '1', '4'],
        ['30', '1', '1', '2', '8', 'x', '1', 'x', '1', '1'],
    ]
    assert 'finetune > pretrain by ForwardMode' in table


def test_another_batch_size_is_warned_of(make, monkeypatch):
    said = messages(make('first', auto_scale_lr=dict(base_batch_size=64)), monkeypatch)
    assert any('for a batch of 64, and this run has 8 (8 images on each of 1 processes)' in text for text in said)
    said = messages(make('scaled', auto_scale_lr=dict(base_batch_size=64, enable=True)), monkeypatch)
    assert not any('batch of' in text for text in said)
    said = messages(make('same', auto_scale_lr=dict(base_batch_size=8)), monkeypatch)
    assert not any('batch of' in text for text in said)


def test_labelled_images_go_along_with_the_lowest_level_s(make, base_cfg):
    """Each step has a batch of their own, in the very order that a resumed run goes on with."""
    supervised = dict(type='mmmlo.SupervisedLoss', head=dict(base_cfg.model.downstream), loss_weight=0.1)
    loaders = dict(labelled=dict(batch_size=5, dataset=part('train')))
    levels = dict(pretrain=base_cfg.optim_wrapper.levels.pretrain)
    model = dict(base_cfg.model, type='mmmlo.MAE', masker=None, extra_losses=dict(supervised=supervised))
    del model['downstream']
    updates = dict(
        model=model, optim_wrapper__levels=levels, train_cfg__dataloaders=loaders,
        default_hooks__checkpoint=dict(type='mmmlo.SafeCheckpointHook', interval=1))
    whole = make('whole', **updates)
    recorder = Recorder(whole)
    whole.train()
    seen = [given['labelled'][0] for given in recorder.seen]
    assert len(seen) == 9 and {len(images) for images in seen} == {5}
    assert all(set(given) == {'pretrain', 'labelled'} for given in recorder.seen)
    assert whole.message_hub.get_scalar('train/pretrain/loss_supervised').current() > 0
    resumed = make('resumed', resume=True, load_from=osp.join(whole.work_dir, 'epoch_1.pth'), **updates)
    recorder = Recorder(resumed)
    resumed.train()
    assert all(torch.equal(given['labelled'][0], images) for given, images in zip(recorder.seen, seen[3:]))


def test_labelled_images_need_a_data_set(make):
    loaders = dict(finetune='pretrain', masking=dict(dataset=part('val')), labelled='finetune')
    with pytest.raises(SettingError, match="dataloaders.labelled is 'finetune', but it must have a dataset of its own"):
        make(train_cfg__dataloaders=loaders).train()
