"""The released MLO-MAE and CL-MAE. Tests of their classes need checkouts, which two environment variables name."""

import argparse
import os
from functools import partial

import pytest
import torch
from torch import nn

from mmmlo.converters import ConversionError, convert, write_file
from mmmlo.converters.reference_models import import_released
from mmmlo.converters.verify import verify


def needs_checkout(variable: str, repository: str):
    return pytest.mark.skipif(variable not in os.environ, reason=f'{variable} names no checkout of github.com/{repository}')


# Tiny but for the width, which tells the heads.
SIZE = dict(
    img_size=16,
    patch_size=4,
    embed_dim=128,
    depth=2,
    num_heads=2,
    decoder_embed_dim=64,
    decoder_depth=1,
    decoder_num_heads=2,
    mlp_ratio=2,
    norm_layer=partial(nn.LayerNorm, eps=1e-6),
)


@pytest.fixture
def parts(timm_vit):
    """Weights under the names of the released MLO-MAE."""

    def layers(*names: str) -> dict[str, torch.Tensor]:
        shapes = dict(weight=(2, 2), bias=(2,))
        return {f'{name}.{p}': torch.full(shape, 3.0) for name in names for p, shape in shapes.items()}

    return dict(
        model=timm_vit().state_dict(),
        masking_module=layers('first_hidden_layer.fc', 'output_layer'),
        finetune_module=layers('fc_norm', 'head'),
    )


def test_the_three_files_of_cifar_and_the_one_of_imagenet(parts, save, same, tmp_path):
    cifar = [save(f'{name}.pth', dict(model_state_dict=state)) for name, state in parts.items()]
    together = convert(cifar, 'mmmlo')
    assert together.source.name == 'mlo-mae' and len(together.state) == len(parts['model']) + 8
    beside = {key.rsplit('.', 1)[0] for key in together.state if not key.startswith('backbone.')}
    assert beside == {'masker.layers.1', 'masker.layers.3', 'downstream.norm', 'downstream.fc'}
    assert any("act_cfg=dict(type='ReLU')" in note for note in together.report.notes)

    ddp = {name: {f'module.{key}': value for key, value in state.items()} for name, state in parts.items()}
    imagenet = save('checkpoint-50.pth', dict(**ddp, optimizer={}, epoch=50, args=argparse.Namespace(gpu=0)))
    assert same(convert([imagenet], 'mmmlo').state, together.state)

    back = convert([save('ours.pth', together.state)], 'mlo-mae')
    write_file(str(tmp_path / 'back.pth'), back.state, back.target, back.meta)
    content = torch.load(tmp_path / 'back.pth', weights_only=True)
    assert all(same(content[name], state) for name, state in parts.items())
    assert convert(cifar[:1], 'mmmlo', source_name='mlo-mae').shape.width == 128
    with pytest.raises(ConversionError, match='masking_module.pth holds no encoder.*name pretrain.pth before'):
        convert(cifar[1:2], 'mmmlo')
    with pytest.raises(ConversionError, match='hold too: blocks.0'):
        convert([cifar[0], cifar[0]], 'mmmlo')


def cl_mae_masker():
    names = ['mlp_head.0', 'mlp_head.1', *(f'blocks.0.{name}' for name in ('norm1', 'attn.qkv', 'mlp.fc2'))]
    state = {f'masking_net.{name}.{p}': torch.full((16, 4), 2.0) for name in names for p in ('weight', 'bias')}
    return state | {'masking_net.cls_token': torch.tensor([1.0, 2.0]), 'masking_net.pos_embed': torch.tensor([0.5, 0.0])}


