"""The windowed ViT against mmpretrain's, against windows computed one by one, and from checkpoints."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import nn

from mmmlo.launch.config import set_backbone
from mmmlo.models import WindowedViT
from mmmlo.models.backbones.windowed_vit import partition, unpartition
from mmmlo.utils.key_report import initialized_from

ARCH = dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96)


def build(cls=WindowedViT, seed: int = 0, **kwargs) -> nn.Module:
    """A model in double precision, with weights of all kinds away from zero; not in training."""
    torch.manual_seed(seed)
    model = cls(arch=ARCH, **dict(dict(img_size=(80, 112), patch_size=16), **kwargs)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.eval()
    return model


def images(size=(80, 112), count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize('size', [(64, 64), (64, 112)], ids=['square', 'oblong'])
@pytest.mark.parametrize('final_norm', [True, False])
def test_a_window_over_the_grid_is_mmpretrain_s_vit(size, final_norm):
    plain = build(VisionTransformer, img_size=size, with_cls_token=False, out_type='featmap', final_norm=final_norm)
    for options in (dict(window_size=7, global_blocks=1), dict(window_size=100, global_blocks=0), dict(window_size=1)):
        windowed = build(seed=1, img_size=size, final_norm=final_norm, **options)
        windowed.load_state_dict(plain.state_dict())  # which tells no grid
        (expected,), (actual,) = plain(images(size)), windowed(images(size))
        assert actual.shape == (2, 48, size[0] // 16, size[1] // 16)
        assert (actual - expected).abs().max() < 1e-5
        # Other sizes than the model's own, also where a border does not fill a patch: both resize the positions.
        for other in ((96, 80), (70, 89)):
            (expected,), (actual,) = plain(images(other)), windowed(images(other))
            assert actual.shape == (2, 48, -(-other[0] // 16), -(-other[1] // 16))
            assert (actual - expected).abs().max() < 1e-5


def test_windows_are_put_together_again():
    x = torch.arange(2 * 5 * 7 * 3.0).reshape(2, 5, 7, 3)
    for window in ((2, 3), (5, 7), (5, 2), (1, 1)):
        windows = partition(x, window)
        assert windows.shape[1:] == (*window, 3)
        assert torch.equal(unpartition(windows, window, (5, 7)), x)
    # Row by row, and what is beyond the border is 0.
    windows = partition(x, (3, 4))
    assert torch.equal(windows[1, :, :3], x[0, :3, 4:]) and not windows[1, :, 3].any()
    assert torch.equal(windows[4], x[1, :3, :4])


def test_masked_padding_is_no_padding():
    model = build(window_size=3, global_blocks=1)
    layer = model.layers[0]
    x = torch.randn(2, 5, 7, 48, dtype=torch.float64)
    expected = x.clone()
    for row in range(0, x.shape[1], 3):
        for column in range(0, x.shape[2], 3):
            part = layer.ln1(x)[:, row : row + 3, column : column + 3]
            expected[:, row : row + 3, column : column + 3] += layer.attn(part.flatten(1, 2)).reshape(part.shape)
    expected = layer.ffn(layer.ln2(expected), identity=expected)
    assert (model._block(0, x) - expected).abs().max() < 1e-12


def test_checkpointing_changes_no_gradient():
    plain, saved = build(window_size=3, global_blocks=1), build(window_size=3, global_blocks=1, with_cp=True)
    for model in (plain, saved):
        model(images())[0].square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), saved.parameters()):
        assert torch.equal(one.grad, other.grad), name


def test_paths_are_dropped_for_images():
    model = build(window_size=3, global_blocks=0, drop_path_rate=0.5)
    layer = model.layers[3]
    layer.attn.out_drop.train()
    x = torch.randn(200, 5, 7, 48, dtype=torch.float64)
    with torch.no_grad():
        nn.init.zeros_(layer.ffn.layers[1].weight)
        nn.init.zeros_(layer.ffn.layers[1].bias)
        moved = (model._block(3, x) != x).flatten(1)
    # Either all windows of an image or none.
    assert set(moved.any(1).tolist()) == {True, False}
    assert torch.equal(moved.any(1), moved.all(1))


@pytest.mark.parametrize('grid', [(4, 4), (4, 6)], ids=['square', 'oblong'])
def test_a_pretrained_encoder_loads_as_it_is(tiny_checkpoint, grid):
    size = (4 * grid[0], 4 * grid[1])
    path = tiny_checkpoint(
        f'windowed_{grid[1]}', backbone=dict(img_size=size), neck=dict(grid=grid), masker=dict(grid=grid)
    )
    arch = dict(ARCH, num_layers=2)
    backbone = dict(type='mmmlo.WindowedViT', arch=arch, img_size=(32, 40), patch_size=4, window_size=3, global_blocks=1)
    cfg = Config(dict(model=dict(backbone=backbone)))
    set_backbone(cfg, path)
    backbone = dict(cfg.model.backbone)
    backbone.pop('type')
    model = WindowedViT(**backbone)
    ((_, _, state, report),) = initialized_from(model)
    counts = {name: count for name, count in report.check().counts().items() if count}
    # Positions and grid are resized; embedding and bias, 12 a block, final norm match.
    assert counts == dict(matched=2 + 2 * 12 + 2, resized=2, left_by_design=1)
    model.init_weights()
    report.check_values(model, state)
    assert model.grid.tolist() == [8, 10]
    if grid == (4, 6):  # mmpretrain's own takes the file to be of a square
        expected = resize_pos_embed(state['pos_embed'], grid, (8, 10))[:, 1:]
        assert torch.allclose(model.pos_embed, expected)
        return
    plain = VisionTransformer(
        arch=arch, img_size=(32, 40), patch_size=4, out_type='featmap',
        init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'))  # fmt: skip
    plain.init_weights()
    assert torch.allclose(model.pos_embed, plain.pos_embed[:, 1:])


def test_layers_learn_at_their_own_rates():
    model = nn.Module()
    model.backbone = WindowedViT(arch=ARCH, img_size=64, patch_size=16)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor='mmmlo.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        layer = int(name.split('.')[2]) + 1 if '.layers.' in name else 5 if '.ln1' in name else 0
        assert rates[id(parameter)] == pytest.approx(0.5 ** (5 - layer)), name


def test_settings_that_are_not_possible():
    for settings, message in (
        (dict(window_size=0), 'model.backbone.window_size must be at least 1 patch, got 0'),
        (dict(global_blocks=5), 'global_blocks must be from 0 to the 4 blocks of the model, got 5'),
    ):
        with pytest.raises(ValueError, match=message):
            WindowedViT(arch=ARCH, img_size=64, patch_size=16, **settings)
    assert WindowedViT(arch='base', img_size=64).global_blocks == {2, 5, 8, 11}
