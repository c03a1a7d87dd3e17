import pytest
import torch
import torch.nn.functional as F

from mmmlo.models import SimpleFPN


def test_levels_have_their_strides_and_come_from_the_last_map():
    torch.manual_seed(0)
    neck = SimpleFPN(16, out_channels=8, num_outs=6)
    ignored, features = torch.randn(2, 16, 6, 8), torch.randn(2, 16, 6, 8, requires_grad=True)
    outs = neck((ignored, features))
    assert [tuple(out.shape) for out in outs] == [
        (2, 8, 24, 32), (2, 8, 12, 16), (2, 8, 6, 8), (2, 8, 3, 4), (2, 8, 2, 2), (2, 8, 1, 1)
    ]  # fmt: skip
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])
    for level, out in enumerate(outs[:4]):
        (gradient,) = torch.autograd.grad(out.square().sum(), features, retain_graph=True)
        assert gradient.any(), level
    # The last layer norm is over channels, at each position.
    assert all((out.mean(1).abs() < 1e-5).all() for out in outs)


def test_the_coarsest_level_in_single_steps():
    torch.manual_seed(0)
    neck = SimpleFPN(16, out_channels=8)
    features = torch.randn(1, 16, 4, 4)
    pool, pointwise, norm, conv, last = neck.levels[3]
    x = F.max_pool2d(features, 2)
    x = F.conv2d(x, pointwise.weight).permute(0, 2, 3, 1)
    x = F.layer_norm(x, (8,), norm.weight, norm.bias, norm.eps).permute(0, 3, 1, 2)
    x = F.conv2d(x, conv.weight, padding=1).permute(0, 2, 3, 1)
    x = F.layer_norm(x, (8,), last.weight, last.bias, last.eps).permute(0, 3, 1, 2)
    assert torch.allclose(neck((features,))[3], x, atol=1e-6)


def test_levels_leave_autocast_in_fp32():
    neck = SimpleFPN(16, out_channels=8)
    with torch.autocast('cpu', torch.bfloat16):
        outs = neck((torch.randn(1, 16, 4, 4),))
    assert {out.dtype for out in outs} == {torch.float32}


def test_too_few_levels():
    with pytest.raises(ValueError, match='model.neck.num_outs must be at least 4, for strides 4 to 32, got 3'):
        SimpleFPN(16, num_outs=3)
