"""What other libraries' models compute with a file's weights, for the comparison with ours."""

import importlib
import os.path as osp
import sys
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import ConversionError, Grid, State
from .shape import EncoderShape

__all__ = [
    'Architecture', 'Outputs', 'cl_mae_outputs', 'import_released', 'mlo_mae_outputs', 'mmseg_outputs', 'timm_outputs',
    'vitdet_outputs'
]

Outputs = dict[str, Tensor]

_NORM = partial(nn.LayerNorm, eps=1e-6)


class Architecture(NamedTuple):
    """What a model is built from beside its weights.

    Attributes:
        shape (EncoderShape): Size of the encoder.
        grid (tuple[int, int]): Patches along the height and the width.
        heads (int): Attention heads of the encoder.
        decoder_heads (int): Those of the decoder.
    """

    shape: EncoderShape
    grid: Grid
    heads: int
    decoder_heads: int

    @property
    def image_size(self) -> Grid:
        """tuple[int, int]: In pixels."""
        return self.grid[0] * self.shape.patch, self.grid[1] * self.shape.patch


def timm_outputs(state: State, arch: Architecture, images: Tensor) -> Outputs:
    """Tokens of timm's ``VisionTransformer``, and logits if the file has a head. Decoder and masker are left out."""
    others = ('decoder_', 'mask_token', 'masking_', 'finetune_module.')
    own = {key: value for key, value in state.items() if not key.startswith(others)}
    pooled = 'fc_norm.weight' in own
    classes = len(own['head.weight']) if 'head.weight' in own else 0
    model = _timm_model(own, arch, global_pool='avg' if pooled else 'token', num_classes=classes)
    tokens = model.forward_features(images)
    outputs = {'tokens': tokens}
    if 'head.weight' in own:
        outputs['logits'] = model.forward_head(tokens)
    return outputs


def vitdet_outputs(state: State, arch: Architecture, images: Tensor) -> Outputs:
    """Patch tokens of ViTDet's blocks when all attend globally: timm's, without class token and final norm."""
    own = {**state, 'pos_embed': state['pos_embed'][:, 1:]}
    model = _timm_model(own, arch, class_token=False, global_pool='avg', fc_norm=False, final_norm=False)
    return {'patch tokens': model.forward_features(images)}


def _timm_model(state: State, arch: Architecture, **kwargs) -> Any:
    from timm.models import VisionTransformer

    kwargs = dict(num_classes=0, init_values=1.0 if any(key.endswith('.ls1.gamma') for key in state) else None) | kwargs
    model = VisionTransformer(
        img_size=arch.image_size,
        patch_size=arch.shape.patch,
        embed_dim=arch.shape.width,
        depth=arch.shape.depth,
        num_heads=arch.heads,
        mlp_ratio=arch.shape.hidden / arch.shape.width,
        norm_layer=_NORM,
        weight_init='skip',
        **kwargs,
    )
    model.load_state_dict(state)
    return model.double().eval()


