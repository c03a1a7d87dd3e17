#!/usr/bin/env python
"""Convert a checkpoint between this project, timm, MAE, the released MLO-MAE and CL-MAE, transformers and others.

    python tools/model_converters/convert.py mae_pretrain_vit_base.pth mae_vit-base-p16.pth --to mmmlo --verify
    python tools/model_converters/convert.py work_dirs/cl_mae/epoch_50.pth encoder.safetensors --to timm

Prints what became of every key. docs/converters.md has a table of the formats and how to load the result.

Exit status: 0; 1 if --verify finds a difference above 1e-4; 2, and nothing written, for wrong usage or a file that cannot be
converted.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from functools import partial

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.process import Parser, run, start

TOLERANCE = 1e-4


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        __doc__,
        epilog="Position embeddings are resized by the target library's own function: timm's alone is antialiased.",
    )
    add = parser.add_argument
    add('sources', nargs='+', metavar='SRC', help='the checkpoint; of the released MLO-MAE on CIFAR pretrain.pth, '
        'masking.pth and finetune.pth, as far as they are wanted')
    add('target', metavar='DST', help='the file to write; .safetensors writes that format')
    add('--key', metavar='NAME', help='which encoder of several in SRC, such as teacher')
    add('--from', dest='from_', metavar='F', help='format of SRC; default: told by its keys')
    add('--to', required=True, metavar='F', help='format of DST, such as timm; docs/converters.md has all')
    add('--grid', type=int, nargs=2, metavar=('H', 'W'), help='resize the position embeddings to so many patches')
    add('--source-grid', type=int, nargs=2, metavar=('H', 'W'),
        help='their grid in SRC, where it is not square and the file does not tell')
    add('--verify', action='store_true',
        help=f"build the other library's encoder and ours, and compare them on noise; exit 1 above {TOLERANCE:g}")
    add('--heads', type=int, metavar='N', help='attention heads of a block, for --verify; default: by its width')
    add('--overwrite', action='store_true', help='replace DST if it is there')
    return parser.read(argv, grid=1, source_grid=1, heads=1)


start(__name__, parse_args)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmmlo.converters import Conversion, ConversionError, convert, write_file
from mmmlo.utils.text import describe_error


def check_target(args: argparse.Namespace) -> None:
    """Refuse to write over a source, or over any file without --overwrite."""
    if any(osp.exists(args.target) and osp.exists(path) and osp.samefile(path, args.target) for path in args.sources):
        raise ConversionError(f'{args.target} is a source; name another file to write')
    if osp.isdir(args.target):
        raise ConversionError(f'{args.target} is a folder; name a file to write')
    if osp.exists(args.target) and not args.overwrite:
        raise ConversionError(f'{args.target} is there already; say --overwrite to replace it')


def their_outputs(name: str, state: dict[str, Tensor], image: Tensor, sizes: dict[str, int]) -> dict[str, Tensor]:
    """What the other library's encoder computes with a file's weights: tokens, and logits where there is a head."""
    size, mlp_ratio = tuple(image.shape[2:]), sizes['hidden'] / sizes['width']
    kwargs = dict(img_size=size, patch_size=sizes['patch'], num_heads=sizes['heads'])
    if name == 'mmseg-mae':
        from mmseg.models.backbones import MAE

        model = MAE(
            embed_dims=sizes['width'], num_layers=sizes['depth'], mlp_ratio=int(mlp_ratio), init_values=1.0,
            norm_cfg=dict(type='LN', eps=1e-6), final_norm='ln1.weight' in state, in_channels=sizes['channels'], **kwargs,
        )
        missing, unexpected = model.load_state_dict(state, strict=False)
        # What mmseg makes by itself is neutral: scales of 1, relative positions of 0.
        missing = [key for key in missing if 'gamma_' not in key and 'relative_position_' not in key]
        if missing or unexpected:
            raise ConversionError(f"mmseg's MAE lacks {missing} and does not know {unexpected}")
        model.double().eval()  # which it does not return
        return {'patch tokens': model(image)[-1].flatten(2).transpose(1, 2)}

    from timm.models import VisionTransformer

    beside = ('decoder_', 'mask_token', 'masking_', 'finetune_module.')
    state = {key: value for key, value in state.items() if not key.startswith(beside)}
    if 'fc_norm.weight' in state:
        kwargs.update(global_pool='avg')
    model = VisionTransformer(
        embed_dim=sizes['width'], depth=sizes['depth'], mlp_ratio=mlp_ratio, norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=len(state.get('head.weight', ())), init_values=1.0 if 'blocks.0.ls1.gamma' in state else None,
        weight_init='skip', in_chans=sizes['channels'], **kwargs,
    )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConversionError(f"timm's VisionTransformer does not take these weights: {describe_error(error)}") from error
    tokens = model.double().eval().forward_features(image)
    return {'tokens': tokens} | ({'logits': model.forward_head(tokens)} if 'head.weight' in state else {})


def our_outputs(state: dict[str, Tensor], image: Tensor, sizes: dict[str, int]) -> dict[str, Tensor]:
    """The same of mmpretrain's encoder, with the weights under our names."""
    from mmpretrain.models import VisionTransformer

    own = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    # ln2, the norm on the mean of the patches, belongs to the head here.
    weights = {key: value for key, value in own.items() if not key.startswith(('ln2.', 'grid'))}
    model = VisionTransformer(
        arch=dict(
            embed_dims=sizes['width'], num_layers=sizes['depth'], num_heads=sizes['heads'],
            feedforward_channels=sizes['hidden'],
        ),
        img_size=tuple(image.shape[2:]), patch_size=sizes['patch'], in_channels=sizes['channels'], out_type='raw',
        final_norm='ln1.weight' in weights, layer_scale_init_value=float('layers.0.attn.gamma1.weight' in weights),
    )
    model.load_state_dict(weights)
    model.double().eval()  # which it does not return
    tokens = model(image)[-1]
    outputs = {'tokens': tokens, 'patch tokens': tokens[:, 1:]}
    if 'head.fc.weight' in state:
        features = tokens[:, 0]
        if 'ln2.weight' in own:
            mean = tokens[:, 1:].mean(dim=1)
            features = F.layer_norm(mean, mean.shape[1:], own['ln2.weight'].double(), own['ln2.bias'].double(), 1e-6)
        outputs['logits'] = F.linear(features, state['head.fc.weight'].double(), state['head.fc.bias'].double())
    return outputs


