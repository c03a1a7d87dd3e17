"""Whether a converted file computes what its source does: the other library's model beside ours, on one image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from mmmlo.models.backbones import MaskedViT
from mmmlo.models.heads import TokenClsHead
from mmmlo.models.maskers import MLPMasker, ViTMasker
from mmmlo.models.necks import GridMAEDecoder

from .base import ConversionError, Format, Grid, State
from .convert import Conversion
from .masker_kind import masker_kind
from .reference_models import (
    Architecture,
    Outputs,
    cl_mae_outputs,
    mlo_mae_outputs,
    mmseg_outputs,
    timm_outputs,
    vitdet_outputs,
)

__all__ = ['Difference', 'TOLERANCE', 'attention_heads', 'verify']

TOLERANCE = 1e-4

# Where a head is not 64 wide: mmpretrain's huge, giant and gigantic.
_HEADS = {1280: 16, 1408: 16, 1664: 16}
_RELEASED = {'mlo-mae': mlo_mae_outputs, 'cl-mae': cl_mae_outputs}


class Difference(NamedTuple):
    """One line of a verification.

    Attributes:
        format (str): The format that is compared with ours.
        classes (str): Whose model was built.
        output (str): What was compared.
        largest (float): Largest absolute difference.
    """

    format: str
    classes: str
    output: str
    largest: float


def attention_heads(width: int, config: Config | None) -> int:
    """Number of attention heads, which no weight tells: the config's, or those of the usual architectures.

    Args:
        width (int): Of the encoder.
        config (Config, optional): A config with ``model.backbone``.

    Returns:
        int: The number.

    Raises:
        ConversionError: There is no config, and heads are not 64 wide.
    """
    if config is not None:
        with torch.device('meta'):
            return MaskedViT(arch=config.model.backbone.arch).arch_settings['num_heads']
    if width not in _HEADS and width % 64:
        raise ConversionError(f'an encoder of width {width} may have any number of heads; name its config by --config')
    return _HEADS.get(width, width // 64)


@torch.no_grad()
def verify(
    conversion: Conversion, image: Callable[[Grid], Tensor], config: Config | None = None, checkout: str | None = None
) -> list[Difference]:
    """Compare what the models of the source and of the target compute with what ours does, in float64.

    The source is compared on its own grid, the target on the one that its position embeddings were resized to.

    Args:
        conversion (Conversion): A conversion.
        image (Callable[[tuple[int, int]], Tensor]): Makes an image for a grid, 1 x 3 x H x W in pixels.
        config (Config, optional): Tells numbers of heads. Defaults to None.
        checkout (str, optional): Folder with the released MLO-MAE or CL-MAE, whose classes are then built. Defaults to
            None, timm's classes for the encoder.

    Returns:
        list[Difference]: One for each thing that can be compared; none if source and target are ours.

    Raises:
        ConversionError: A model cannot be built for these weights.
    """
    heads = attention_heads(conversion.shape.width, config)
    sides = [
        (conversion.source, conversion.given, conversion.read, conversion.old_grid),
        (conversion.target, conversion.state, conversion.ours, conversion.grid),
    ]
    rows = []
    for side, state, own, grid in sides:
        if side.name == 'mmmlo':
            continue
        shape = conversion.shape._replace(length=grid[0] * grid[1])
        arch = Architecture(shape, grid, heads, _decoder_heads(own, config))
        images = image(grid).double()
        theirs, classes = _their_outputs(side, state, arch, images, checkout)
        ours = _our_outputs(side, own, arch, images)
        for name, output in theirs.items():
            rows.append(Difference(side.name, classes, name, (output - ours[name]).abs().max().item()))
    return rows


def _decoder_heads(state: State, config: Config | None) -> int:
    neck = (config.model.get('neck') if config is not None else None) or {}
    width = state['neck.mask_token'].shape[-1] if 'neck.mask_token' in state else 1
    # MAE's heads are 32 wide. With another number both models are wrong alike, so the comparison holds.
    return int(neck.get('decoder_num_heads', 0)) or (width // 32 if width % 32 == 0 else 1)


def _their_outputs(
    side: Format, state: State, arch: Architecture, images: Tensor, checkout: str | None
) -> tuple[Outputs, str]:
    if side.name == 'mmseg-mae':
        return mmseg_outputs(state, arch, images), "mmseg's MAE"
    if side.name == 'vitdet':
        return vitdet_outputs(state, arch, images), "timm's blocks, all attending globally"
    if side.name in _RELEASED and checkout is not None:
        return _RELEASED[side.name](state, arch, images, checkout), 'released classes'
    return timm_outputs(state, arch, images), "timm's VisionTransformer"


def _our_outputs(side: Format, state: State, arch: Architecture, images: Tensor) -> Outputs:
    own = _module(state, 'backbone')
    kwargs: dict[str, Any] = dict(
        arch=dict(
            embed_dims=arch.shape.width,
            num_layers=arch.shape.depth,
            num_heads=arch.heads,
            feedforward_channels=arch.shape.hidden,
        ),
        img_size=arch.image_size,
        patch_size=arch.shape.patch,
        out_type='raw',
    )
    if side.name == 'vitdet':
        own = {key: value for key, value in own.items() if not key.startswith(('cls_token', 'ln'))}
        own['pos_embed'] = own['pos_embed'][:, 1:]
        blocks = _load(VisionTransformer(**kwargs, final_norm=False, with_cls_token=False), own)
        return {'patch tokens': blocks(images)[-1]}

    # The norm on the mean of the patches belongs to the head here.
    own = {key: value for key, value in own.items() if not key.startswith('ln2.')}
    kwargs.update(final_norm='ln1.weight' in own, layer_scale_init_value=float(any('gamma1' in key for key in own)))
    backbone = _load(MaskedViT(**kwargs), own)
    tokens = backbone(images)[-1]
    outputs = {'tokens': tokens, 'patch tokens': tokens[:, 1:]}
    if 'head.fc.weight' in state:
        outputs['logits'] = _class_logits(state, tokens)
    if 'downstream.fc.weight' in state:
        head = TokenClsHead(num_classes=len(state['downstream.fc.weight']), in_channels=arch.shape.width)
        outputs['logits'] = _load(head, _module(state, 'downstream'))((tokens,))
    if 'neck.mask_token' in state:
        in_order = torch.arange(arch.shape.length).expand(len(tokens), -1)
        outputs['predictions'] = _decoder(state, arch)(tokens, in_order)
    masker = _masker(state, arch)
    if masker is not None:
        outputs['scores'] = masker(images, *backbone.embed(images))
    return outputs


def _class_logits(state: State, tokens: Tensor) -> Tensor:
    features = tokens[:, 0]
    if 'backbone.ln2.weight' in state:  # as with out_type='avg_featmap'
        norm = nn.LayerNorm(tokens.shape[-1], eps=1e-6)
        features = _load(norm, _module(state, 'backbone.ln2'))(tokens[:, 1:].mean(dim=1))
    return F.linear(features, state['head.fc.weight'].double(), state['head.fc.bias'].double())


def _decoder(state: State, arch: Architecture) -> nn.Module:
    own = _module(state, 'neck')
    width = own['mask_token'].shape[-1]
    decoder = GridMAEDecoder(
        grid=arch.grid,
        patch_size=arch.shape.patch,
        embed_dim=arch.shape.width,
        decoder_embed_dim=width,
        decoder_depth=_depth(own, 'decoder_blocks'),
        decoder_num_heads=arch.decoder_heads,
        mlp_ratio=own['decoder_blocks.0.ffn.layers.0.0.weight'].shape[0] / width,
    )
    return _load(decoder, own)


def _masker(state: State, arch: Architecture) -> nn.Module | None:
    own, kind = _module(state, 'masker'), masker_kind(state)
    if kind == 'MLPMasker':
        hidden = len(own['layers.1.weight'])
        # The activation of the released one.
        return _load(MLPMasker(arch.grid, arch.shape.width, hidden, act_cfg=dict(type='ReLU')), own)
    if kind == 'ViTMasker/linear':
        return _load(ViTMasker(arch.shape.width, arch.grid, depth=_depth(own, 'layers'), head='linear'), own)
    return None


def _module(state: State, name: str) -> State:
    return {key.removeprefix(f'{name}.'): value for key, value in state.items() if key.startswith(f'{name}.')}


def _depth(state: State, blocks: str) -> int:
    return len({key.split('.')[1] for key in state if key.startswith(f'{blocks}.')})


def _load(module: Any, state: State) -> Any:
    module.load_state_dict(state)
    module.double().eval()  # which a backbone of mmpretrain's does not return
    return module