def mmseg_outputs(state: State, arch: Architecture, images: Tensor) -> Outputs:
    """Patch tokens of mmsegmentation's ``MAE``; it returns no class token."""
    from mmseg.models.backbones import MAE

    model = MAE(
        img_size=arch.image_size,
        patch_size=arch.shape.patch,
        embed_dims=arch.shape.width,
        num_layers=arch.shape.depth,
        num_heads=arch.heads,
        mlp_ratio=arch.shape.hidden // arch.shape.width,
        norm_cfg=dict(type='LN', eps=1e-6),
        final_norm='ln1.weight' in state,
        init_values=1.0,
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    # What mmseg makes by itself is neutral: scales of 1, relative positions of 0.
    missing = [key for key in missing if 'gamma_' not in key and 'relative_position_' not in key]
    if missing or unexpected:
        raise ConversionError(f"mmseg's MAE lacks {missing} and does not know {unexpected}")
    model.double().eval()  # which it does not return
    return {'patch tokens': model(images)[-1].flatten(2).transpose(1, 2)}


def mlo_mae_outputs(state: State, arch: Architecture, images: Tensor, checkout: str) -> Outputs:
    """Tokens, predictions, scores and logits of the released MLO-MAE's classes, as far as the file goes."""
    released = import_released(checkout, 'cifar_mae_model', 'MLO-MAE')
    outputs = _mae_outputs(released, _part(state, None), arch, images)
    masker, head = _part(state, 'masking_module'), _part(state, 'finetune_module')
    if masker:
        hidden, inputs = masker['first_hidden_layer.fc.weight'].shape
        module = released.MLOPatchMasking(inputs, arch.shape.length, hidden)
        module.load_state_dict(masker)
        outputs['scores'] = module.double()(outputs['embedded'], 0.75)[3]
    if head:
        classifier = import_released(checkout, 'vit_model', 'MLO-MAE').FinetuneVisionTransformer(
            num_classes=len(head['head.weight']), embed_dim=arch.shape.width
        )
        classifier.load_state_dict(head)
        outputs['logits'] = classifier.double().eval()(outputs['tokens'][:, 0])
    del outputs['embedded']
    return outputs


def cl_mae_outputs(state: State, arch: Architecture, images: Tensor, checkout: str) -> Outputs:
    """Tokens, predictions and scores of the released CL-MAE's class, the scores being 1 minus the released keep weights."""
    released = import_released(checkout, 'models_mae', 'CL-MAE')
    outputs = _mae_outputs(released, state, arch, images)
    del outputs['embedded']
    return outputs


def _mae_outputs(released: ModuleType, state: State, arch: Architecture, images: Tensor) -> Outputs:
    shape = arch.shape
    has_decoder, has_masker = 'decoder_embed.weight' in state, 'masking_net.cls_token' in state
    decoder = {}
    if has_decoder:
        decoder = dict(
            decoder_embed_dim=state['mask_token'].shape[-1],
            decoder_depth=len({key.split('.')[1] for key in state if key.startswith('decoder_blocks.')}),
            decoder_num_heads=arch.decoder_heads,
        )
    model = released.MaskedAutoencoderViT(
        img_size=images.shape[-1],
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=arch.heads,
        mlp_ratio=shape.hidden / shape.width,
        norm_layer=_NORM,
        **decoder,
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    absent = (() if has_decoder else ('decoder_', 'mask_token')) + (() if has_masker else ('masking_net.',))
    missing = [key for key in missing if not key.startswith(absent or '-')]
    if missing or unexpected:
        raise ConversionError(f'the released MaskedAutoencoderViT lacks {missing} and does not know {unexpected}')
    model = model.double().eval()
    outputs = {'embedded': model.patch_embed(images) + model.pos_embed[:, 1:]}
    tokens = torch.cat([(model.cls_token + model.pos_embed[:, :1]).expand(len(images), -1, -1), outputs['embedded']], dim=1)
    for block in model.blocks:
        tokens = block(tokens)
    outputs['tokens'] = model.norm(tokens)
    if has_decoder:
        in_order = torch.arange(shape.length).expand(len(images), -1)
        outputs['predictions'] = model.forward_decoder(outputs['tokens'], in_order)
    if has_masker:
        outputs['scores'] = 1 - model.masking_net(outputs['embedded'])
    return outputs


def _part(state: Mapping[str, Tensor], part: str | None) -> State:
    """The weights of one of the released MLO-MAE's modules; of the autoencoder if there is no name."""
    parts = ('masking_module.', 'finetune_module.')
    if part is None:
        return {key: value for key, value in state.items() if not key.startswith(parts)}
    return {key.removeprefix(f'{part}.'): value for key, value in state.items() if key.startswith(f'{part}.')}


def import_released(checkout: str, name: str, project: str) -> ModuleType:
    """Import a module of a checkout, and leave no trace of it: the released projects have modules of the same names.

    Args:
        checkout (str): The folder.
        name (str): The module.
        project (str): What it must be a checkout of.

    Returns:
        ModuleType: The module.

    Raises:
        ConversionError: The folder has no such file, or the import fails.
    """
    if not osp.isfile(osp.join(checkout, f'{name}.py')):
        raise ConversionError(f'--checkout {checkout} has no {name}.py; it must be a checkout of the released {project}')
    before = set(sys.modules)
    sys.path.insert(0, checkout)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConversionError(f'{name}.py of {checkout} cannot be imported: {error}') from error
    finally:
        sys.path.remove(checkout)
        root = osp.abspath(checkout) + '/'
        for module in set(sys.modules) - before:
            if osp.abspath(getattr(sys.modules[module], '__file__', None) or '').startswith(root):
                del sys.modules[module]
