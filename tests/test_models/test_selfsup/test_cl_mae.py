"""CL-MAE's two phases: what they compute, what they move, and what several processes make of them."""

import math
import os
import os.path as osp
import sys

import pytest
import torch

from mmmlo.models.selection import select_patches

LEVELS = ('pretrain', 'masking')
MASKER = dict(type='mmmlo.ViTMasker', grid=(4, 4), embed_dims=48, depth=2)


@pytest.fixture
def model_of(tiny_model):
    """``model_of(**updates)``: a tiny CL-MAE whose masks differ between images."""

    def build(masker=None, **updates):
        masker = masker or MASKER
        model = tiny_model(type='mmmlo.CLMAE', downstream=None, masker=masker, **updates)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return build


def wrapper_of(model, optimizer=None):
    from mmengine.optim import build_optim_wrapper

    optimizer = optimizer or dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    levels = {level: dict(optimizer=dict(optimizer)) for level in LEVELS}
    return build_optim_wrapper(model, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))


def test_levels_and_modules(model_of):
    assert model_of().level_modules == dict(pretrain=('backbone', 'neck', 'head'), masking=('masker',))
    random = model_of(masker=dict(type='mmmlo.RandomMasker'))
    assert random.level_modules == dict(pretrain=('backbone', 'neck', 'head'))
    with pytest.raises(KeyError, match="no level 'masking'"):
        random.level_loss('masking', None)


def test_the_pretrain_phase_is_mae_on_the_masker_s_choice(model_of, tiny_batch):
    """Scores choose patches and weigh nothing."""
    model, batch = model_of(), tiny_batch(0)
    tokens, grid = model.backbone.embed(batch['inputs'])
    selection = select_patches(model.masker(batch['inputs'], tokens, grid), 0.75)
    pred = model.neck(model.backbone.encode(tokens, selection.ids_keep), selection.ids_restore)
    patch_loss = model.head.patch_loss(pred, batch['inputs'])
    expected = (patch_loss * selection.mask).sum() / selection.mask.sum()
    loss = model.level_loss('pretrain', batch)['loss']
    torch.testing.assert_close(loss, expected)
    masker = list(model.masker.parameters())
    assert all(g is None for g in torch.autograd.grad(loss, masker, allow_unused=True))


@pytest.mark.parametrize('factor', [1.0, 0.3, 0.0, -1.0])
def test_the_masking_phase_is_the_equation_written_out(model_of, tiny_batch, factor):
    model, batch = model_of(), tiny_batch(1)
    model.curriculum_factor = factor
    images = batch['inputs']
    tokens, grid = model.backbone.embed(images)
    keep = 1 - model.masker(images, tokens, grid)
    x = torch.cat([model.backbone.cls_token.expand(len(images), -1, -1), tokens * keep.unsqueeze(-1)], dim=1)
    for layer in model.backbone.layers:
        x = layer(x)
    x = model.neck.decoder_embed(model.backbone.ln1(x)) + model.neck.decoder_pos_embed
    for layer in model.neck.decoder_blocks:
        x = layer(x)
    patch_loss = model.head.patch_loss(model.neck.decoder_pred(model.neck.ln1(x))[:, 1:], images)
    reconstruction = ((1 - keep) * patch_loss).sum() / (1 - keep).sum()
    binarization = (0.12 * math.sqrt(2 * math.pi) * (-((keep - 0.5) ** 2) / (2 * 0.12**2)).exp()).mean()
    mean = keep.mean(dim=1)
    ratio = 25.6 * (mean * (mean / 0.25).log() + (1 - mean) * ((1 - mean) / 0.75).log()).mean()
    pairs = [(a, b) for a in range(len(keep)) for b in range(a)]
    diversity = 2 * sum((-0.1 * (keep[a] - keep[b]).norm()).exp() for a, b in pairs) / len(pairs)
    losses = model.level_loss('masking', batch)
    expected = dict(
        reconstruction=reconstruction,
        loss_reconstruction=factor * reconstruction,
        loss_binarization=binarization,
        loss_ratio=ratio,
        loss_diversity=diversity,
    )
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    total = sum(value for name, value in losses.items() if 'loss' in name)
    wanted = factor * reconstruction + binarization + ratio + diversity
    parameters = list(model.masker.parameters())
    for actual, reference in zip(torch.autograd.grad(total, parameters), torch.autograd.grad(wanted, parameters)):
        torch.testing.assert_close(actual, reference)


