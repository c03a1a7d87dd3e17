"""The deferred hook against mmengine's, through real Runners on the same outputs."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmlo.engine import DeferredRuntimeInfoHook


class Reads(list):
    """The iterations in which something was read, once for each transfer."""

    iteration = 0


class Watched(torch.Tensor):
    """A tensor that tells of every transfer to the host."""

    reads = Reads()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ('item', 'tolist', 'numpy', 'cpu', '__float__', '__int__', '__bool__'):
            cls.reads.append(cls.reads.iteration)
        return super().__torch_function__(func, types, args, kwargs or {})


class Timing:
    """A measurement that is read once."""

    def __init__(self, value):
        self.value = value

    def read(self):
        Watched.reads.append(Watched.reads.iteration)
        value, self.value = self.value, None
        return value


class Reader(Hook):
    """How many losses the message hub has when a stage is reached."""

    def __init__(self, stage):
        self.seen = []
        setattr(self, stage, self.look)

    def look(self, runner, **kwargs):
        self.seen.append(len(runner.message_hub.get_scalar('train/loss').data[0]))


class Model(BaseModel):
    """Returns every kind of number that can be logged; with ``timings``, one of them as a measurement."""

    def __init__(self, timings=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))
        self.register_buffer('counter', torch.zeros((), dtype=torch.long))
        self.register_buffer('table', torch.arange(1000, dtype=torch.float64))
        self.timings = timings

    def forward(self, inputs, mode='tensor'):
        return [inputs]

    def train_step(self, data, optim_wrapper):
        loss = (self.weight * data['inputs'].mean()).square()
        optim_wrapper.update_params(loss.sum())
        self.counter += 1
        n = int(self.counter)
        outputs = dict(
            loss=loss,
            double=self.table[n] / 7,
            half=(loss / 3).to(torch.bfloat16).mean(),
            counter=self.counter,
            even=self.counter % 2 == 0,
            number=0.1 * n,
            array=np.array([0.3 * n]),
            numpy=np.float32(0.2 * n),
            mixed=loss.sum() if n % 3 else 1.5 * n if n % 2 else self.table[n],
        )
        if n % 3 == 2:
            outputs['seldom'] = loss[0] + 1
        outputs['timing'] = Timing(0.7 * n) if self.timings else 0.7 * n
        return outputs


@pytest.fixture
def make(tmp_path):
    def build(name, model=None, hook='mmmlo.DeferredRuntimeInfoHook', **updates):
        batches = [dict(inputs=value) for value in torch.arange(1, 9) / 8]
        options = dict(
            train_dataloader=DataLoader(batches, batch_size=1),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            val_dataloader=DataLoader(batches[:2], batch_size=1),
            val_cfg=dict(),
            val_evaluator=Evaluator([]),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(runtime_info=dict(type=hook), logger=dict(type='LoggerHook', interval=3)),
            log_processor=dict(window_size=3),
        )
        options.update(updates)
        return Runner(
            model or Model(),
            str(tmp_path / name),
            experiment_name=f'{tmp_path.name}_{name}',
            default_scope='mmpretrain',
            log_level='ERROR',
            **options,
        )

    return build


def same_histories(left, right):
    """Keys, values, counts and types, all but times."""
    timeless = [sorted((k, h.data) for k, h in scalars.items() if not k.endswith('time')) for scalars in (left, right)]
    assert [key for key, _ in timeless[0]] == [key for key, _ in timeless[1]]
    for (key, ours), (_, theirs) in zip(*timeless):
        for array, expected in zip(ours, theirs):
            assert array.dtype == expected.dtype, key
            np.testing.assert_array_equal(array, expected, err_msg=key)


def logged(runner):
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith('time')} for line in lines]


@pytest.mark.parametrize('by_epoch', [True, False])
def test_everything_ends_up_as_with_mmengines_hook(make, by_epoch):
    """Histories, checkpoints from inside of an epoch and the written logs, whose lines come every third iteration."""
    updates = dict(
        train_cfg=dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=8, val_interval=5),
        log_processor=dict(window_size=3, by_epoch=by_epoch),
    )
    runners, reader = [], Reader('before_val_epoch')
    for name, hook in dict(ours='mmmlo.DeferredRuntimeInfoHook', theirs='RuntimeInfoHook').items():
        hooks = dict(
            runtime_info=dict(type=hook),
            logger=dict(type='LoggerHook', interval=3, ignore_last=False, log_metric_by_epoch=by_epoch),
            checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False),
        )
        runners.append(make(name, Model(timings=name == 'ours'), default_hooks=hooks, custom_hooks=[reader], **updates))
        runners[-1].train()
    ours, theirs = runners
    same_histories(ours.message_hub.log_scalars, theirs.message_hub.log_scalars)
    assert len(ours.message_hub.get_scalar('train/timing').data[0]) == ours.iter
    assert dict(ours.message_hub._resumed_keys) == dict(theirs.message_hub._resumed_keys)
    assert logged(ours) == logged(theirs)
    assert len(logged(ours)) >= 4
    assert reader.seen == 2 * ([8, 16] if by_epoch else [5, 8])
    for iteration in range(4, ours.iter + 1, 4):
        files = [torch.load(f'{r.work_dir}/iter_{iteration}.pth', weights_only=False)['message_hub'] for r in runners]
        same_histories(*(file['log_scalars'] for file in files))
        assert dict(files[0]['resumed_keys']) == dict(files[1]['resumed_keys'])
        assert files[0].keys() == files[1].keys()


def test_histories_go_on_when_resumed(make):
    runners = []
    for name, hook in dict(ours='mmmlo.DeferredRuntimeInfoHook', theirs='RuntimeInfoHook').items():
        hooks = dict(runtime_info=dict(type=hook), checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False))
        first = make(name, default_hooks=hooks)
        first.train()
        path = f'{first.work_dir}/iter_10.pth'
        runners.append(make(f'{name}_resumed', default_hooks=hooks, resume=True, load_from=path))
        runners[-1].train()
    same_histories(*(runner.message_hub.log_scalars for runner in runners))


def test_nothing_is_read_between_logged_iterations(make):
    class Logging(Model):
        def train_step(self, data, optim_wrapper):
            Watched.reads.iteration = runner.iter
            optim_wrapper.update_params((self.weight * data['inputs'].mean()).sum())
            loss = self.weight.as_subclass(Watched)
            return dict(loss=loss, acc=loss[0] / 2, double=loss.double(), time=Timing(0.5), number=0.5)

    Watched.reads.clear()
    runner = make('run', Logging())
    runner.train()
    # Two epochs of eight, interval 3: whenever a line is logged or an epoch ends, one transfer of all floats, one of all
    # doubles, and the timings of the iterations since.
    transfers = {2: 3, 5: 3, 7: 2, 10: 3, 13: 3, 15: 2}
    assert list(Watched.reads) == [i for i, timings in transfers.items() for _ in range(2 + timings)]


def test_no_graph_is_kept_alive():
    runner = SimpleNamespace(
        hooks=[LoggerHook(interval=3)], train_dataloader=range(9), message_hub=MessageHub.get_instance('deferred_graph')
    )
    hook = DeferredRuntimeInfoHook()
    hook.after_train_iter(runner, 0, None, dict(loss=torch.ones((), requires_grad=True) * 2))
    assert [value.requires_grad for _, value in hook._pending] == [False]


def test_without_a_logger_each_iteration_is_read(make):
    reader = Reader('after_train_iter')
    hooks = dict(runtime_info=dict(type='mmmlo.DeferredRuntimeInfoHook'), logger=None)
    make('run', default_hooks=hooks, custom_hooks=[reader]).train()
    assert reader.seen == list(range(1, 17))


def test_runs_where_mmengines_hook_does(make):
    """First of all hooks, so before those that log and save."""
    hooks = make('run').hooks
    assert isinstance(hooks[0], DeferredRuntimeInfoHook)
    assert not [hook for hook in hooks if type(hook) is RuntimeInfoHook]


@pytest.mark.parametrize(
    ('value', 'words'), [(torch.zeros(2, 3), ['masks', 'Tensor']), ('high', ['masks', 'str'])]
)
def test_what_is_no_number_is_named_at_once(value, words):
    runner = SimpleNamespace(hooks=[], message_hub=MessageHub.get_instance('deferred_no_number'))
    with pytest.raises(ValueError, match='.*'.join(words)):
        DeferredRuntimeInfoHook().after_train_iter(runner, 0, None, dict(loss=torch.ones(()), masks=value))
