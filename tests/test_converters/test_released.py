"""The released MLO-MAE and CL-MAE. Tests of their classes need checkouts, which two environment variables name."""

import argparse
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mmmlo.converters import ConversionError, convert, write_file
from mmmlo.models.downstream import TokenClsHead
from mmmlo.models.maskers import MLPMasker, ViTMasker
from mmmlo.models.necks import GridMAEDecoder


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
        assert kept or any('masking network that' in reason for reason in result.report.dropped.values())


@pytest.fixture
def import_released(monkeypatch):
    """Import a module of a checkout, which leaves no trace; ``import_released(checkout, module)``."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks')
    return pytest.importorskip('released').import_released


def load(module: nn.Module, state: dict, prefix: str = '') -> nn.Module:
    """The module in float64 with the weights of a prefix."""
    module.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    module.double().eval()
    return module


@pytest.fixture
def pixels():
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


@pytest.fixture
def compute_ours(our_vit, pixels):
    """What our models compute with weights under our names, and a masker: tokens, predictions, scores."""

    def compute(state: dict, masker: nn.Module) -> list[torch.Tensor]:
        encoder = our_vit(state).double()
        tokens = encoder(pixels)[-1]
        sizes = dict(embed_dim=128, decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2, mlp_ratio=2)
        decoder = load(GridMAEDecoder(grid=(4, 4), patch_size=4, **sizes), state, 'neck.')
        scores = load(masker, state, 'masker.')(pixels, *encoder.embed(pixels))
        return [tokens, decoder(tokens, torch.arange(16)[None]), scores]

    return compute


def released_outputs(model: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Embedded patches, all tokens and predictions of a released MaskedAutoencoderViT."""
    embedded = model.patch_embed(pixels) + model.pos_embed[:, 1:]
    tokens = torch.cat([model.cls_token + model.pos_embed[:, :1], embedded], dim=1)
    for block in model.blocks:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    return [embedded, tokens, model.forward_decoder(tokens, torch.arange(16)[None])]


def agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all((one - other).abs().max() < 1e-4 for one, other in zip(ours, theirs, strict=True))


@torch.no_grad()
@needs_checkout('MMMLO_MLO_MAE', 'Alexiland/MLO-MAE')
def test_released_mlo_mae(import_released, compute_ours, jitter, pixels, save, same):
    checkout = os.environ['MMMLO_MLO_MAE']
    released = import_released(checkout, 'cifar_mae_model')
    head = import_released(checkout, 'vit_model').FinetuneVisionTransformer(num_classes=7, embed_dim=128)
    modules = [released.MaskedAutoencoderViT(**SIZE), released.MLOPatchMasking(16 * 128, 16, 24), head]
    files = [save(f'{i}.pth', dict(model_state_dict=jitter(module).state_dict())) for i, module in enumerate(modules)]
    there = convert(files, 'mmmlo')
    back = convert([save('ours.pth', there.state)], 'mlo-mae')
    assert same(back.state, there.given)

    model, masker, head = (module.double() for module in modules)
    embedded, tokens, predictions = released_outputs(model, pixels)
    theirs = [tokens, predictions, masker(embedded, 0.75)[3], head(tokens[:, 0])]
    ours = compute_ours(there.state, MLPMasker((4, 4), 128, 24, act_cfg=dict(type='ReLU')))
    ours.append(load(TokenClsHead(num_classes=7, in_channels=128), there.state, 'downstream.')((ours[0],)))
    assert agree(ours, theirs)


@torch.no_grad()
@needs_checkout('MMMLO_CL_MAE', 'ristea/cl-mae')
def test_released_cl_mae(import_released, compute_ours, jitter, pixels, save, same):
    model = jitter(import_released(os.environ['MMMLO_CL_MAE'], 'models_mae').MaskedAutoencoderViT(**SIZE))
    there = convert([save('cl.pth', dict(model=model.state_dict(), args=argparse.Namespace()))], 'mmmlo')
    back = convert([save('ours.pth', there.state)], 'cl-mae')
    own = ('masking_net.cls_token', 'masking_net.pos_embed')  # of these only the sum is kept
    assert same(*({key: value for key, value in state.items() if key not in own} for state in (back.state, there.given)))

    depth = len({key.split('.')[2] for key in there.state if key.startswith('masker.layers.')})
    ours = compute_ours(there.state, ViTMasker(128, (4, 4), depth=depth, head='linear'))
    for state in (there.given, back.state):
        model.float().load_state_dict(state)
        embedded, tokens, predictions = released_outputs(model.double(), pixels)
        assert agree(ours, [tokens, predictions, 1 - model.masking_net(embedded)])