def test_polarity_and_class_token_of_cl_mae(timm_vit, save, same):
    released = dict(timm_vit().state_dict(), **cl_mae_masker())
    there = convert([save('cl.pth', dict(model=released))], 'mmmlo')
    assert there.source.name == 'cl-mae' and set(there.report.mapped) == set(released)
    assert there.state['masker.cls_token'].tolist() == [1.5, 2.0]
    assert (there.state['masker.head.weight'] == -2).all() and (there.state['masker.head.bias'] == -2).all()
    assert (there.state['masker.norm.weight'] == 2).all() and 'masker.layers.0.ffn.layers.1.weight' in there.state

    back = convert([save('ours.pth', there.state)], 'cl-mae')
    assert back.state['masking_net.pos_embed'].tolist() == [0, 0]
    released.update({'masking_net.cls_token': torch.tensor([1.5, 2.0]), 'masking_net.pos_embed': torch.zeros(2)})
    assert same(back.state, released)


@pytest.mark.parametrize('target', ['mlo-mae', 'cl-mae'])
def test_maskers_of_another_kind_stay_behind(tiny_checkpoint, target):
    for name, kind in dict(conv='ConvMasker', mlp='MLPMasker', vit='ViTMasker').items():
        masker = dict(
            conv=dict(type='mmmlo.ConvMasker', patch_size=4, dims=16),
            mlp=dict(type='mmmlo.MLPMasker', grid=(4, 4), embed_dims=48, hidden_dims=32),
            vit=dict(type='mmmlo.ViTMasker', grid=(4, 4), embed_dims=48, depth=1, head='linear'),
        )[name]
        result = convert([tiny_checkpoint(name, masker=masker)], target)
        kept = any(key.startswith(('masking_net.', 'masking_module.')) for key in result.state)
        assert kept == ((target, kind) in [('mlo-mae', 'MLPMasker'), ('cl-mae', 'ViTMasker')])
        assert kept or any('masking network of another kind' in reason for reason in result.report.dropped.values())


def check(result, checkout, outputs):
    """What is computed is what the released classes compute."""
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    rows = verify(result, lambda grid: image, checkout=checkout)
    assert [row.output for row in rows] == outputs
    print(*rows, sep='\n')
    assert all(row.classes == 'released classes' and row.largest < 1e-4 for row in rows)


@needs_checkout('MMMLO_MLO_MAE', 'Alexiland/MLO-MAE')
def test_released_mlo_mae(jitter, save, same):
    checkout = os.environ['MMMLO_MLO_MAE']
    released = import_released(checkout, 'cifar_mae_model', 'MLO-MAE')
    head = import_released(checkout, 'vit_model', 'MLO-MAE').FinetuneVisionTransformer(num_classes=7, embed_dim=128)
    modules = [released.MaskedAutoencoderViT(**SIZE), released.MLOPatchMasking(16 * 128, 16, 24), head]
    files = [save(f'{i}.pth', dict(model_state_dict=jitter(module).state_dict())) for i, module in enumerate(modules)]
    there = convert(files, 'mmmlo')
    outputs = ['tokens', 'predictions', 'scores', 'logits']
    check(there, checkout, outputs)
    back = convert([save('ours.pth', there.state)], 'mlo-mae')
    check(back, checkout, outputs)
    assert same(back.state, there.given)


@needs_checkout('MMMLO_CL_MAE', 'ristea/cl-mae')
def test_released_cl_mae(jitter, save, same):
    checkout = os.environ['MMMLO_CL_MAE']
    model = jitter(import_released(checkout, 'models_mae', 'CL-MAE').MaskedAutoencoderViT(**SIZE))
    there = convert([save('cl.pth', dict(model=model.state_dict(), args=argparse.Namespace()))], 'mmmlo')
    check(there, checkout, ['tokens', 'predictions', 'scores'])
    back = convert([save('ours.pth', there.state)], 'cl-mae')
    check(back, checkout, ['tokens', 'predictions', 'scores'])
    own = ('masking_net.cls_token', 'masking_net.pos_embed')  # of these only the sum is kept
    assert same(*({key: value for key, value in state.items() if key not in own} for state in (back.state, there.given)))