@pytest.mark.parametrize(
    'optimizer', [dict(type='AdamW', lr=1e-3, weight_decay=0.1), dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)]
)
def test_each_phase_leaves_the_other_s_parameters_alone(model_of, tiny_batch, optimizer):
    """Bit for bit, over 20 steps with momentum and weight decay on."""
    model = model_of()
    wrapper = wrapper_of(model, optimizer)
    modules, moved = model.level_modules, []

    def watch(level):
        def watched(gradients=None, apply_gradient=level.apply_gradient):
            before = {name: value.clone() for name, value in model.state_dict().items()}
            apply_gradient(gradients)
            names = {n.split('.')[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
            moved.append((level.name, names))

        level.apply_gradient = watched

    for name in LEVELS:
        watch(wrapper.level(name))
    for step in range(20):
        model.curriculum_factor = 1 - step / 10
        assert wrapper.due() == dict(pretrain=1, masking=1)
        batch = tiny_batch(step)
        wrapper.update_levels(model, dict(pretrain=[batch], masking=[batch]))
    assert [level for level, _ in moved] == list(LEVELS) * 20
    for level, names in moved:
        assert names and names <= set(modules[level])
    assert wrapper.step_counts == dict(pretrain=20, masking=20)


def test_losses_are_switched_off_one_by_one(model_of, tiny_batch):
    for name in ('binarization', 'ratio', 'diversity'):
        losses = model_of(**{name: dict(loss_weight=0)}).level_loss('masking', tiny_batch(0))
        assert losses[f'loss_{name}'] == 0
        assert all(losses[f'loss_{other}'] != 0 for other in ('binarization', 'ratio', 'diversity') if other != name)


def test_golden_values(model_of, tiny_batch):
    """Of a seeded tiny model, so that a change of any of the terms shows."""
    losses = model_of().level_loss('masking', tiny_batch(7))
    pretrain = model_of().level_loss('pretrain', tiny_batch(7))['loss']
    rounded = {name: round(value.item(), 8) for name, value in dict(losses, pretrain=pretrain).items()}
    assert rounded == GOLDEN


GOLDEN = dict(
    reconstruction=1.38185851,
    loss_reconstruction=1.38185851,
    loss_binarization=0.16165255,
    loss_ratio=3.93703156,
    loss_diversity=1.93216237,
    pretrain=1.35910699,
)


def test_any_masker_serves(model_of, tiny_batch):
    for masker in (
        dict(type='mmmlo.MLPMasker', grid=(4, 4), embed_dims=48, hidden_dims=16),
        dict(type='mmmlo.ConvMasker', patch_size=4, dims=8),
        dict(type='mmmlo.ViTMasker', embed_dims=48, depth=1, head='token'),
    ):
        model = model_of(masker=masker)
        losses = model.level_loss('masking', tiny_batch(0))
        total = sum(value for name, value in losses.items() if 'loss' in name)
        gradients = torch.autograd.grad(total, list(model.masker.parameters()))
        assert any(g.abs().max() > 0 for g in gradients)


def test_bad_input(model_of, tiny_batch):
    with pytest.raises(ValueError, match=r'model\.ratio\.mask_ratio is 0\.5, but model\.mask_ratio is 0\.75'):
        model_of(ratio=dict(mask_ratio=0.5))
    with pytest.raises(ValueError, match=r'model\.masker\.embed_dims is 96.*48'):
        model_of(masker=dict(MASKER, embed_dims=96))
    with pytest.raises(ValueError, match=r'model\.diversity.*batch has 1'):
        model_of().level_loss('masking', tiny_batch(0, size=1))
    assert model_of(diversity=dict(loss_weight=0)).level_loss('masking', tiny_batch(0, size=1))['loss_diversity'] == 0
    model = model_of()
    with pytest.raises(ValueError, match=r"levels \['pretrain', 'masking'\]"):
        from mmengine.optim import OptimWrapper

        model.train_step(tiny_batch(0), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))


@pytest.mark.dist
def test_two_processes_equal_one_with_the_doubled_batch(run_in_processes, tmp_path):
    for count in (1, 2):
        run_in_processes(__file__, str(tmp_path), count=count)
    one, two = (torch.load(tmp_path / f'{count}.pth') for count in (1, 2))
    assert max((two['parameters'][name] - value).abs().max() for name, value in one['parameters'].items()) < 1e-9
    for name in ('masker', 'backbone', 'neck'):
        assert any((v - one['start'][n]).abs().max() > 1e-3 for n, v in one['parameters'].items() if n.startswith(name))
    assert abs(one['reconstruction'] - two['reconstruction']) < 1e-12


def main(folder: str) -> None:
    """Ten steps in float64 with AdamW; each process has its half of each batch."""
    from conftest import TINY_MODEL, merge

    from mmmlo.engine import MultiLevelDistributedDataParallel
    from mmmlo.registry import MODELS

    rank, count = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    if count > 1:
        torch.distributed.init_process_group('gloo', os.environ['RENDEZVOUS'], rank=rank, world_size=count)
    torch.manual_seed(0)
    changes = dict(type='mmmlo.CLMAE', downstream=None, masker=MASKER)
    # No diversity: each process has pairs of its own.
    model = MODELS.build(dict(merge(TINY_MODEL, changes), diversity=dict(loss_weight=0)))
    model.init_weights()
    model.double()
    with torch.no_grad():
        for parameter in model.masker.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    wrapped = MultiLevelDistributedDataParallel(model)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    wrapper = wrapper_of(wrapped)
    for step in range(10):
        model.curriculum_factor = 1 - 0.2 * step
        images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(step), dtype=torch.float64)[rank::count]
        batch = dict(inputs=images, data_samples=None)
        logged = wrapper.update_levels(model, dict(pretrain=[batch], masking=[batch]))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    if rank == 0:
        state = dict(parameters=parameters, start=start, reconstruction=logged['masking/reconstruction'].item())
        torch.save(state, osp.join(folder, f'{count}.pth'))
    if count > 1:
        torch.distributed.barrier()
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
