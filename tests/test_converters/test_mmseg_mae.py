import pytest
import torch
from mmseg.models.backbones import MAE

from mmmlo.converters import convert, write_file


@pytest.fixture
def mmseg_mae():
    """mmsegmentation's backbone of the size of the other tiny ones."""

    def build(**updates) -> MAE:
        kwargs = dict(
            img_size=(16, 16),
            patch_size=4,
            embed_dims=128,
            num_layers=2,
            num_heads=2,
            mlp_ratio=2,
            norm_cfg=dict(type='LN', eps=1e-6),
            final_norm=True,
            init_values=1.0,
        )
        model = MAE(**{**kwargs, **updates})
        model.eval()
        return model

    return build


@pytest.fixture
def ours(timm_vit, save):
    """A file of ours, and its weights."""
    state = convert([save('timm.pth', timm_vit().state_dict())], 'mmmlo').state
    return save('ours.pth', state), state


@torch.no_grad()
@pytest.mark.parametrize('grid', [(4, 4), (6, 3)])
def test_features(mmseg_mae, our_vit, ours, image, same, tmp_path, grid):
    path, state = ours
    result = convert([path], 'mmseg-mae', grid=grid)
    size = (4 * grid[0], 4 * grid[1])
    file = str(tmp_path / 'mmseg.pth')
    write_file(file, result.state, result.target, result.meta)
    # As a segmentor does it: what the file lacks is made by mmseg.
    model = mmseg_mae(img_size=size, init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    assert same({key: value for key, value in model.state_dict().items() if key in result.state}, result.state)
    # Class token included in the attention, but not returned.
    features = model(image(*size))[-1].flatten(2).transpose(1, 2)
    encoder = our_vit(convert([path], 'mmmlo', grid=grid).state, img_size=size)
    assert (features - encoder(image(*size))[-1][:, 1:]).abs().max() < 1e-4

    # The default scales would shrink what each block adds to a tenth.
    assert any('init_values=1.0' in note for note in result.report.notes)
    other = mmseg_mae(img_size=size, init_values=0.1, init_cfg=dict(type='Pretrained', checkpoint=file))
    other.init_weights()
    assert (other(image(*size))[-1].flatten(2).transpose(1, 2) - features).abs().max() > 0.1


def test_grid_is_resized_as_mmseg_does_it(mmseg_mae, ours):
    path, state = ours
    model = mmseg_mae(img_size=(32, 32))
    expected = model.resize_abs_pos_embed({'pos_embed': state['backbone.pos_embed']})['pos_embed']
    assert torch.equal(convert([path], 'mmseg-mae', grid=(8, 8)).state['pos_embed'], expected)


def test_it_is_written_only(mmseg_mae, save):
    model = mmseg_mae()
    segmentor = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match='layers.0.attn.relative_position_bias_table shows relative positions, as BEiT'):
        convert([save('mmseg.pth', dict(state_dict=segmentor, meta={}))], 'mmmlo')
    with pytest.raises(ValueError, match='nothing is converted from mmseg-mae to mmmlo'):
        convert([save('mmseg.pth', model.state_dict())], 'mmmlo', source_name='mmseg-mae')


@torch.no_grad()
def test_layer_scales(mmseg_mae, timm_vit, our_vit, image, save):
    scaled = timm_vit(init_values=0.5)
    result = convert([save('timm.pth', scaled.state_dict())], 'mmmlo')
    assert any('layer_scale_init_value=1.0' in note for note in result.report.notes)
    model = mmseg_mae()
    there = convert([save('scaled.pth', result.state)], 'mmseg-mae')
    assert 'layers.1.gamma_2' in there.state and not any('init_values' in note for note in there.report.notes)
    model.load_state_dict(there.state, strict=False)
    features = model(image())[-1].flatten(2).transpose(1, 2)
    encoder = our_vit(result.state, layer_scale_init_value=1.0)
    assert (features - encoder(image())[-1][:, 1:]).abs().max() < 1e-4
