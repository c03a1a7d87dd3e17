"""Averages over two real gloo processes."""

import os

import pytest
import torch

from mmmlo.engine.optim_wrappers.reduce import reduce_mean


def test_one_process_changes_nothing():
    tensors = [torch.ones(2), torch.zeros(3, 4)]
    assert all(a is b for a, b in zip(reduce_mean(tensors), tensors))
    assert reduce_mean([]) == []


@pytest.mark.dist
def test_two_processes_average(run_in_processes):
    outputs = run_in_processes(__file__)
    assert [output.split()[-1] for output in outputs] == ['averaged', 'averaged']


def main() -> None:
    rank = int(os.environ['RANK'])
    torch.distributed.init_process_group('gloo', os.environ['RENDEZVOUS'], rank=rank, world_size=2)
    given = [torch.full((2, 3), float(rank)), torch.arange(4.0) * (1 + rank)]
    first, second = reduce_mean(given)
    assert torch.equal(first, torch.full((2, 3), 0.5))
    assert torch.equal(second, torch.arange(4.0) * 1.5)
    assert torch.equal(given[0], torch.full((2, 3), float(rank)))
    print('averaged', flush=True)
    torch.distributed.barrier()
    os._exit(0)


if __name__ == '__main__':
    main()
