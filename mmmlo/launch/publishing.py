"""Files that can be handed on: an encoder alone, in a file whose name tells its content, and the card that describes it."""

import json
import os
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from mmmlo.evaluation import Row, to_markdown
from mmmlo.evaluation.encoder import ARCHITECTURE, Encoder, load_encoder
from mmmlo.utils.checkpoints import CheckpointError, file_hash, read_checkpoint
from mmmlo.utils.config import is_multi_level
from mmmlo.utils.key_report import backbone_prefix, cut_prefix
from mmmlo.utils.markdown import markdown_table
from mmmlo.version import __version__

__all__ = ['FORMATS', 'EncoderFile', 'PublishingError', 'publish_encoder']

FORMATS = ('pth', 'safetensors')
# What says how the encoder computes; the rest of the backbone's config is about training, or ours alone.
_SETTINGS = (*ARCHITECTURE, 'layer_scale_init_value', 'final_norm', 'with_cls_token')

_CARD = """# {name}

The encoder of a masked autoencoder, pretrained by {method}: a vision transformer that turns an image of {height} x {width}
pixels into tokens of width {embed_dims}. Decoder, masking network and heads are not in the file.

## Encoder

{encoder}

## Pretraining

{training}

## Results

{results}

## Use

In a config of mmmlo, mmpretrain, mmsegmentation or mmdetection, whose backbone has the settings above:

```shell
python tools/train.py CONFIG --backbone {file}
```

or, in the config itself, `model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{file}', prefix='backbone.')`.

To measure it, with CONFIG a config of the same encoder and normalization:

```shell
python tools/evaluate.py {file} --config CONFIG --data cifar10 --protocols knn linear
```

In timm:

```shell
python tools/model_converters/convert.py {file} encoder.safetensors --to timm
```

In plain PyTorch; the names are those of mmpretrain's `VisionTransformer`, after `backbone.`:

```python
{read}
state_dict = {{key.removeprefix('backbone.'): value for key, value in state_dict.items()}}
```

## Files

{files}

## License

{license}
"""
# How plain PyTorch reads the file.
_READ = {
    '.pth': "import torch\nstate_dict = torch.load('{file}', weights_only=True)['state_dict']",
    '.safetensors': "from safetensors.torch import load_file\nstate_dict = load_file('{file}')",
}


class PublishingError(CheckpointError):
    """An encoder that cannot be published, or not there."""


