"""Runs that go on from a checkpoint end bit for bit as those that were not interrupted, in one process."""

import copy
import os.path as osp
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from mmmlo.launch.config import load_config
from mmmlo.launch.resume_settings import ResumeSettingsHook
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import read_content
from mmmlo.utils.errors import SettingError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@TRANSFORMS.register_module()
class DrawFromAll:
    """An augmentation that draws from Python, NumPy and PyTorch."""

    def __call__(self, results):
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        results['img'] = (results['img'] * (noise / 3)).astype(np.uint8)
        return results


@TRANSFORMS.register_module()
class Note:
    """Writes down which samples are loaded."""

    seen: list = []

    def __call__(self, results):
        self.seen.append((results['sample_idx'], results['img'].sum()))
        return results


def in_memory(name):
    images = dict(type='mmmlo.SyntheticImages', per_class=6, size=16, pipeline=[])
    split = dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), seed=0, dataset=images)
    return dict(_delete_=True, type='mmmlo.InMemoryImages', padding=2, flip_prob=0.5, dataset=split)


def part(name):
    pipeline = [dict(type='DrawFromAll'), dict(type='PackInputs')]
    images = dict(type='mmmlo.SyntheticImages', per_class=6, size=16, pipeline=pipeline)
    return dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), seed=0, dataset=images)


