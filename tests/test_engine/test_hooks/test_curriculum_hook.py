"""The curriculum: its values, its place in a run, resuming, and what is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmlo.engine import CurriculumHook, curriculum_factor


def released(epoch, epochs):
    """The formula of the released code, main_pretrain.py."""
    return 1 - 2 * epoch / epochs if epoch < epochs / 2 else 1 - 2 * (epoch + 1) / epochs


def run_of(length, **settings):
    return [curriculum_factor(position, length, **settings) for position in range(length)]


class Factors(Hook):
    """The factors with which the model was trained, iteration by iteration."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append((runner.iter, getattr(runner.model, 'module', runner.model).curriculum_factor))


class Player(BaseModel):
    """A weight that the factor pulls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.curriculum_factor = 1.0

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.curriculum_factor * (self.weight - inputs).square().mean())


class Game(Player):
    """Two levels, as CL-MAE's: on the same batch, the upper one with the factor."""

    level_modules = dict(pretrain=('weight',), masking=('score',))
    levels = {level: dict(optimizer=dict(type='SGD', lr=0.01)) for level in level_modules}

    def __init__(self):
        super().__init__()
        self.score = nn.Parameter(torch.ones(()))

    def level_loss(self, level, batch, fixed=None):
        loss = (self.weight * self.score - batch['inputs']).square().mean()
        return dict(loss=self.curriculum_factor * loss if level == 'masking' else loss)


def saved(runner, name):
    return torch.load(f'{runner.work_dir}/{name}.pth', weights_only=False)


@pytest.fixture
def make(tmp_path):
    """``make(name, length, curriculum, loop)``: a Runner of ``Player`` on four batches an epoch, and its factors."""

    def build(
        name='run', length=4, curriculum=None, loop='epochs', model=None, batch_size=2, checkpoint=None, **options
    ):
        batches = [dict(inputs=value) for value in torch.arange(8.0)]
        sampler = InfiniteSampler(batches, shuffle=False) if loop == 'iterations' else None
        factors = Factors()
        by_epoch = loop == 'epochs'
        options.setdefault(
            'train_cfg', dict(by_epoch=True, max_epochs=length) if by_epoch else dict(by_epoch=False, max_iters=4 * length)
        )
        options.setdefault('optim_wrapper', dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)))
        checkpoint = checkpoint or dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 2)
        runner = Runner(
            model or Player(),
            str(tmp_path / name),
            train_dataloader=DataLoader(batches, batch_size=batch_size, sampler=sampler),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=checkpoint,
                param_scheduler=dict(type='mmmlo.LevelParamSchedulerHook'),
            ),
            log_processor=dict(by_epoch=by_epoch),
            custom_hooks=[dict(type='mmmlo.CurriculumHook', **(curriculum or {})), factors],
            default_scope='mmpretrain',
            experiment_name=f'{tmp_path.name}_{name}',
            log_level='WARNING',
            **options,
        )
        return runner, factors.seen

    return build


def test_released_values():
    factors = run_of(200)
    for epoch, value in {0: 1.0, 1: 0.99, 99: 0.01, 100: -0.01, 101: -0.02, 199: -1.0}.items():
        assert factors[epoch] == pytest.approx(value, abs=1e-12)
    assert (factors[0], factors[-1]) == (1.0, -1.0)
    assert 0 not in factors
    for epochs in (1, 2, 3, 7, 50, 200):
        assert run_of(epochs) == pytest.approx([released(epoch, epochs) for epoch in range(epochs)], abs=1e-12)


def test_other_schedules():
    assert run_of(4, schedule='step') == [1, 1, -1, -1]
    assert run_of(5, schedule='step') == [1, 1, 1, -1, -1]
    assert run_of(3, schedule='constant') == [1, 1, 1]
    assert run_of(3, schedule='constant', partner=-1) == [-1, -1, -1]
    assert run_of(4, partner=0.5, adversary=-2) == [0.5, 0.25, -1, -2]


