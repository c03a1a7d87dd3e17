"""The wrapper around one model, in one process and in two."""

import pytest
import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmmlo.engine import MultiLevelDistributedDataParallel
from mmmlo.engine.wrappers import sharding


class Regression(BaseModel):
    """One level, an ordinary optimizer wrapper."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.register_buffer('scale', torch.ones((), dtype=torch.float64))

    def forward(self, inputs, mode='tensor'):
        output = self.net(inputs) * self.scale
        return dict(loss=output.square().mean()) if mode == 'loss' else output


def data(step):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def train(model, module, part, accumulation=1):
    wrapper = OptimWrapper(
        torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        accumulative_counts=accumulation,
        clip_grad=dict(max_norm=0.1),
    )
    for step in range(6):
        model.train_step(dict(inputs=data(step)[part]), wrapper)
    return [parameter.detach() for parameter in module.parameters()]


def test_it_is_a_model_wrapper_that_hands_everything_on(tiny_model, tiny_wrapper):
    model = tiny_model(dtype=torch.float32)
    wrapped = MultiLevelDistributedDataParallel(model)
    assert is_model_wrapper(wrapped)
    assert wrapped.module is model
    wrapper = tiny_wrapper(wrapped)
    assert wrapper.levels == ['pretrain', 'finetune', 'masking']
    module = Regression()
    wrapped = MultiLevelDistributedDataParallel(module)
    torch.testing.assert_close(wrapped.val_step(dict(inputs=data(0))), module(data(0)))
    torch.testing.assert_close(wrapped.test_step(dict(inputs=data(0))), module(data(0)))
    assert torch.equal(wrapped(data(0)), module(data(0)))


def test_one_process_trains_as_without_it():
    plain, module = Regression(), Regression()
    expected = train(plain, plain, slice(None), accumulation=2)
    actual = train(MultiLevelDistributedDataParallel(module), module, slice(None), accumulation=2)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))


def test_sharded_models_are_refused(tiny_model, tiny_wrapper):
    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    class MMFullyShardedDataParallel(FullyShardedDataParallel):
        pass

    sharding.check_not_sharded(tiny_model())
    with pytest.raises(NotImplementedError, match=r'\(FullyShardedDataParallel, MMFullyShardedDataParallel\).*needs all'):
        tiny_wrapper(MMFullyShardedDataParallel(tiny_model()))


def test_a_sharded_optimizer_is_refused():
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        pass

    parameters = [nn.Parameter(torch.ones(1))]
    sharding.check_optimizer_not_sharded('pretrain', torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(NotImplementedError, match=r'levels\.pretrain\.optimizer is a ZeroRedundancyOptimizer.*would hang'):
        sharding.check_optimizer_not_sharded('pretrain', ZeroRedundancyOptimizer(parameters, lr=0.1))


@pytest.mark.dist
def test_two_processes(run_in_processes):
    """All checks below, one after the other: starting processes is what takes time."""
    names = [name for name in globals() if name.startswith('check_')]
    for output in run_in_processes(__file__):
        assert [line for line in output.splitlines() if line.startswith('check_')] == names


def check_doubled_batch(rank):
    plain, module = Regression(), Regression()
    expected = train(plain, plain, slice(None))
    actual = train(MultiLevelDistributedDataParallel(module), module, slice(rank, None, 2))
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def check_accumulation(rank):
    plain, module = Regression(), Regression()
    expected = train(plain, plain, slice(None), accumulation=3)
    actual = train(MultiLevelDistributedDataParallel(module), module, slice(rank, None, 2), accumulation=3)
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def check_a_train_step_of_the_model_s_own(rank):
    """Backward and step by themselves, not by update_params."""

    class Own(Regression):
        def train_step(self, data, optim_wrapper):
            loss = self(**data, mode='loss')['loss']
            optim_wrapper.backward(loss)
            optim_wrapper.step()
            optim_wrapper.zero_grad()

    plain, module = Own(), Own()
    expected = train(plain, plain, slice(None))
    actual = train(MultiLevelDistributedDataParallel(module), module, slice(rank, None, 2))
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def check_broadcast(rank):
    module = Regression()
    with torch.no_grad():
        for tensor in (*module.parameters(), module.scale):
            tensor.add_(rank)
    wrapped = MultiLevelDistributedDataParallel(module)
    first = Regression()
    for tensor, expected in zip((*module.parameters(), module.scale), (*first.parameters(), first.scale)):
        assert torch.equal(tensor, expected)
    module.scale.add_(rank)
    wrapped.broadcast_state()
    assert module.scale == 1


def check_seeds(rank):
    """Alike while the model is initialized, different from then on."""
    from types import SimpleNamespace

    from mmmlo.engine import RankSeedHook

    torch.manual_seed(7)
    before = torch.rand(3)
    RankSeedHook().before_train(SimpleNamespace(seed=7))
    for values, alike in ((before, True), (torch.rand(3), False)):
        gathered = [torch.zeros(3) for _ in range(2)]
        torch.distributed.all_gather(gathered, values)
        assert torch.equal(*gathered) == alike


if __name__ == '__main__':
    from processes import run_checks

    run_checks(globals())