def scenes(indices):
    pipeline = [dict(type='mmseg.RandomFlip', prob=0.5), dict(type='mmseg.PackSegInputs')]
    images = dict(type='mmmlo.SyntheticImages', per_class=6, size=16, maps=True, indices=list(indices), pipeline=pipeline)
    preprocessor = dict(type='mmseg.SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(16, 16))
    collate = dict(type='pseudo_collate')
    return dict(batch_size=4, drop_last=True, collate_fn=collate, data_preprocessor=preprocessor, dataset=images)


def objects(name):
    steps = [dict(type='mmdet.LoadAnnotations'), dict(type='mmdet.RandomFlip', prob=0.5), dict(type='mmdet.PackDetInputs')]
    images = dict(type='mmmlo.SyntheticImages', per_class=6, size=16, boxes=True, pipeline=steps)
    split = dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), dataset=images)
    preprocessor = dict(type='mmdet.DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
    return dict(batch_size=4, collate_fn=dict(type='pseudo_collate'), data_preprocessor=preprocessor, dataset=split)


@pytest.fixture(scope='module')
def configs():
    """Method -> a run of three epochs of four batches that keeps the checkpoint of every iteration."""
    found = {}
    for method in ('mae', 'mlo-mae', 'cl-mae', 'automae'):
        path = f'{method.replace("-", "_")}/{method}_vit-nano-p4_1xb64-coslr-20e_digits.py'
        if method == 'automae':
            path = 'learned_mae/automae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'
        cfg = shrink(load_config(osp.join(ROOT, 'configs', path)))
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
        cfg.log_level = 'ERROR'
        cfg.train_dataloader.pop('num_batch_per_epoch', None)
        cfg.train_dataloader.dataset = part('train')
        cfg.train_dataloader.drop_last = False  # the last batch is not full
        if method == 'mlo-mae':
            cfg.train_cfg.dataloaders = dict(finetune=dict(dataset=part('train')), masking=dict(dataset=part('val')))
        cfg.train_cfg.pop('max_iters', None)
        cfg.train_cfg.update(max_epochs=3, val_interval=1)
        cfg.val_dataloader.dataset = part('val')
        cfg.val_cfg.bank_dataloader.dataset = part('train')
        cfg.default_hooks.checkpoint = dict(type='mmmlo.SafeCheckpointHook', interval=1, by_epoch=False)
        found[method] = cfg
    solved = found['mlo-mae, head solved'] = copy.deepcopy(found['mlo-mae'])
    solved.model.downstream = dict(type='mmmlo.RidgeHead', num_classes=10, in_channels=48, bank=20)
    solved.optim_wrapper.levels.pop('finetune')
    solved.optim_wrapper.levels.masking.paths = ['pretrain']
    labelled = dict(batch_size=15, dataset=part('train'))
    solved.train_cfg.dataloaders = dict(masking=dict(dataset=part('val')), labelled=labelled)
    mixed = found['mlo-mae, two tasks'] = copy.deepcopy(found['mlo-mae'])
    segmentation = dict(type='mmmlo.SegmentationTask', decode_head=dict(
        type='mmseg.FCNHead', in_channels=48, channels=8, in_index=0, num_convs=1, num_classes=10,
        norm_cfg=dict(type='GN', num_groups=2)))
    mixed.model.downstream = dict(type='mmmlo.TaskMix', tasks=dict(kinds=mixed.model.downstream, places=segmentation))
    mixed.train_cfg.dataloaders = {
        level: dict(tasks=dict(kinds=dict(dataset=part(name)), places=scenes(indices)))
        for level, name, indices in (('finetune', 'train', range(30)), ('masking', 'val', range(30, 60)))
    }
    boxes = found['mlo-mae, boxes'] = copy.deepcopy(found['mlo-mae'])
    boxes.model.downstream = dict(type='mmmlo.DetectionTask', head=dict(
        type='mmdet.FCOSHead', in_channels=48, feat_channels=8, stacked_convs=1, num_classes=10, strides=[4],
        regress_ranges=((-1, 1e8),), norm_cfg=dict(type='GN', num_groups=2), loss_cls=dict(type='mmmlo.PlainFocalLoss')))
    boxes.train_cfg.dataloaders = dict(finetune=objects('train'), masking=objects('val'))
    unlabelled = found['mlo-mae, without labels'] = copy.deepcopy(found['mlo-mae'])
    decoder = dict(unlabelled.model.neck, decoder_depth=1)
    unlabelled.model.downstream = dict(type='mmmlo.ReconstructionTask', decoder=decoder, head=unlabelled.model.head)
    return found


@pytest.fixture
def run(configs, tmp_path):
    """``run(method, name, options, resume=None, choice=None)``: train, and return the last checkpoint and the runner."""

    def train(method, name, options=None, resume=None, choice=None):
        cfg = copy.deepcopy(configs[method])
        cfg.work_dir, cfg.experiment_name = str(tmp_path / name), f'{tmp_path.name}_{name}'
        cfg.merge_from_dict(dict(options or {}))
        if resume:
            cfg.resume, cfg.load_from = True, resume
        runner = Runner.from_cfg(Config(cfg.to_dict()))
        runner.register_hook(ResumeSettingsHook(choice))  # as tools/train.py does
        runner.train()
        return read_content((tmp_path / name / 'last_checkpoint').read_text()), runner

    return train


VARIANTS = {
    'mae': ('mae', {}),
    'mae, gradients of three batches': ('mae', {'optim_wrapper.accumulative_counts': 3}),
    'mae, bfloat16': ('mae', {'optim_wrapper.type': 'mmmlo.BFloat16OptimWrapper'}),
    'mlo-mae': ('mlo-mae', {}),
    'mlo-mae, 10 of 12 iterations': ('mlo-mae', {'train_cfg.max_epochs': None, 'train_cfg.max_iters': 10}),
    'mlo-mae, gradients of several batches': (
        'mlo-mae',
        {
            'optim_wrapper.levels.pretrain.accumulative_counts': 3,
            'optim_wrapper.levels.pretrain.steps': 1,
            'optim_wrapper.levels.finetune.accumulative_counts': 2,
        },
    ),
    'mlo-mae, preconditioned': ('mlo-mae', {'optim_wrapper.levels.masking.hypergradient.precondition': 'adam'}),
    'mlo-mae, begins late': (
        'mlo-mae',
        {'custom_hooks': [dict(type='mmmlo.LevelStartHook', margin=0.5, chance=100.0, interval=6)]},
    ),
    'mlo-mae, averaged weights': (
        'mlo-mae',
        {'custom_hooks': [dict(type='mmengine.EMAHook', momentum=0.1)]},
    ),
    'mlo-mae, images in memory': (
        'mlo-mae',
        {
            'train_dataloader.dataset': in_memory('train'),
            'train_dataloader.collate_fn.type': 'mmmlo.batch_collate',
            'train_cfg.dataloaders.finetune.dataset': in_memory('train'),
            'train_cfg.dataloaders.masking.dataset': in_memory('val'),
        },
    ),
    'mlo-mae, no seed': ('mlo-mae', {'randomness.seed': None}),
    'mlo-mae, head solved': ('mlo-mae, head solved', {}),
    'mlo-mae, two tasks': ('mlo-mae, two tasks', {}),
    'mlo-mae, boxes': ('mlo-mae, boxes', {}),
    'mlo-mae, without labels': ('mlo-mae, without labels', {}),
    'cl-mae': ('cl-mae', {}),
    'automae': ('automae', {}),  # with a teacher, and vectors of the spectral norm
}


@pytest.mark.parametrize('variant', VARIANTS)
def test_resumed_from_any_iteration_ends_the_same(variant, run, assert_same_state, tmp_path):
    method, options = VARIANTS[variant]
    whole, runner = run(method, 'whole', options)
    assert runner.iter == (10 if '10 of 12' in variant else 12)
    # In the first epoch, at its end before validation, in the second, and before the last iteration.
    for iteration in (1, 4, 7, runner.iter - 1) if variant in ('mlo-mae', 'mlo-mae, begins late') else (7,):
        resumed, _ = run(method, f'from_{iteration}', options, str(tmp_path / f'whole/iter_{iteration}.pth'))
        assert_same_state(whole, resumed)


@pytest.mark.parametrize('save_best', [None, 'knn/top1'])
def test_resumed_from_any_epoch_ends_the_same(save_best, run, assert_same_state, tmp_path):
    """These checkpoints are saved before the epoch's validation, which draws random numbers and is not repeated, or, where
    it was the best one, once more in it."""
    options = {'default_hooks.checkpoint.by_epoch': True, 'default_hooks.checkpoint.save_best': save_best}
    whole, _ = run('mae', 'whole', options)
    for epoch in (1, 2):
        resumed, _ = run('mae', f'from_{epoch}', options, str(tmp_path / f'whole/epoch_{epoch}.pth'))
        assert_same_state(whole, resumed)


@pytest.mark.parametrize('batch_sampler', [False, True])
def test_no_sample_is_loaded_twice_or_left_out(batch_sampler, run, tmp_path):
    pipeline = [dict(type='DrawFromAll'), dict(type='Note'), dict(type='PackInputs')]
    options = {'train_dataloader.dataset.dataset.pipeline': pipeline}
    if batch_sampler:
        DATA_SAMPLERS.register_module(module=BatchSampler, force=True)
        options['train_dataloader.batch_sampler'] = dict(type='BatchSampler', batch_size=8, drop_last=False)
        options |= {f'train_dataloader.{name}': None for name in ('batch_size', 'drop_last')}
    Note.seen.clear()
    _, runner = run('mae', 'whole', options)
    whole = list(Note.seen)
    assert len(whole) == 3 * 30
    Note.seen.clear()
    run('mae', 'resumed', options, str(tmp_path / 'whole/iter_6.pth'))  # the second batch of the second epoch is done
    assert Note.seen == whole[30 + 16 :]


def test_another_batch_size_begins_the_epoch_anew_and_says_so(run, tmp_path, monkeypatch):
    run('mlo-mae', 'whole')
    said = []
    monkeypatch.setattr('mmmlo.engine.loops.resumable_batches.print_log', lambda text, *_: said.append(text))
    path = str(tmp_path / 'whole/iter_6.pth')
    _, runner = run('mlo-mae', 'resumed', {'train_dataloader.batch_size': 15}, path)
    # Two batches of the first run's second epoch; two epochs of two batches are left.
    assert (runner.iter, runner.epoch) == (6 + 2 * 2, 3)
    # The other levels take over the batch size.
    assert [text.split(': ')[-1] for text in said] == 3 * ['a round had 4 batches, and now has 2']


def test_other_processes_draw_anew_and_say_so(run, tmp_path, monkeypatch):
    run('mae', 'whole')
    path = tmp_path / 'whole/iter_6.pth'
    content = read_content(str(path))
    content['train_loop']['processes'] *= 2
    torch.save(content, path)
    said = []
    monkeypatch.setattr('mmmlo.engine.loops.resumable_train_loop.print_log', lambda text, *_: said.append(text))
    _, runner = run('mae', 'resumed', resume=str(path))
    assert runner.iter == 12
    assert [text.split(':')[0] for text in said] == ['The checkpoint is of 2 processes, and there are 1']


def test_checkpoints_of_mmengine_s_hook_resume_as_before(run, tmp_path, monkeypatch):
    """At the beginning of the epoch, in which they stand, with a warning."""
    options = {'default_hooks.checkpoint.type': 'CheckpointHook'}
    run('mlo-mae', 'whole', options)
    said = []
    monkeypatch.setattr('mmmlo.engine.loops.resumable_train_loop.print_log', lambda text, *_: said.append(text))
    _, runner = run('mlo-mae', 'resumed', options, str(tmp_path / 'whole/iter_6.pth'))
    assert runner.iter == 12
    assert [text.split(',')[0] for text in said] == ['The checkpoint says nothing about loaders and random numbers']


def longer(method, epochs):
    """A schedule that ends with the run: of MAE by iterations and epochs, whose values follow from one another, in turn."""
    warm_up = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3)
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=epochs)
    if method != 'mae':  # each level's ends with its own last step
        cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=3)
    return {'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': 9, 'param_scheduler': [warm_up, cosine]}


