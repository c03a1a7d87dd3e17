"""The Gauss-Newton matrix of the reconstruction against the explicit one, J^T H J with H the loss's by the predictions."""

import pytest
import torch
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmmlo.engine import ConjugateGradient, Neumann, ResidualLoss


@pytest.fixture
def problem(tiny_model, tiny_batch):
    """A model of 8 dims x 1 block, its batches, and the vector and the explicit matrix of its encoder's parameters."""
    arch = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8)
    neck = dict(grid=(2, 2), embed_dim=8, decoder_embed_dim=8, decoder_num_heads=2)
    model = tiny_model(
        backbone=dict(arch=arch, img_size=8), neck=neck, masker=dict(grid=(2, 2), embed_dims=8),
        downstream=dict(in_channels=8, dropout=0.0), mask_ratio=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batches = {level: tiny_batch(seed, size=2, shape=(8, 8)) for seed, level in enumerate(('pretrain', 'masking'))}
    named = {f'backbone.{n}': p for n, p in model.backbone.named_parameters() if p.requires_grad}
    masking = model.fix_level('pretrain', batches['pretrain'])
    keep, masked = masking.selection.ids_keep, masking.selection.ids_masked

    class Predict(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck = model.backbone, model.neck

        def forward(self, images):
            return self.neck.decode_masked(self.backbone.encode(self.backbone.embed(images)[0], keep), keep, masked)

    with sdpa_kernel(SDPBackend.MATH):
        jacobian = jacrev(lambda ps: functional_call(Predict(), ps, (batches['pretrain']['inputs'],)))(named)
        outer = model.level_loss('masking', batches['masking'])['loss']
        vector = torch.cat([g.flatten() for g in torch.autograd.grad(outer, list(named.values()))])
    jacobian = torch.cat([jacobian[name].detach().flatten(3) for name in named], dim=3)  # B x M x P x N
    count, pixels = masked.numel(), jacobian.shape[2]
    curvature = 2 * masking.weight.detach().gather(1, masked) / (count * pixels)  # B x M, the diagonal of H
    matrix = torch.einsum('bmpi,bm,bmpj->ij', jacobian, curvature, jacobian)

    def carried(solution):
        """- d2 L_pretrain / dT dE . solution, by double backward."""
        with sdpa_kernel(SDPBackend.MATH):
            loss = model.loss(**batches['pretrain'], masking=masking)['loss']
            inner = torch.autograd.grad(loss, list(named.values()), create_graph=True)
            product = torch.cat([g.flatten() for g in inner]) @ solution
            return torch.cat([-g.flatten() for g in torch.autograd.grad(product, list(model.masker.parameters()))])

    return model, batches, matrix, vector, carried


@pytest.mark.parametrize('kind', ['ConjugateGradient', 'Neumann'])
def test_is_the_explicit_matrix(problem, tiny_wrapper, kind):
    model, batches, matrix, vector, carried = problem
    if kind == 'Neumann':
        options, solution = dict(terms=4, lr=0.3), torch.zeros_like(vector)
        for _ in range(4):
            solution = solution + 0.3 * (vector - matrix @ solution)
    else:
        options = dict(steps=500, damping=0.05, tolerance=1e-13)
        solution = torch.linalg.solve(matrix + 0.05 * torch.eye(len(vector), dtype=torch.float64), vector)
    estimator = dict(type=f'mmmlo.{kind}', matrix='gauss_newton', **options)
    wrapper = tiny_wrapper(model, masking=dict(paths=['pretrain'], hypergradient=estimator))
    found = wrapper.hypergradient(model, 'masking', batches['masking'], batches).gradients
    expected = carried(solution)
    assert (solution - carried_identity(options, vector)).norm() > 0.01 * solution.norm()  # the matrix does something
    assert (torch.cat([g.flatten() for g in found]) - expected).norm() < 1e-8 * expected.norm()


def carried_identity(options, vector):
    """What the identity in place of the matrix comes to."""
    return vector / options['damping'] if 'damping' in options else 4 * options['lr'] * vector


def test_residuals_are_those_of_the_loss(tiny_model, tiny_batch):
    model, batch = tiny_model(normalize_weights=True), tiny_batch(0)
    masking = model.fix_level('pretrain', batch)
    residuals = model.level_residuals('pretrain', batch, masking)
    loss = model.level_loss('pretrain', batch, masking)['loss']
    torch.testing.assert_close(residuals.square().sum(), loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize('estimator', [ConjugateGradient, Neumann])
def test_is_the_hessian_of_linear_residuals(estimator):
    generator = torch.Generator().manual_seed(0)
    x, w, v = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 4), (4,), (4,)))
    u = torch.randn(9, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = ResidualLoss(lambda lower: (x @ lower[0] - u).square().sum(), lambda lower: x @ lower[0] - u)
    expected, actual = (estimator(matrix=name).product(loss, [w], [u], [v]) for name in ('hessian', 'gauss_newton'))
    torch.testing.assert_close(actual, expected)


def test_never_meets_negative_curvature(caplog):
    """Where the Hessian has it: residuals w^2 + 1, of which w = 0 is no minimum of the curvature's sign."""
    u, w, v = (torch.tensor([value], dtype=torch.float64) for value in (1.0, 0.1, 1.0))
    u.requires_grad_()
    loss = ResidualLoss(lambda lower: (lower[0] ** 2 - u).square().sum(), lambda lower: lower[0] ** 2 - u)
    (product,) = ConjugateGradient(matrix='gauss_newton').product(loss, [w], [u], [v])
    # J = 2 w, so 2 J^T J = 8 w^2; - d2L/du dw = 4 w.
    torch.testing.assert_close(product, 4 * w / (8 * w**2))
    (truncated,) = ConjugateGradient().product(loss, [w], [u], [v])
    torch.testing.assert_close(truncated, 4 * w)


def test_what_is_no_sum_of_squares_is_refused(tiny_model, tiny_batch):
    with pytest.raises(ValueError, match=r"hypergradient\.matrix must be one of .*, got 'fisher'"):
        Neumann(matrix='fisher')
    u, w = torch.ones(1, requires_grad=True), torch.ones(1)
    with pytest.raises(ValueError, match='tells no residuals: give the problem level_residuals'):
        Neumann(matrix='gauss_newton').product(lambda lower: (u * lower[0]).sum(), [w], [u], [w])
    batch = tiny_batch(0)
    with pytest.raises(ValueError, match="that of 'finetune' has other terms.*an estimator for each level"):
        tiny_model().level_residuals('finetune', batch)
    with pytest.raises(ValueError, match="that of 'pretrain' has other terms"):
        tiny_model(bilevel=1.0).level_residuals('pretrain', batch)
    loss = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L1')
    with pytest.raises(ValueError, match=r"set model\.head\.loss\.criterion='L2'"):
        tiny_model(head=dict(loss=loss)).level_residuals('pretrain', batch)
