"""The memory meter on tensors whose sizes are known."""

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from mmmlo.utils.tensor_memory import TensorMemory

KIB = 1024


def test_counts_what_is_alive():
    with TensorMemory() as memory:
        first = torch.zeros(256)  # 1 KiB
        second = torch.zeros(256, dtype=torch.float64)  # 2 KiB
        assert memory.bytes == 3 * KIB
        del first
        assert memory.bytes == 2 * KIB
        third = torch.zeros(128)
        assert memory.bytes == 2.5 * KIB
        del second, third
    assert memory.bytes == 0
    assert memory.peak == 3 * KIB


def test_an_operation_s_inputs_and_output_are_alive_together():
    with TensorMemory() as memory:
        x = torch.ones(256)
        for _ in range(5):
            x = x + 1
    assert memory.bytes == KIB
    assert memory.peak == 2 * KIB


def test_views_and_writing_in_place_take_nothing():
    with TensorMemory() as memory:
        x = torch.zeros(16, 16)
        row = x[3]
        x.t().add_(1)
        assert memory.bytes == memory.peak == KIB
        del x
        assert memory.bytes == KIB  # the row keeps all of it
        del row
    assert memory.bytes == 0


def test_what_was_there_before_does_not_count():
    before = torch.zeros(16, 16, requires_grad=True)
    with TensorMemory() as memory:
        view = before.detach().view(-1)
        view.mul_(2)
        assert memory.bytes == 0
        del view, before
    assert memory.bytes == memory.peak == 0


def test_a_graph_keeps_what_its_backward_pass_needs():
    w = torch.ones(256, requires_grad=True)
    with TensorMemory() as memory:
        y = w.exp().exp()  # both results are saved
        assert memory.bytes == 2 * KIB
        (gradient,) = torch.autograd.grad(y, w, torch.ones_like(y))
        del y
        assert memory.bytes == KIB
        del gradient
    assert memory.bytes == 0


def test_counts_tangents_and_the_same_in_every_run():
    w, v, u = (torch.linspace(0, 1, 256, dtype=torch.float64).view(16, 16) for _ in range(3))
    u.requires_grad_()

    def run():
        with TensorMemory() as memory, forward_ad.dual_level():
            output = F.softmax(forward_ad.make_dual(w, v) @ u, dim=1).square().sum()
            gradient = torch.autograd.grad(forward_ad.unpack_dual(output).tangent, u)[0]
        del output
        return memory.peak, memory.bytes, gradient

    peak, left, gradient = run()
    assert left == gradient.nbytes == 2 * KIB
    assert peak > 4 * gradient.nbytes
    assert run()[:2] == (peak, left)