@pytest.mark.parametrize(
    ('method', 'iteration', 'said'),
    [
        ('mae', 8, 'param_scheduler.1.end is 2 in the checkpoint and 3 in the config, '),
        ('mlo-mae', 7, ''),
        ('cl-mae', 8, ''),
    ],
)
def test_a_longer_run_needs_a_choice(method, iteration, said, run, differences, tmp_path):
    run(method, 'short', longer(method, 2))
    path = str(tmp_path / f'short/iter_{iteration}.pth')
    with pytest.raises(SettingError) as error:
        run(method, 'refused', longer(method, 3), path)
    assert f'{said}train_cfg.max_epochs is 2 in the checkpoint and 3 in the config' in str(error.value)
    assert '--resume-settings checkpoint' in str(error.value) and '--resume-settings config' in str(error.value)
    at_once, _ = run(method, 'at_once', longer(method, 3))
    resumed, runner = run(method, 'config', longer(method, 3), path, 'config')
    assert runner.iter == 12
    # All values of all schedules, and with them the rates, are those of a run that was as long from its beginning.
    assert differences(resumed['param_schedulers'], at_once['param_schedulers']) == []


def test_a_longer_run_with_the_checkpoint_s_schedules(run, tmp_path):
    short, _ = run('mae', 'short', longer('mae', 2))
    path = str(tmp_path / 'short/iter_8.pth')
    with pytest.raises(SettingError, match='train_cfg.max_epochs is 2 in the checkpoint and 3 in the config'):
        run('mae', 'refused', longer('mae', 2) | {'train_cfg.max_epochs': 3}, path)
    kept, runner = run('mae', 'kept', longer('mae', 3), path, 'checkpoint')
    assert runner.iter == 12
    assert kept['param_schedulers'][1]['end'] == 2
    assert kept['optimizer']['param_groups'][0]['lr'] == short['optimizer']['param_groups'][0]['lr']


