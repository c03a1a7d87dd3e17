import argparse

import pytest
import torch

from mmmlo.converters import convert, write_file
from mmmlo.models.necks import GridMAEDecoder

BLOCK = ['norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2']


def named(*modules):
    return {f'{module}.{p}' for module in modules for p in ('weight', 'bias')}


# The names of MAE's models_mae.py, for two blocks in the encoder and one in the decoder.
ENCODER = {'cls_token', 'pos_embed'} | named('patch_embed.proj', 'norm', *(f'blocks.{i}.{m}' for i in (0, 1) for m in BLOCK))
DECODER = {'mask_token', 'decoder_pos_embed'} | named(
    'decoder_embed', 'decoder_norm', 'decoder_pred', *(f'decoder_blocks.0.{module}' for module in BLOCK)
)


def test_round_trip_with_decoder(tiny_checkpoint, save, same, tmp_path):
    path = tiny_checkpoint('mlo_mae')
    there = convert([path], 'mae')
    assert set(there.state) == ENCODER | DECODER
    write_file(str(tmp_path / 'mae.pth'), there.state, there.target, there.meta)
    assert torch.load(tmp_path / 'mae.pth', weights_only=True)['model'].keys() == there.state.keys()
    back = convert([str(tmp_path / 'mae.pth')], 'mmmlo')
    assert back.source.name == 'mae'
    own = {key: value for key, value in there.read.items() if key.startswith(('backbone.', 'neck.'))}
    assert same(back.state, own)
    assert list(back.report.added) == ['backbone.grid', 'neck.grid']
    assert same(convert([save('again.pth', back.state)], 'mae').state, there.state)


def test_files_of_the_training_script_are_read(timm_vit, save):
    content = dict(model=timm_vit().state_dict(), epoch=3, scaler={}, optimizer={}, args=argparse.Namespace(lr=0.1))
    result = convert([save('checkpoint-3.pth', content)], 'mmmlo', source_name='mae')
    assert len(result.state) == len(ENCODER)


def test_fine_tuned_file(timm_vit, save, same):
    state = timm_vit(global_pool='avg', num_classes=5).state_dict()
    there = convert([save('mae.pth', dict(model=state))], 'mmmlo', source_name='mae')
    assert {key for key in there.state if not key.startswith('backbone.layers')} == {
        'backbone.cls_token', 'backbone.pos_embed', *named('backbone.patch_embed.projection', 'backbone.ln2', 'head.fc')
    }
    assert same(convert([save('ours.pth', there.state)], 'mae').state, state)


@pytest.mark.parametrize('grid', [(6, 3), (2, 2)])
def test_grid_is_resized_as_our_models_do_it(tiny_checkpoint, same, grid):
    path = tiny_checkpoint('mlo_mae')
    result = convert([path], 'mmmlo', grid=grid)
    decoder = GridMAEDecoder(
        grid=grid, patch_size=4, embed_dim=48, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4, mlp_ratio=2
    )
    decoder.load_state_dict({key[5:]: value for key, value in result.read.items() if key.startswith('neck.')})
    assert same(
        {key[5:]: value for key, value in result.state.items() if key.startswith('neck.')}, dict(decoder.state_dict())
    )
    assert {key for key in result.report.resized} == {'backbone.pos_embed', 'neck.decoder_pos_embed'}
    # Its last layer has an output for each of the old patches.
    assert result.report.dropped == dict.fromkeys(
        [f'masker.layers.{i}.{p}' for i in (1, 3) for p in ('weight', 'bias')],
        'masking network that serves 4 x 4 patches only',
    )
    assert any(key.startswith('masker.') for key in convert([path], 'mmmlo', grid=(4, 4)).state)


def test_a_masker_for_any_grid_stays(tiny_checkpoint):
    masker = dict(type='mmmlo.ViTMasker', embed_dims=48, depth=1, head='token')
    path = tiny_checkpoint('token', type='mmmlo.CLMAE', downstream=None, masker=masker)
    result = convert([path], 'mmmlo', grid=(2, 3))
    assert not result.report.dropped and any(key.startswith('masker.') for key in result.state)
