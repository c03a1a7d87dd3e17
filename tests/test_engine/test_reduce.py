"""Averages over two real gloo processes."""

import pytest
import torch
from torch import nn

from mmmlo.engine.reduce import GradientReducer, reduce_mean


def test_one_process_changes_nothing():
    tensors = [torch.ones(2), torch.zeros(3, 4)]
    assert all(a is b for a, b in zip(reduce_mean(tensors), tensors))
    assert reduce_mean([]) == []
    parameter = nn.Parameter(torch.ones(2))
    reducer = GradientReducer([parameter], 'pretrain')
    with reducer.overlapped():
        (parameter * 3).sum().backward()
    gradient = parameter.grad
    reducer.finish()
    assert parameter.grad is gradient


@pytest.mark.dist
def test_two_processes(run_in_processes):
    """All checks below, one after the other: starting processes is what takes time."""
    names = [name for name in globals() if name.startswith('check_')]
    for output in run_in_processes(__file__):
        assert [line for line in output.splitlines() if line.startswith('check_')] == names


def check_vectors(rank):
    given = [torch.full((2, 3), float(rank)), torch.arange(4.0) * (1 + rank)]
    first, second = reduce_mean(given)
    assert torch.equal(first, torch.full((2, 3), 0.5))
    assert torch.equal(second, torch.arange(4.0) * 1.5)
    assert torch.equal(given[0], torch.full((2, 3), float(rank)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def data():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def check_buckets(rank):
    """Buckets of a few hundred bytes; most of them are sent before the backward pass has ended."""
    net, unused = network(), nn.Parameter(torch.ones(3).double())
    parameters = [*net.parameters(), unused]
    reducer = GradientReducer(parameters, 'pretrain', bucket_cap_mb=300 / 2**20)
    assert len(reducer._buckets) > 2
    unused.requires_grad_(False)
    sent_when = []
    send, running = reducer._send_next, [False]
    reducer._send_next = lambda: (sent_when.append(running[0]), send())
    # The last bucket to go holds the parameter that gets no gradient; put it first in the order of the backward pass.
    for _ in range(2):
        net.zero_grad()
        running[0] = True
        with reducer.overlapped():
            net(data()[rank::2]).square().mean().backward()
        running[0] = False
        reducer.finish()
    twin = network()
    twin(data()).square().mean().backward()
    for parameter, expected in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-12, atol=1e-15)
    assert unused.grad is None
    # The unused parameter is the first to go, so nothing can be sent before the end here ...
    assert not any(sent_when)
    # ... but without it everything is.
    net.zero_grad()
    reducer = GradientReducer(list(net.parameters()), 'pretrain', bucket_cap_mb=300 / 2**20)
    sent = []
    send_next = reducer._send_next
    reducer._send_next = lambda: (sent.append(running[0]), send_next())
    running[0] = True
    with reducer.overlapped():
        net(data()[rank::2]).square().mean().backward()
    running[0] = False
    reducer.finish()
    assert len(sent) > 2 and all(sent)


def check_accumulation(rank):
    net = network()
    reducer = GradientReducer(list(net.parameters()), 'pretrain')
    net(data()[rank : rank + 1]).square().mean().backward()
    with reducer.overlapped():
        net(data()[rank + 2 : rank + 3]).square().mean().backward()
    reducer.finish()
    twin = network()
    (twin(data()[[0, 1, 2, 3]]).square().mean() * 2).backward()
    for parameter, expected in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-12, atol=1e-15)


def check_unequal_processes(rank):
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    reducer = GradientReducer([first, second], 'pretrain')
    (first.sum() + (second.sum() if rank else 0)).backward()
    with pytest.raises(RuntimeError, match=r"level 'pretrain': processes differ.* 1 of the parameters.*\(3,\)"):
        reducer.finish()


def check_unequal_steps(rank):
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    reducer = GradientReducer([first, second], 'pretrain')
    first.sum().backward()
    reducer.finish()
    second.sum().backward()
    with pytest.raises(RuntimeError, match='steps differ'):
        reducer.finish()


if __name__ == '__main__':
    from processes import run_checks

    run_checks(globals())
