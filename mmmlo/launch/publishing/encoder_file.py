"""An encoder alone, in a file whose name tells its content."""

import json
import os
import os.path as osp
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from mmmlo.evaluation.encoder import ARCHITECTURE, Encoder, load_encoder
from mmmlo.utils.checkpoints import CheckpointError, file_hash, read_checkpoint
from mmmlo.utils.key_report import backbone_prefix, cut_prefix

__all__ = ['EncoderFile', 'PublishingError', 'encoder_meta', 'encoder_weights', 'publish_encoder']

FORMATS = ('pth', 'safetensors')
# What says how the encoder computes; the rest of the backbone's config is about training, or ours alone.
_SETTINGS = (*ARCHITECTURE, 'layer_scale_init_value', 'final_norm', 'with_cls_token')


class PublishingError(CheckpointError):
    """An encoder that cannot be published, or not there."""


class EncoderFile(NamedTuple):
    """A published file.

    Attributes:
        path (str): Where it is.
        sha256 (str): Of its content; the name ends in the first eight digits.
        card (str): Path of its model card.
    """

    path: str
    sha256: str
    card: str


def encoder_weights(encoder: Encoder) -> dict[str, Tensor]:
    """Take the encoder's weights out of its checkpoint, under ``backbone.*``, in the order of the model.

    Args:
        encoder (Encoder): A loaded encoder.

    Returns:
        dict[str, Tensor]: Contiguous copies, so that nothing else of the checkpoint's storages is written with them.

    Raises:
        PublishingError: The config is of another image size than the checkpoint.
    """
    if encoder.report.resized:
        key, (theirs, ours) = next(iter(encoder.report.resized.items()))
        raise PublishingError(
            f'{key} of {encoder.path} has shape {theirs}, and {ours} in the config; an encoder is published as it was '
            'trained, so give the config that it was trained by'
        )
    state = read_checkpoint(encoder.path).state_dict
    prefix = backbone_prefix(state)
    state = state if prefix is None else cut_prefix(state, prefix, encoder.path)
    return {
        f'backbone.{key}': state[key].detach().clone(memory_format=torch.contiguous_format) for key in encoder.report.matched
    }


def encoder_meta(encoder: Encoder) -> dict[str, Any]:
    """What one must know to use the weights, as plain values.

    It says nothing about the training and its files, so that one encoder always makes one file; that stands in the card.

    Args:
        encoder (Encoder): A loaded encoder.

    Returns:
        dict[str, Any]: ``architecture``: arguments of mmpretrain's ``VisionTransformer``; ``normalization``: mean and
        deviation of pixels from 0 to 255 in the order of ``channels``; ``channels``: 'rgb' or 'bgr'; ``image_size``:
        height and width in pixels; ``width`` of a token.
    """
    height, width = encoder.image_size
    backbone = encoder.backbone
    normalization = {name: encoder.preprocessor.get(name) for name in ('mean', 'std')}
    meta = dict(
        architecture={key: backbone[key] for key in _SETTINGS if key in backbone},
        normalization=normalization if any(normalization.values()) else None,
        channels='rgb' if encoder.rgb else 'bgr',
        image_size=[height, width],
        width=encoder.width,
    )
    # Equal texts become one object, whatever the config made of them: pickle writes the two differently.
    return json.loads(json.dumps(meta, sort_keys=True))


def publish_encoder(
    encoder: Encoder,
    config: Config,
    folder: str,
    name: str,
    card: Callable[[str, str], str],
    kind: str = 'pth',
    overwrite: bool = False,
) -> EncoderFile:
    """Write an encoder and its card, as a whole or not at all.

    What was written is read back and compared bit for bit before it gets its name.

    Args:
        encoder (Encoder): A loaded encoder.
        config (Config): The config that it was trained by.
        folder (str): Where to.
        name (str): First part of the files' names; the hash follows.
        card (Callable[[str, str], str]): Makes the text of the card from the file's name and its hash.
        kind (str): 'pth' or 'safetensors'. Defaults to 'pth'.
        overwrite (bool): Whether files of these names may be replaced. Defaults to False.

    Returns:
        EncoderFile: What was written.

    Raises:
        CheckpointError: It cannot be written, or is there already.
    """
    state, meta = encoder_weights(encoder), encoder_meta(encoder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise PublishingError(f'{folder} cannot be made: {error.strerror}') from error
    # With the ending by which it is read back.
    temporary = osp.join(folder, f'.{name}.{os.getpid()}.tmp.{kind}')
    temporary_card = f'{temporary}.md'
    try:
        _write(temporary, state, meta)
        _check(temporary, state, config)
        sha256 = file_hash(temporary)
        stem = osp.join(folder, f'{name}-{sha256[:8]}')
        file = EncoderFile(f'{stem}.{kind}', sha256, f'{stem}.md')
        there = [path for path in (file.path, file.card) if osp.lexists(path)]
        if there and not overwrite:
            raise PublishingError(f'{there[0]} is there already; say --overwrite to replace it')
        with open(temporary_card, 'w', encoding='utf-8') as handle:
            handle.write(card(osp.basename(file.path), sha256))
        os.replace(temporary_card, file.card)
        os.replace(temporary, file.path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer makes the latter of the former
        raise PublishingError(f'{folder} cannot be written to: {str(error).splitlines()[0]}') from error
    finally:
        for path in (temporary, temporary_card):
            if osp.exists(path):
                os.remove(path)
    return file


def _write(path: str, state: Mapping[str, Tensor], meta: dict[str, Any]) -> None:
    if path.endswith('.safetensors'):
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise PublishingError('--format safetensors needs the package safetensors: pip install safetensors') from error
        # One entry: the order of several is not fixed, and with it the hash.
        save_file(dict(state), path, dict(encoder=json.dumps(meta, sort_keys=True)))
        return
    # Into an open file: of a path, PyTorch would write the name into the content.
    with open(path, 'wb') as file:
        # 'grid' is what tools/model_converters/convert.py looks for, where it is no square.
        patch = int(meta['architecture'].get('patch_size', 16))
        grid = 'x'.join(str(side // patch) for side in meta['image_size'])
        torch.save(dict(meta=dict(encoder=meta, grid=grid), state_dict=dict(state)), file)


def _check(path: str, state: Mapping[str, Tensor], config: Config) -> None:
    """Read a file back, and compare it bit for bit with what it was made of."""
    written = read_checkpoint(path).state_dict
    # Bytes, because NaN is not equal to itself.
    wrong = [key for key in state if key not in written or not _same_bits(state[key], written[key])]
    if wrong or len(written) != len(state):
        raise PublishingError(f'what was written is not what was read, for example {(wrong or list(written))[0]}')
    load_encoder(path, config)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))