class EncoderFile(NamedTuple):
    """A published file, the SHA-256 of its content, in whose first eight digits its name ends, and its model card."""

    path: str
    sha256: str
    card: str


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
) -> EncoderFile:
    """Write an encoder and its card, as a whole or not at all.

    What was written is read back and compared bit for bit before it gets its name. The file says nothing about the training,
    so that one encoder always makes one file; that stands in the card, which names no folder of the machine.

    Args:
        encoder (Encoder): A loaded encoder.
        config (Config): The config that it was trained by.
        meta (Mapping): What mmengine wrote into the checkpoint.
        folder (str): Where to.
        name (str): First part of the files' names; the hash follows.
        license (str): Terms of use. Defaults to '', which the card says.
        results (Sequence[Row]): Results of evaluations; those of the checkpoint and of the published file stand in the card.
        kind (str): 'pth' or 'safetensors'. Defaults to 'pth'.
        overwrite (bool): Whether files of these names may be replaced. Defaults to False.

    Returns:
        EncoderFile: What was written.

    Raises:
        CheckpointError: The config is of another image size than the checkpoint, or the files cannot be written or are there
            already.
    """
    state, settings = _weights(encoder), _encoder_settings(encoder)
    # With the ending by which it is read back.
    temporary = osp.join(folder, f'.{name}.{os.getpid()}.tmp.{kind}')
    temporary_card = f'{temporary}.md'
    try:
        os.makedirs(folder, exist_ok=True)
        _write(temporary, state, settings)
        _check(temporary, state, config)
        sha256 = file_hash(temporary)
        stem = osp.join(folder, f'{name}-{sha256[:8]}')
        file = EncoderFile(f'{stem}.{kind}', sha256, f'{stem}.md')
        there = [path for path in (file.path, file.card) if osp.lexists(path)]
        if there and not overwrite:
            raise PublishingError(f'{there[0]} is there already; say --overwrite to replace it')
        with open(temporary_card, 'w', encoding='utf-8') as handle:
            handle.write(_card(encoder, settings, config, meta, file, license, results))
        os.replace(temporary_card, file.card)
        os.replace(temporary, file.path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer makes the latter of the former
        raise PublishingError(f'{folder} cannot be written to: {str(error).splitlines()[0]}') from error
    finally:
        for path in (temporary, temporary_card):
            if osp.exists(path):
                os.remove(path)
    return file


def _weights(encoder: Encoder) -> dict[str, Tensor]:
    """Contiguous copies, so that nothing else of the checkpoint's storages is written, in the order of the model."""
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


def _write(path: str, state: Mapping[str, Tensor], settings: dict[str, Any]) -> None:
    if path.endswith('.safetensors'):
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise PublishingError('--format safetensors needs the package safetensors: pip install safetensors') from error
        # One entry: the order of several is not fixed, and with it the hash.
        save_file(dict(state), path, dict(encoder=json.dumps(settings, sort_keys=True)))
        return
    # Into an open file: of a path, PyTorch would write the name into the content.
    with open(path, 'wb') as file:
        # 'grid' is what tools/model_converters/convert.py looks for, where it is no square.
        patch = int(settings['architecture'].get('patch_size', 16))
        grid = 'x'.join(str(side // patch) for side in settings['image_size'])
        torch.save(dict(meta=dict(encoder=settings, grid=grid), state_dict=dict(state)), file)


def _check(path: str, state: Mapping[str, Tensor], config: Config) -> None:
    """Read a file back, and compare it bit for bit with what it was made of."""

    def bits(tensor: Tensor) -> Tensor:  # because NaN is not equal to itself
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    written = read_checkpoint(path).state_dict
    same = {
        key: key in written and (value.dtype, value.shape) == (written[key].dtype, written[key].shape)
        and torch.equal(bits(value), bits(written[key]))
        for key, value in state.items()
    }
    if not all(same.values()) or len(written) != len(state):
        wrong = [key for key, value in same.items() if not value] or list(written)
        raise PublishingError(f'what was written is not what was read, for example {wrong[0]}')
    load_encoder(path, config)


def _card(
    encoder: Encoder, settings: dict, cfg: Config, meta: Mapping, file: EncoderFile, license: str, results: Sequence[Row]
) -> str:
    base = osp.basename(file.path)
    name, kind = osp.splitext(base)
    pixels = settings['normalization']
    about = {key: f'`{value}`' for key, value in settings['architecture'].items()}
    about['parameters'] = f'{sum(p.numel() for p in encoder.model.get_submodule("backbone").parameters()):,}'
    about['order of channels'] = 'red, green, blue' if encoder.rgb else 'blue, green, red'
    about['mean of pixels from 0 to 255, in that order'] = pixels['mean'] if pixels else 'not normalized'
    about['deviation of pixels from 0 to 255, in that order'] = pixels['std'] if pixels else 'not normalized'
    # The checkpoint goes by the name of what was made of it, and no path is told.
    rows = [
        replace(row, label=name, checkpoint=osp.basename(row.checkpoint))
        for row in results if row.sha256 in (encoder.sha256, file.sha256)
    ]
    found = re.sub(r'^#', '##', to_markdown(rows).strip(), flags=re.MULTILINE)
    return _CARD.format(
        name=name,
        method=encoder.method,
        height=encoder.image_size[0],
        width=encoder.image_size[1],
        embed_dims=encoder.width,
        encoder=_table(list(about.items())),
        training=_table([*_data_rows(cfg), *_method_rows(cfg, encoder.method), *_schedule_rows(cfg, meta)]),
        results=found if rows else 'None were measured of this encoder when it was published.',
        file=base,
        read=_READ[kind].format(file=base),
        files=_table([
            (f'sha256 of {base}', f'`{file.sha256}`'),
            ('sha256 of the checkpoint that it was made of', f'`{encoder.sha256}`'),
            ('published with', f'mmmlo {__version__}, torch {torch.__version__.split("+")[0]}'),
        ]),
        license=license or 'Not stated. Ask whoever published the file.',
    )


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    return markdown_table([('what', 'value'), *((name, str(value)) for name, value in rows)], left=(0, 1), markup=True)


def _data_rows(cfg: Config) -> list[tuple[str, str]]:
    """The data of each level; levels of the same data in one row."""
    first = next(iter((cfg.get('optim_wrapper') or {}).get('levels') or ['']))
    loader = cfg.get('train_dataloader')
    # A name in place of a config says that the level shares another's batches.
    others = (cfg.get('train_cfg') or {}).get('dataloaders') or {}
    loaders = {first: loader} | {level: loader if isinstance(own, str) else own for level, own in others.items()}
    texts: dict[str, list[str]] = {}
    for level, own in loaders.items() if loader else ():
        texts.setdefault(_describe_dataset(own.get('dataset') or {}), []).append(level)
    return [(f'data of {", ".join(levels)}'.removesuffix(' of '), text) for text, levels in texts.items()]


def _describe_dataset(dataset: Mapping[str, Any]) -> str:
    """As in 'CIFAR10 (cifar10), split train; part train of train 80 %, val 20 %, cut by seed 0'; of paths, the last part."""
    cuts = []
    while isinstance(dataset.get('dataset'), Mapping):
        if dataset.get('fractions') or dataset.get('part'):
            fractions = dataset.get('fractions') or dict(train=0.8, val=0.2)
            shares = ', '.join(f'{part} {100 * share:g} %' for part, share in fractions.items())
            cuts.append(f'part {dataset.get("part", "train")} of {shares}, cut by seed {dataset.get("seed", 0)}')
        else:
            cuts.append(f'in {_kind(dataset)}')
        dataset = dataset['dataset']
    if isinstance(dataset.get('datasets'), (list, tuple)):
        inner = ' and '.join(_describe_dataset(some) for some in dataset['datasets'])
        return '; '.join([f'{_kind(dataset)} of {inner}', *cuts])
    root, prefix = _last(dataset.get('data_root')), dataset.get('data_prefix')
    split = dataset.get('split') or (_last(prefix) if isinstance(prefix, str) else '')
    split = f'{split} {_last(dataset.get("ann_file"))}'.strip()
    return '; '.join([_kind(dataset) + (f' ({root})' if root else '') + (f', split {split}' if split else ''), *cuts])


def _method_rows(cfg: Config, method: str) -> list[tuple[str, str]]:
    """What was trained, and how the masks came about."""
    model = cfg.get('model') or {}
    rows = [('method', method)]
    if model.get('mask_ratio') is not None or model.get('neck'):
        rows.append(('share of masked patches', f'{model.get("mask_ratio", 0.75):g}'))
    if model.get('masker'):
        rows.append(('masker', _kind(model['masker'])))
    if model.get('bilevel') is not None:
        rows.append(('levels', f'two, downstream loss with weight {model["bilevel"]:g}'))
    for level, wrapper in ((cfg.get('optim_wrapper') or {}).get('levels') or {}).items():
        words = [f'{wrapper.get("steps", 1)} steps a cycle']
        words += [f'every {wrapper["every"]} cycles'] if wrapper.get('every', 1) != 1 else []
        words += [f'from cycle {wrapper["start"]}'] if wrapper.get('start') else []
        words += [_optimizer(wrapper)]
        words += [f'hypergradient along {" and ".join(wrapper["paths"])}'] if wrapper.get('paths') else []
        rows.append((f'level {level}', ', '.join(words)))
    if not is_multi_level(cfg) and cfg.get('optim_wrapper'):
        rows.append(('optimizer', _optimizer(cfg.optim_wrapper)))
    return rows


def _schedule_rows(cfg: Config, meta: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """How long it was trained, on which batches, from which seed, with which versions; what nothing tells is left out."""
    schedule = cfg.get('train_cfg') or {}
    epochs = meta.get('epoch') is not None and schedule.get('max_epochs')
    rows = {
        'steps of the pretrain level' if is_multi_level(cfg) else 'steps': meta.get('iter'),
        'epochs': f'{meta.get("epoch")} of {schedule.get("max_epochs")}' if epochs else None,
        'steps of the whole schedule': None if epochs else schedule.get('max_iters'),
        'images in a batch, on each process': (cfg.get('train_dataloader') or {}).get('batch_size'),
        'seed': meta.get('seed', (cfg.get('randomness') or {}).get('seed')),
        'mmengine while training': str(meta.get('mmengine_version') or '').split('+')[0] or None,
    }
    return [(name, value) for name, value in rows.items() if value is not None]


def _optimizer(wrapper: Mapping[str, Any]) -> str:
    optimizer = wrapper.get('optimizer') or {}
    settings = [f'{name} {optimizer[name]:g}' for name in ('lr', 'weight_decay') if name in optimizer]
    return ' '.join([_kind(optimizer), *settings])


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get('type', 'unknown')
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]


def _last(path: Any) -> str:
    return osp.basename(str(path or '').rstrip('/'))
