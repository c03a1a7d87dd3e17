"""Files that can be handed on: an encoder alone, in a file whose name tells its content, and the card that describes it."""

import hashlib
import io
import json
import os
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pprint import pformat
from typing import Any

import torch
from mmengine.config import Config

from mmmlo.evaluation import Row, to_markdown
from mmmlo.evaluation.encoder import ARCHITECTURE, Encoder
from mmmlo.utils.checkpoints import CheckpointError
from mmmlo.utils.text import describe_error
from mmmlo.utils.whole_file import replace_whole, write_whole
from mmmlo.version import __version__

__all__ = ['publish_encoder']

# What says how the encoder computes; the rest of the backbone's config is about training, or ours alone.
_SETTINGS = (*ARCHITECTURE, 'layer_scale_init_value', 'final_norm', 'with_cls_token')
_TRAINING = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr')

_CARD = """# {name}

The encoder of a masked autoencoder, pretrained by {method}: a vision transformer that turns an image of {height} x {width}
pixels into tokens of width {embed_dims}. Decoder, masking network and heads are not in the file.

## Encoder

{parameters:,} parameters. Mean and deviation are of pixels from 0 to 255, in the order of `channels`.

```python
{encoder}
```

## Pretraining

{length}, with this config, whose pipelines are left out and of whose paths the last part is shown:

```python
{training}
```

## Results

{results}

## Use

CONFIG is one of mmmlo, mmpretrain, mmsegmentation or mmdetection, whose backbone has the settings above:

```shell
python tools/train.py CONFIG --backbone {file}
python tools/evaluate.py {file} --config CONFIG --data cifar10 --protocols knn linear
python tools/model_converters/convert.py {file} encoder.safetensors --to timm
```

or, in a config, `model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{file}', prefix='backbone.')`.
In plain PyTorch `torch.load('{file}', weights_only=True)['state_dict']`, or `safetensors.torch.load_file`; names are those
of mmpretrain's `VisionTransformer`, after `backbone.`

## Files

- `{file}`: SHA-256 `{sha256}`
- the checkpoint that it was made of: SHA-256 `{source}`

Published with mmmlo {version}, torch {torch}.

## License

{license}
"""


def publish_encoder(
    encoder: Encoder,
    config: Config,
    meta: Mapping[str, Any],
    folder: str,
    name: str,
    license: str = '',
    results: Sequence[Row] = (),
    kind: str = 'pth',
    overwrite: bool = False,
) -> str:
    """Write an encoder to ``<name>-<start of its SHA-256>.<kind>``, and its card, of the same name, beside it.

    The file says nothing about the training, so that one encoder always makes one file; that stands in the card.

    Args:
        encoder (Encoder): A loaded encoder.
        config (Config): The config that it was trained by.
        meta (Mapping): What mmengine wrote into the checkpoint.
        folder (str): Where to.
        name (str): First part of the files' names.
        license (str): Terms of use. Defaults to '', not stated.
        results (Sequence[Row]): Of these, those of the checkpoint and of the published file stand in the card.
        kind (str): 'pth' or 'safetensors'. Defaults to 'pth'.
        overwrite (bool): Whether files of these names may be replaced. Defaults to False.

    Returns:
        str: The path of the file; that of the card ends in ``.md``.

    Raises:
        CheckpointError: The config is of another image size than the checkpoint, or the files cannot be written or are there
            already.
    """
    if encoder.report.resized:
        key, (theirs, ours) = next(iter(encoder.report.resized.items()))
        raise CheckpointError(
            f'{key} of {encoder.path} has shape {theirs}, and {ours} in the config; an encoder is published as it was '
            'trained, so give the config that it was trained by'
        )
    settings = _encoder_settings(encoder)
    content = _serialize(encoder, settings, kind)
    sha256 = hashlib.sha256(content).hexdigest()
    path, card = (osp.join(folder, f'{name}-{sha256[:8]}.{ending}') for ending in (kind, 'md'))
    there = [file for file in (path, card) if osp.lexists(file)]
    if there and not overwrite:
        raise CheckpointError(f'{there[0]} is there already; say --overwrite to replace it')
    text = _card(encoder, settings, config, meta, osp.basename(path), sha256, license, results)
    try:
        os.makedirs(folder, exist_ok=True)
        with replace_whole(path) as temporary, open(temporary, 'wb') as file:
            file.write(content)
        write_whole(card, text)
    except OSError as error:
        raise CheckpointError(f'{folder} cannot be written to: {describe_error(error)}') from error
    return path


