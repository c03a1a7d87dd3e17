#!/usr/bin/env python
"""Convert a checkpoint between this project, timm, MAE, the released MLO-MAE and CL-MAE, mmsegmentation and ViTDet.

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
from contextlib import redirect_stdout

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

# mmpretrain prints to the standard output while it is imported.
with redirect_stdout(sys.stderr):
    from mmmlo.converters import FORMATS, Conversion, ConversionError, check_fits, convert, write_file
    from mmmlo.converters.verify import TOLERANCE, verify
    from mmmlo.launch.config import load_config
    from mmmlo.registry import MODELS
    from mmmlo.utils.checkpoints import CheckpointError
    from mmmlo.utils.text import describe_error

# ImageNet's, for a picture; weights of other data agree on it as well.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    names = ', '.join(sorted(FORMATS))
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Position embeddings are resized by the target library's own function: timm's is antialiased, mmpretrain's, "
        "MAE's, mmseg's and ViTDet's are not.",
    )
    parser.add_argument(
        'sources',
        nargs='+',
        metavar='SRC',
        help='the checkpoint; of the released MLO-MAE on CIFAR pretrain.pth, masking.pth and finetune.pth, as far as they '
        'are wanted',
    )
    parser.add_argument('target', metavar='DST', help='the file to write; .safetensors writes that format')
    parser.add_argument('--from', dest='from_', metavar='F', help='format of SRC; default: told by its keys')
    parser.add_argument('--to', required=True, metavar='F', help=f'format of DST: {names}')
    parser.add_argument(
        '--grid', type=int, nargs=2, metavar=('H', 'W'), help='resize the position embeddings to so many patches'
    )
    parser.add_argument(
        '--source-grid',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='their grid in SRC, where it is not square and the file does not tell',
    )
    parser.add_argument(
        '--verify',
        action='store_true',
        help=f"build the other library's model and ours, and compare them on one image; exit 1 above {TOLERANCE:g}",
    )
    parser.add_argument('--image', metavar='FILE', help='the image for --verify; default: noise of a fixed seed')
    parser.add_argument(
        '--config',
        metavar='CONFIG',
        help='a config of this project: SRC must be of the size of its model.backbone, and --verify takes its numbers of '
        'attention heads',
    )
    parser.add_argument(
        '--checkout',
        metavar='DIR',
        help='checkout of the released MLO-MAE or CL-MAE, whose classes --verify then builds, with decoder, masker and head',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it is there')
    return parser.parse_args(argv)


def check_target(args: argparse.Namespace) -> None:
    """Refuse to write over a source, or over any file without --overwrite."""
    if any(osp.exists(args.target) and osp.exists(path) and osp.samefile(path, args.target) for path in args.sources):
        raise ConversionError(f'{args.target} is a source; name another file to write')
    if osp.isdir(args.target):
        raise ConversionError(f'{args.target} is a folder; name a file to write')
    if osp.exists(args.target) and not args.overwrite:
        raise ConversionError(f'{args.target} is there already; say --overwrite to replace it')
    for option in ('grid', 'source_grid'):
        if min(getattr(args, option) or [1]) < 1:
            raise ConversionError(f'--{option.replace("_", "-")} must be positive, got {getattr(args, option)}')


def read_config(path: str) -> Config:
    """Read a config that has a model with a backbone."""
    try:
        cfg = load_config(path)
    except FileNotFoundError as error:
        raise ConversionError(str(error)) from error
    except Exception as error:  # a config is Python
        raise ConversionError(f'{path} cannot be read: {describe_error(error)}') from error
    if 'backbone' not in (cfg.get('model') or {}):
        raise ConversionError(f'{path} has no model.backbone')
    return cfg


def check_config(conversion: Conversion, cfg: Config) -> None:
    """Check that the source is of the size that the config asks for."""
    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    if not hasattr(backbone, 'arch_settings'):
        raise ConversionError(f'{cfg.filename} has a {type(backbone).__name__}, not a VisionTransformer')
    check_fits(conversion.shape, backbone, conversion.report.source, str(cfg.filename))


def make_image(grid: tuple[int, int], patch: int, path: str | None) -> torch.Tensor:
    """An image of a grid's size, 1 x 3 x H x W: noise, or a file."""
    size = grid[0] * patch, grid[1] * patch
    if path is None:
        return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    from mmcv import imread, imresize

    try:
        image = torch.from_numpy(imresize(imread(path, channel_order='rgb'), size[::-1])).permute(2, 0, 1) / 255
    except Exception as error:  # decoders raise anything
        raise ConversionError(f'--image {path} cannot be read: {describe_error(error)}') from error
    return ((image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).unsqueeze(0)


def print_differences(conversion: Conversion, args: argparse.Namespace, cfg: Config | None) -> bool:
    """Print how far the models are apart, and say whether they agree."""
    rows = verify(conversion, lambda grid: make_image(grid, conversion.shape.patch, args.image), cfg, args.checkout)
    for row in rows:
        print(f'verify: {row.output} of {row.format} ({row.classes}) and of mmmlo differ by {row.largest:.1e} at most')
    if not rows:
        print('verify: both formats are ours, so there is nothing to compare')
    return all(row.largest <= TOLERANCE for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert, write, report.

    Returns:
        int: The exit status.
    """
    args = parse_args(argv)
    try:
        check_target(args)
        cfg = read_config(args.config) if args.config else None
        conversion = convert(
            args.sources,
            args.to,
            args.from_,
            tuple(args.grid) if args.grid else None,
            tuple(args.source_grid) if args.source_grid else None,
        )
        if cfg is not None:
            check_config(conversion, cfg)
        print(conversion.report)
        agreed = print_differences(conversion, args, cfg) if args.verify else True
        if not agreed:
            print(f'error: the models differ by more than {TOLERANCE:g}; nothing is written', file=sys.stderr)
            return 1
        write_file(args.target, conversion.state, conversion.target, conversion.meta)
    except CheckpointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'Written: {args.target}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