def test_other_settings_of_the_optimizer_need_a_choice(run, tmp_path):
    length = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 9}
    run('mlo-mae', 'whole', length)
    path, key = str(tmp_path / 'whole/iter_3.pth'), 'optim_wrapper.levels.finetune.optimizer'
    options = {f'{key}.lr': 0.5, f'{key}.weight_decay': 0.25} | length
    with pytest.raises(SettingError) as error:
        run('mlo-mae', 'refused', options, path)
    assert f'{key}.lr is ' in str(error.value) and 'in the checkpoint and 0.5 in the config' in str(error.value)
    assert f'{key}.weight_decay is ' in str(error.value)
    for choice in ('checkpoint', 'config'):
        resumed, _ = run('mlo-mae', choice, options, path, choice)
        group = resumed['optimizer']['levels']['finetune']['param_groups'][0]
        assert (group['weight_decay'] == 0.25) == (choice == 'config')
        assert (group.get('initial_lr', group['lr']) == 0.5) == (choice == 'config')
    with pytest.raises(SettingError, match=rf'{key}.type is \w+ in the checkpoint and Adagrad in the config'):
        run('mlo-mae', 'other', {key: dict(_delete_=True, type='Adagrad', lr=0.1)} | length, path, 'config')


def test_other_data_are_said(run, tmp_path, monkeypatch):
    run('mae', 'whole')
    said = []
    monkeypatch.setattr('mmmlo.launch.resume_settings.print_log', lambda text, *_: said.append(text))
    path = str(tmp_path / 'whole/iter_8.pth')
    run('mae', 'same', resume=path)
    assert said == []
    _, runner = run('mae', 'resumed', {'train_dataloader.batch_size': 15, 'train_dataloader.dataset.seed': 1}, path)
    assert [text.removeprefix('The checkpoint is of a run with ') for text in said] == [
        'train_dataloader.dataset.seed=0, and this one has 1', 'train_dataloader.batch_size=8, and this one has 15',
    ]  # fmt: skip