def _encoder_settings(encoder: Encoder) -> dict[str, Any]:
    """What one must know to use the weights, as plain values; docs/sharing.md describes them."""
    normalization = {name: encoder.preprocessor.get(name) for name in ('mean', 'std')}
    settings = dict(
        architecture={key: encoder.backbone[key] for key in _SETTINGS if key in encoder.backbone},
        normalization=normalization if any(normalization.values()) else None,
        channels='rgb' if encoder.rgb else 'bgr',
        image_size=list(encoder.image_size),
        width=encoder.width,
    )
    # Equal texts become one object, whatever the config made of them: pickle writes the two differently.
    return json.loads(json.dumps(settings, sort_keys=True))


def _serialize(encoder: Encoder, settings: dict[str, Any], kind: str) -> bytes:
    """The content of the file, in which the order of weights is that of the model."""
    weights = encoder.model.get_submodule('backbone').state_dict()
    state = {f'backbone.{key}': weights[key].contiguous() for key in encoder.report.matched}
    if kind == 'safetensors':
        from safetensors.torch import save

        # One entry: the order of several is not fixed, and with it the hash.
        return save(state, dict(encoder=json.dumps(settings, sort_keys=True)))
    # 'grid' is what tools/model_converters/convert.py looks for, where it is no square.
    patch = int(settings['architecture'].get('patch_size', 16))
    grid = 'x'.join(str(side // patch) for side in settings['image_size'])
    file = io.BytesIO()
    torch.save(dict(meta=dict(encoder=settings, grid=grid), state_dict=state), file)
    return file.getvalue()


def _card(
    encoder: Encoder, settings: dict, cfg: Config, meta: Mapping, file: str, sha256: str, license: str, rows: Sequence[Row]
) -> str:
    name = osp.splitext(file)[0]
    training = _without_paths({key: cfg[key] for key in _TRAINING if key in cfg})
    # The checkpoint goes by the name of what was made of it, and no path is told.
    rows = [
        replace(row, label=name, checkpoint=osp.basename(row.checkpoint))
        for row in rows if row.sha256 in (encoder.sha256, sha256)
    ]
    found = re.sub(r'^#', '##', to_markdown(rows).strip(), flags=re.MULTILINE)
    return _CARD.format(
        name=name,
        method=encoder.method,
        height=encoder.image_size[0],
        width=encoder.image_size[1],
        embed_dims=encoder.width,
        parameters=sum(p.numel() for p in encoder.model.get_submodule('backbone').parameters()),
        encoder=pformat(settings, width=110, sort_dicts=False),
        length=f'{meta.get("iter", "an unknown number of")} iterations, from seed {meta.get("seed")}',
        training=pformat(training, width=110, sort_dicts=False),
        results=found if rows else 'None were measured of this encoder when it was published.',
        file=file,
        sha256=sha256,
        source=encoder.sha256,
        version=__version__,
        torch=torch.__version__.split('+')[0],
        license=license or 'Not stated. Ask whoever published the file.',
    )


def _without_paths(node: Any) -> Any:
    """The settings without pipelines; of a path, its last part."""
    if isinstance(node, Mapping):
        return {key: _without_paths(value) for key, value in node.items() if key != 'pipeline'}
    if isinstance(node, list | tuple):
        return [_without_paths(value) for value in node]
    return osp.basename(node.rstrip('/')) if isinstance(node, str) else node
