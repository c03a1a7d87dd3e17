"""The Markdown page beside a published encoder."""

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmengine.config import Config

from mmmlo.evaluation import Row, to_markdown
from mmmlo.evaluation.encoder import Encoder
from mmmlo.utils.markdown import markdown_table
from mmmlo.version import __version__

from .encoder_file import encoder_meta
from .training_facts import data_rows, method_rows, schedule_rows

__all__ = ['CardFacts', 'make_card']


@dataclass
class CardFacts:
    """What a card says beside what the encoder itself tells.

    Attributes:
        config (Config): The config that the encoder was trained by.
        meta (Mapping): What mmengine wrote into the checkpoint.
        license (str): Terms of use. Defaults to '', which the card says.
        results (Sequence[Row]): Results of evaluations. Those of the checkpoint, and of the published file by itself, stand
            in the card; it says if there are none. Defaults to none.
    """

    config: Config
    meta: Mapping[str, Any]
    license: str = ''
    results: Sequence[Row] = field(default_factory=list)


def make_card(encoder: Encoder, facts: CardFacts, file: str, sha256: str) -> str:
    """Write the card.

    Args:
        encoder (Encoder): The encoder.
        facts (CardFacts): How it was trained and what it reaches.
        file (str): Name of the published file.
        sha256 (str): Its hash.

    Returns:
        str: Markdown. It names no folder of the machine that it was made on.
    """
    name = osp.splitext(file)[0]
    blocks = [
        f'# {name}',
        f'The encoder of a masked autoencoder, pretrained by {encoder.method}: a vision transformer that turns an image of '
        f'{encoder.image_size[0]} x {encoder.image_size[1]} pixels into tokens of width {encoder.width}. Decoder, masking '
        'network and heads are not in the file.',
        '## Encoder',
        _table(_encoder_rows(encoder)),
        '## Pretraining',
        _table([('data', text) if not levels else (f'data of {levels}', text) for levels, text in data_rows(facts.config)]
               + method_rows(facts.config, encoder.method) + schedule_rows(facts.config, facts.meta)),
        '## Results',
        _results([row for row in facts.results if row.sha256 in (encoder.sha256, sha256)], name),
        '## Use',
        _use(file, encoder),
        '## Files',
        _table([
            (f'sha256 of {file}', f'`{sha256}`'),
            ('sha256 of the checkpoint that it was made of', f'`{encoder.sha256}`'),
            ('published with', f'mmmlo {__version__}, torch {torch.__version__.split("+")[0]}'),
        ]),
        '## License',
        facts.license or 'Not stated. Ask whoever published the file.',
    ]
    return '\n\n'.join(blocks) + '\n'


def _encoder_rows(encoder: Encoder) -> list[tuple[str, str]]:
    meta = encoder_meta(encoder)
    parameters = sum(p.numel() for p in encoder.model.get_submodule('backbone').parameters())
    rows = [(name, f'`{value}`') for name, value in meta['architecture'].items()]
    rows.append(('parameters', f'{parameters:,}'))
    rows.append(('order of channels', 'red, green, blue' if encoder.rgb else 'blue, green, red'))
    pixels = meta['normalization']
    if pixels is None:
        rows.append(('normalization of pixels', 'none: values from 0 to 255'))
    else:
        rows += [(f'{word} of pixels from 0 to 255, in that order', f'{pixels[key]}')
                 for key, word in (('mean', 'mean'), ('std', 'deviation'))]
    return rows


def _results(rows: Sequence[Row], name: str) -> str:
    if not rows:
        return 'None were measured of this encoder when it was published.'
    # The checkpoint goes by the name of what was made of it, and no path is told.
    named = [replace(row, label=name, checkpoint=osp.basename(row.checkpoint)) for row in rows]
    return re.sub(r'^#', '##', to_markdown(named).strip(), flags=re.MULTILINE)


def _use(file: str, encoder: Encoder) -> str:
    read = (f"from safetensors.torch import load_file\nstate_dict = load_file('{file}')" if file.endswith('.safetensors')
            else f"import torch\nstate_dict = torch.load('{file}', weights_only=True)['state_dict']")
    pretrained = f"init_cfg=dict(type='Pretrained', checkpoint='{file}', prefix='backbone.')"
    return f"""In a config of mmmlo, mmpretrain, mmsegmentation or mmdetection, whose backbone has the settings above:

```shell
python tools/train.py CONFIG --backbone {file}
```

or, in the config itself, `model.backbone.{pretrained}`.

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
```"""


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return markdown_table([('what', 'value'), *rows], left=(0, 1), markup=True)