def test_an_unknown_schedule_is_refused_at_once():
    words = r"CurriculumHook.schedule must be one of \['linear', .*, got 'square'"
    with pytest.raises(ValueError, match=words):
        CurriculumHook(schedule='square')
    with pytest.raises(ValueError, match=words):
        curriculum_factor(0, 20, schedule='square')


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_each_iteration_has_its_factor(make, by_epoch, loop):
    """Before the model's step, in the log, and a number of Python's; by epoch also in a loop that counts no epochs."""
    runner, seen = make(curriculum=dict(by_epoch=by_epoch), loop=loop)
    runner.train()
    expected = [released(i // 4, 4) if by_epoch else released(i, 16) for i in range(16)]
    assert [i for i, _ in seen] == list(range(16))
    assert [factor for _, factor in seen] == pytest.approx(expected, abs=1e-12)
    assert {type(factor) for _, factor in seen} == {float}
    history = runner.message_hub.get_scalar('train/curriculum_factor').data[0]
    np.testing.assert_array_equal(history, [factor for _, factor in seen])
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    logged = {line['step']: line['curriculum_factor'] for line in map(json.loads, lines)}
    assert logged == {i + 1: factor for i, factor in seen}


def test_the_factor_reaches_a_wrapped_model(make):
    class Wrapped(MMDistributedDataParallel):
        def __init__(self, module):
            nn.Module.__init__(self)
            self.module = module

        def train_step(self, data, optim_wrapper):
            return self.module.train_step(data, optim_wrapper)

    runner, seen = make(length=2)
    runner.model = Wrapped(runner.model)
    runner.train()
    assert [factor for _, factor in seen] == 4 * [1.0] + 4 * [-1.0]
    assert not hasattr(runner.model, 'curriculum_factor')


def test_a_model_without_a_factor_is_refused(make):
    class MAE(Player):
        def __init__(self):
            super().__init__()
            del self.curriculum_factor

    runner, _ = make(model=MAE())
    with pytest.raises(ValueError, match=r'CurriculumHook sets .* mmmlo\.CLMAE has, but a MAE has no such number'):
        runner.train()


@pytest.mark.parametrize('by_epoch', [True, False])
def test_resume_is_exact(make, by_epoch):
    """From the end of an epoch and from inside of one."""
    options = dict(curriculum=dict(by_epoch=by_epoch, adversary=-0.5), loop='iterations')
    whole, expected = make('whole', **options)
    whole.train()
    for iteration in (4, 10):
        path = f'{whole.work_dir}/iter_{iteration}.pth'
        resumed, seen = make(f'resumed_{iteration}', **options, load_from=path, resume=True)
        resumed.train()
        assert seen == expected[iteration:]
        assert torch.equal(resumed.model.weight, whole.model.weight)
        histories = [r.message_hub.get_scalar('train/curriculum_factor').data[0] for r in (whole, resumed)]
        np.testing.assert_array_equal(*histories)


def test_resume_inside_of_an_epoch_of_a_run_of_several_levels(make):
    """Its loop begins the epoch anew and then counts epochs that the whole run did not have; twice here."""

    def train(name, **options):
        runner, seen = make(
            name,
            model=Game(),
            train_cfg=dict(type='mmmlo.MultiLevelTrainLoop', max_iters=14, dataloaders=dict(masking='pretrain')),
            optim_wrapper=dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=Game.levels),
            param_scheduler=[],
            checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False),
            **options,
        )
        runner.train()
        return runner, seen

    whole, expected = train('whole')
    assert [factor for _, factor in expected] == 4 * [1.0] + 4 * [0.5] + 4 * [-0.5] + 2 * [-1.0]
    once, seen = train('once', resume=True, load_from=f'{whole.work_dir}/iter_3.pth')
    assert seen == expected[3:]
    twice, seen = train('twice', resume=True, load_from=f'{once.work_dir}/iter_9.pth')
    assert seen == expected[9:]
    # Two epochs begun anew, of which the runner's own count knows nothing.
    assert whole.epoch == 4 and saved(once, 'iter_9')['meta']['epoch'] == 1
    assert [saved(runner, 'iter_12')['curriculum']['length'] for runner in (whole, once, twice)] == [4, 4, 4]


@pytest.mark.parametrize(
    ('here', 'words'),
    [
        (dict(length=6), ["'length': 4", "'length': 6"]),
        (dict(batch_size=4), ["'unit': 4", "'unit': 2"]),
        (dict(curriculum=dict(schedule='step')), ["'schedule': 'linear'", "'schedule': 'step'"]),
        (dict(curriculum=dict(by_epoch=False)), ["'by_epoch': True", "'by_epoch': False"]),
    ],
)
def test_another_curriculum_on_resume_is_an_error_unless_asked_for(make, caplog, here, words):
    first, _ = make('first')
    first.train()
    path = f'{first.work_dir}/epoch_1.pth'
    second, seen = make('second', **here, load_from=path, resume=True)
    with pytest.raises(ValueError, match='allow_new_length=True') as error:
        second.train()
    for word in words:
        assert word in str(error.value)
    assert seen == []

    here['curriculum'] = dict(here.get('curriculum', {}), allow_new_length=True)
    allowed, seen = make('allowed', **here, load_from=path, resume=True)
    allowed.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        allowed.train()
    messages = [record.getMessage() for record in caplog.records if 'curriculum' in record.getMessage()]
    assert len(messages) == 1 and all(word in messages[0] for word in words)
    whole, expected = make('whole', **here)
    whole.train()
    # mmengine's loop counts epochs, so with longer ones it goes on beyond the end of the curriculum.
    assert seen == [(i, dict(expected).get(i, -1.0)) for i, _ in seen]
    assert len(seen) == len(expected) - 4 or here.get('batch_size')
    # What is asked for once is the run's curriculum from there on.
    assert saved(allowed, f'epoch_{allowed.epoch}')['curriculum'] == saved(whole, f'epoch_{whole.epoch}')['curriculum']


def test_beginning_with_weights_is_not_resuming(make):
    first, _ = make('first')
    first.train()
    second, seen = make('second', length=2, load_from=f'{first.work_dir}/epoch_1.pth')
    second.train()
    assert [factor for _, factor in seen] == 4 * [1.0] + 4 * [-1.0]
