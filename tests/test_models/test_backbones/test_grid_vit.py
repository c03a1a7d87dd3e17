"""Encoders of 9 x 16 patches, which are as many as 12 x 12, in models of other grids."""

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import nn

from mmmlo.models import MaskedViT, WindowedViT
from mmmlo.utils.checkpoints import CheckpointError, use_safe_loaders
from mmmlo.utils.key_report import KeyMismatchError, check_whole_model, initialized_from

ARCH = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8)
GRIDS = [(18, 32), (16, 9), (9, 16), (12, 12)]


@pytest.fixture(autouse=True)
def loaders(monkeypatch):
    """The readers of checkpoints that a run has, which know older files."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    use_safe_loaders()


def build(cls, grid, **kwargs):
    size = (4 * grid[0], 4 * grid[1])
    kwargs |= dict(global_blocks=1) if cls is WindowedViT else {}
    return cls(arch=ARCH, img_size=size, patch_size=4, interpolate_mode='bicubic', **kwargs)


def write(path, source=(9, 16), old=False, told=True) -> tuple[torch.Tensor, dict]:
    """An autoencoder's checkpoint; the positions, and an ``init_cfg`` that loads its encoder."""
    torch.manual_seed(0)
    state = {f'backbone.{key}': value for key, value in build(VisionTransformer, source).state_dict().items()}
    state['backbone.pos_embed'] = torch.randn(1, 1 + source[0] * source[1], 8)
    if told:
        state['neck.grid'] = torch.tensor(source)
        if not old:
            state['backbone.grid'] = torch.tensor(source)
    torch.save(dict(state_dict=state), path)
    return state['backbone.pos_embed'], dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')


def expected(position, source, grid, model):
    return resize_pos_embed(position, source, grid)[:, 1 - model.num_extra_tokens :]


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('cls', [MaskedViT, WindowedViT])
def test_positions_are_resized_from_the_grid_that_the_file_tells(tmp_path, cls, grid):
    position, init_cfg = write(tmp_path / 'encoder.pth')
    model = build(cls, grid, init_cfg=init_cfg)
    ((_, _, state, report),) = initialized_from(model)
    assert ('grid' in report.check().resized) == (grid != (9, 16))
    model.init_weights()
    report.check_values(model, state)
    assert torch.equal(model.pos_embed, expected(position, (9, 16), grid, model))
    assert model.grid.tolist() == list(grid)
    other = build(cls, (18, 32))
    other.load_state_dict(model.state_dict(), strict=True)  # with or without a class token
    wanted = resize_pos_embed(model.pos_embed, grid, (18, 32), num_extra_tokens=model.num_extra_tokens)
    assert torch.equal(other.pos_embed, wanted)


@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_mmpretrains_vit_which_takes_all_to_be_square_is_not_loaded_wrongly(tmp_path, grid):
    position, init_cfg = write(tmp_path / 'encoder.pth')
    model = build(VisionTransformer, grid, init_cfg=init_cfg)
    ((_, _, _, report),) = initialized_from(model)
    if grid == (9, 16):
        assert report.check().left_by_design == ['grid']
        model.init_weights()
        assert torch.equal(model.pos_embed, position)
        return
    with pytest.raises(KeyMismatchError, match=rf'its grid is 9 x 16, .*convert\.py --grid {grid[0]} {grid[1]}\.'):
        report.check()


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('cls', [MaskedViT, WindowedViT, VisionTransformer])
def test_square_encoders_load_everywhere(tmp_path, cls, grid):
    position, init_cfg = write(tmp_path / 'encoder.pth', source=(10, 10), told=False)
    model = build(cls, grid, init_cfg=init_cfg)
    initialized_from(model)[0][-1].check()
    model.init_weights()
    assert torch.equal(model.pos_embed, expected(position, (10, 10), grid, model))


@pytest.mark.parametrize('cls', [MaskedViT, WindowedViT, VisionTransformer])
@pytest.mark.parametrize(
    ('old', 'told', 'source', 'words'),
    [
        (True, True, (9, 16), None),
        (False, True, (12, 12), None),
        (False, False, (9, 16), r'does not tell whether its grid is 12 x 12 or 16 x 9'),
    ],
    ids=['old', 'square', 'untold'],
)
def test_as_many_patches_as_the_model_has(tmp_path, cls, old, told, source, words):
    position, init_cfg = write(tmp_path / 'encoder.pth', source, old, told)
    model = build(cls, (16, 9), init_cfg=init_cfg)
    ((_, _, _, report),) = initialized_from(model)
    if words is None and cls is VisionTransformer:
        words = f'its grid is {source[0]} x {source[1]}, but the model would take it to be 16 x 9'
    if words is None:
        report.check()
        model.init_weights()
        assert torch.equal(model.pos_embed, expected(position, source, (16, 9), model))
    else:
        with pytest.raises(KeyMismatchError, match=words):
            report.check()


@pytest.mark.parametrize('cls', [MaskedViT, WindowedViT])
def test_a_whole_older_checkpoint_tells_its_grid_in_the_decoder(tmp_path, cls):
    position, _ = write(tmp_path / 'model.pth', old=True)
    model = nn.Module()
    model.backbone = build(cls, (16, 9))
    report = check_whole_model(model, str(tmp_path / 'model.pth'), only_backbone=True)
    assert report.resized['backbone.grid'] == ((9, 16), (16, 9))
    load_checkpoint(model, str(tmp_path / 'model.pth'))
    assert torch.equal(model.backbone.pos_embed, expected(position, (9, 16), (16, 9), model.backbone))


@pytest.mark.parametrize('cls', [MaskedViT, WindowedViT])
def test_a_grid_that_is_not_known_is_an_error(tmp_path, cls):
    write(tmp_path / 'encoder.pth', source=(4, 6), told=False)
    words = r'pos_embed of the checkpoint has 24 patches, which is no square .*--source-grid'
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(build(cls, (12, 12)), str(tmp_path / 'encoder.pth'), revise_keys=[(r'^backbone\.', '')])
