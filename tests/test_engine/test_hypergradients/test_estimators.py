"""The estimators on plain tensors, and on every operation of a transformer, against double backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmmlo.engine import DoubleBackward, FiniteDifference, ForwardMode


def double_backward(loss, lower, upper, vector):
    lower = [w.detach().clone().requires_grad_() for w in lower]
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(lower), lower, create_graph=True, allow_unused=True)
        product = sum((g * v).sum() for g, v in zip(gradients, vector) if g is not None)
        return [-g for g in torch.autograd.grad(product, upper)]


def relative_error(actual, expected):
    actual, expected = torch.cat([x.flatten() for x in actual]), torch.cat([x.flatten() for x in expected])
    return ((actual - expected).norm() / expected.norm()).item()


ESTIMATORS = [ForwardMode(), FiniteDifference(), DoubleBackward()]


@pytest.mark.parametrize('estimator', ESTIMATORS, ids=lambda e: type(e).__name__)
def test_bilinear_loss_has_a_closed_form(estimator):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    u = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, generator=generator, dtype=torch.float64)
    v = torch.randn(4, generator=generator, dtype=torch.float64)
    (product,) = estimator.product(lambda lower: u @ matrix @ lower[0] + lower[0].square().sum(), [w], [u], [v])
    torch.testing.assert_close(product, -matrix @ v)


@pytest.mark.parametrize('estimator', ESTIMATORS, ids=lambda e: type(e).__name__)
def test_what_the_loss_does_not_depend_on_gets_none_or_zeros(estimator):
    u, w = torch.ones(2, requires_grad=True), torch.ones(3)
    results = [
        estimator.product(lambda lower: lower[0].sum(), [w], [u], [torch.ones(3)]),
        estimator.product(lambda lower: (u * 2).sum(), [w], [u], [torch.ones(3)]),
        estimator.product(lambda lower: (u * lower[0][:2]).sum(), [w], [u], [torch.zeros(3)]),
    ]
    assert results[0] == results[1] == [None] or isinstance(estimator, FiniteDifference)
    for (product,) in results:
        assert product is None or torch.equal(product, torch.zeros(2))


def test_finite_difference_needs_a_positive_step():
    with pytest.raises(ValueError, match='hypergradient.alpha must be positive'):
        FiniteDifference(alpha=0)


def test_forward_mode_through_a_whole_autoencoder(tiny_model, tiny_batch):
    """Tangents and graphs in patch embedding, attention, layer norms and feed-forward of encoder and decoder at once."""
    model, batch = tiny_model(), tiny_batch(0, size=3)
    masking = model.fix_level('pretrain', batch)
    masking = masking._replace(weight=masking.weight.detach())
    names = [name for name, _ in model.neck.named_parameters()]
    lower = [p.detach() for p in model.neck.parameters()]
    upper = [p for p in model.backbone.parameters() if p.requires_grad]

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return self.model.loss(**batch, masking=masking)['loss']

    module = Loss()

    def loss(values):
        return functional_call(module, {f'model.neck.{n}': v for n, v in zip(names, values)}, ())

    vector = [torch.randn_like(p) for p in lower]
    vector[names.index('decoder_pos_embed')].zero_()
    expected = double_backward(loss, lower, upper, vector)
    assert relative_error(ForwardMode().product(loss, lower, upper, vector), expected) < 1e-10
    assert relative_error(FiniteDifference(1e-4).product(loss, lower, upper, vector), expected) < 1e-4


OPERATIONS = dict(
    layer_norm=nn.LayerNorm(6),
    layer_norm_of_two_dims=nn.LayerNorm((4, 6)),
    group_norm=nn.GroupNorm(2, 4),
    batch_norm_of_running_statistics=nn.BatchNorm1d(4).eval(),
)


@pytest.mark.parametrize('module', OPERATIONS.values(), ids=OPERATIONS)
def test_norms_whose_input_needs_a_gradient(module):
    """PyTorch's own rule for layer norm takes mean and deviation for constants here."""
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    names, lower = zip(*((n, p.detach()) for n, p in module.named_parameters()))
    vector = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in lower]

    def loss(values):
        return (functional_call(module, dict(zip(names, values)), (x,)).square() * target).sum()

    expected = double_backward(loss, lower, [x], vector)
    assert relative_error(ForwardMode().product(loss, lower, [x], vector), expected) < 1e-12


@pytest.mark.parametrize('function', [F.cross_entropy, lambda x, y: -F.log_softmax(x, 1)[range(5), y].sum()])
def test_softmax_whose_input_needs_a_gradient(function):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    v = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])

    def loss(values):
        return function(x @ values[0], labels)

    expected = double_backward(loss, [w], [x], [v])
    assert relative_error(ForwardMode().product(loss, [w], [x], [v]), expected) < 1e-12


@pytest.mark.parametrize('module', [nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True)])
def test_forward_mode_refuses_norms_that_pytorch_differentiates_wrongly(module):
    x = torch.randn(5, 4, 6, requires_grad=True)
    names, lower = zip(*((n, p.detach()) for n, p in module.named_parameters()))

    def loss(values):
        return functional_call(module, dict(zip(names, values)), (x,)).square().sum()

    with pytest.raises(NotImplementedError, match=rf'{type(module).__name__}.*FiniteDifference'):
        ForwardMode().product(loss, lower, [x], [torch.ones_like(p) for p in lower])


@pytest.mark.parametrize(
    ('estimator', 'tolerance'), [(ForwardMode(), 1e-12), (DoubleBackward(), 1e-12), (FiniteDifference(), 1e-5)]
)
def test_products_with_the_hessian(estimator, tolerance):
    """Against the dense Hessian of a small network with attention, layer norm, GELU and cross entropy."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation='gelu', batch_first=True).double()
    x, labels = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([0, 1, 3])
    names, lower = zip(*((n, p.detach()) for n, p in layer.named_parameters()))

    def loss(values):
        return F.cross_entropy(functional_call(layer, dict(zip(names, values)), (x,)).mean(1), labels)

    flat = torch.cat([p.flatten() for p in lower])
    sizes, shapes = [p.numel() for p in lower], [p.shape for p in lower]

    def split(values):
        return [part.view(shape) for part, shape in zip(values.split(sizes), shapes)]

    vector = torch.randn_like(flat)
    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(lambda values: loss(split(values)), flat)
    shifts = [torch.zeros_like(p).requires_grad_() for p in lower]
    actual = estimator.product(lambda values: loss([v + s for v, s in zip(values, shifts)]), lower, shifts, split(vector))
    assert relative_error(actual, [-hessian @ vector]) < tolerance