@torch.no_grad()
def verify(conversion: Conversion, heads: int | None) -> float:
    """Compare the encoders of source and target with ours, each on its own grid, and return the largest difference."""
    sizes = conversion.shape._asdict()
    width = sizes['width']
    if width % (heads or 64):
        raise ConversionError(f'--verify needs a number of attention heads, by which width {width} is divided: --heads N')
    # Heads are 64 wide, but in mmpretrain's huge, giant and gigantic.
    sizes['heads'] = heads or (16 if width in (1280, 1408, 1664) else width // 64)
    largest = [0.0]
    for name, theirs, ours, grid in (
        (conversion.source.name, conversion.given, conversion.read, conversion.old_grid),
        (conversion.target.name, conversion.state, conversion.ours, conversion.grid),
    ):
        if name == 'mmmlo':
            continue
        size = (grid[0] * sizes['patch'], grid[1] * sizes['patch'])
        pixels = torch.randn(1, sizes['channels'], *size, generator=torch.Generator().manual_seed(0)).double()
        expected = our_outputs(ours, pixels, sizes)
        for output, value in their_outputs(name, theirs, pixels, sizes).items():
            largest.append((value - expected[output]).abs().max().item())
            whose = "mmseg's MAE" if name == 'mmseg-mae' else "timm's VisionTransformer"
            print(f'verify: {output} of {name} ({whose}) and of mmmlo differ by {largest[-1]:.1e} at most')
    if len(largest) == 1:
        print('verify: both formats are ours, so there is nothing to compare')
    return max(largest)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert, write, report; return the exit status."""
    args = parse_args(argv)
    check_target(args)
    grids = (tuple(grid) if grid else None for grid in (args.grid, args.source_grid))
    conversion = convert(args.sources, args.to, args.from_, *grids, args.key)
    print(conversion.report)
    if args.verify and verify(conversion, args.heads) > TOLERANCE:
        print(f'error: the models differ by more than {TOLERANCE:g}; nothing is written', file=sys.stderr)
        return 1
    write_file(args.target, conversion.state, conversion.target, conversion.meta)
    print(f'Written: {args.target}')
    return 0


if __name__ == '__main__':
    run(main, status=2)
