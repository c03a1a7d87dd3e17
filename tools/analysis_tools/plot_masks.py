#!/usr/bin/env python
"""Draw masks: a row an image, a column a checkpoint, with mean score, overlap and saturation below each column.

    python tools/analysis_tools/plot_masks.py work_dirs/mae/epoch_20.pth work_dirs/mlo_mae/epoch_20.pth --images DIR

Columns are a training's checkpoints one after another, or methods side by side. A cell shows the heat map of ``mask_prob``,
the visible patches and the reconstruction. docs/evaluation.md says how to read it.

A checkpoint of mmengine's holds its config. Its test pipeline prepares the images, which are then resized to the size that
the model is built for, and its ``data_preprocessor`` normalizes them. A config is Python code, the one in a
checkpoint too: open only those that you trust.

Exit status: 0; or 2, and nothing written, for wrong usage.
"""

import argparse
import json
import os
import os.path as osp
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, and check what can be checked without opening a file."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='a column each')
    add('--images', required=True, metavar='DIR', help='folder of images; folders in it are looked into')
    add('--configs', nargs='+', metavar='CONFIG', help='one config for all checkpoints, or one for each; default: their own')
    add('--labels', nargs='+', metavar='NAME', help='titles of the columns; default: the paths below a common folder')
    add('--count', type=int, default=6, metavar='N', help='images that are shown; default: 6')
    add('--statistics-count', type=int, default=64, metavar='M',
        help='images that the numbers are measured on, those shown among them; two at least; default: 64')
    add('--out', default='masks.png', metavar='FILE', help='the picture; default: masks.png')
    add('--seed', type=int, default=0, help='seed of the choice of images and of random masks')
    add('--json', metavar='FILE', help='write the numbers here as JSON; - is the standard output')
    args = parser.read(argv, count=1, statistics_count=2)
    number = len(args.checkpoints)
    if args.configs and len(args.configs) not in (1, number):
        parser.error(f'--configs takes one config or one for each of the {number} checkpoints, got {len(args.configs)}')
    if args.labels and len(args.labels) != number:
        parser.error(f'--labels takes one for each of the {number} checkpoints, got {len(args.labels)}')
    for option, path in (('--out', args.out), ('--json', args.json or '-')):
        if osp.isdir(path):
            parser.error(f'{option} {path} is a folder')
    return args


start(__name__, parse_args)

import torch
from matplotlib.figure import Figure
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmmlo.datasets import EXTENSIONS, LoadImage, find_images
from mmmlo.evaluation.encoder import checkpoint_config
from mmmlo.launch.config import load_config
from mmmlo.models.selfsup.base import BaseMaskedAutoencoder
from mmmlo.registry import MODELS, TRANSFORMS
from mmmlo.utils.checkpoints import CheckpointError, read_checkpoint
from mmmlo.utils.errors import SettingError
from mmmlo.utils.text import default_labels, describe_error, format_list
from mmmlo.visualization import mask_column, plot_mask_table


def load(path: str, config: str | None, label: str) -> tuple[BaseMaskedAutoencoder, 'Pipeline', dict[str, Any]]:
    """Build a checkpoint's model with its weights and the pipeline of its images; and what it is, for the report."""
    checkpoint = read_checkpoint(path)
    try:
        cfg = checkpoint_config(path, checkpoint) if config is None else load_config(config)
    except CheckpointError as error:
        raise SettingError(f'{error}; give it by --configs') from error
    whose = config or f'the config in {path}'
    if cfg.get('model') is None:
        raise SettingError(f'{whose} has no model')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        model = MODELS.build(cfg.model)
    except Exception as error:  # whatever a model's own code raises
        raise SettingError(f'the model of {whose} cannot be built: {describe_error(error)}') from error
    if not isinstance(model, BaseMaskedAutoencoder):
        raise SettingError(f'{whose} has a {type(model).__name__}, not a masked autoencoder of this project')
    _load_weights(model, checkpoint.state_dict, path, whose)
    facts = dict(
        checkpoint=path,
        label=label,
        model=type(model).__name__,
        masker=type(model.masker).__name__,
        grid=list(model.backbone.grid_size),
        mask_ratio=model.mask_ratio,
        norm_pix=model.head.norm_pix,
        iteration=checkpoint.meta.get('iter'),
    )
    return model, Pipeline(cfg, whose, model.backbone), facts


def _load_weights(model: BaseMaskedAutoencoder, state: dict[str, torch.Tensor], path: str, whose: str) -> None:
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise SettingError(f'the weights in {path} do not fit {whose}: {format_list(lines[1:] or lines)}') from error
    # Other modules of the training, a head or an average, are not missed here. But random masks in place of a learned
    # masker's would be taken for its own.
    masker = [name for name in unexpected if name.startswith('masker.')]
    if missing or masker:
        raise SettingError(
            f'the weights in {path} do not fit {whose}: it lacks {format_list(missing) or "none"}, and has no place for '
            f'{format_list(masker) or "none"}'
        )


class Pipeline:
    """A config's test pipeline on the files of any folder, resized to what a backbone is built for.

    Attributes:
        key (str): Pipelines of one key do the same.
        bgr (bool): Whether the images that come out have their channels in OpenCV's order.
    """

    def __init__(self, cfg: Config, whose: str, backbone: Any) -> None:
        transforms = self._find(cfg, whose)
        size = [cells * backbone.patch_size for cells in backbone.grid_size]
        self.key = f'{size} {transforms}'
        try:
            built = [TRANSFORMS.build(transform) for transform in transforms]
        except Exception as error:  # whatever a transform's own code raises
            raise SettingError(f'the test pipeline of {whose} cannot be built: {describe_error(error)}') from error
        loaders = [i for i, transform in enumerate(built) if isinstance(transform, LoadImageFromFile)]
        packers = [i for i, transform in enumerate(built) if isinstance(transform, TRANSFORMS.get('mmpretrain.PackInputs'))]
        if not packers:
            raise SettingError(f'the test pipeline of {whose} has no PackInputs, which makes the tensors of a batch')
        # Pillow, because OpenCV does not average where it shrinks. At the right size this changes nothing.
        resize = dict(type='mmpretrain.Resize', scale=(size[1], size[0]), backend='pillow', interpolation='bicubic')
        built.insert(packers[-1], TRANSFORMS.build(resize))
        # mmcv's loaders return BGR whatever decodes. Datasets that hold arrays, CIFAR and the digits, return RGB.
        self.bgr = bool(loaders)
        self.loader = built[loaders[0]] if loaders else LoadImage()
        self.transforms = built[loaders[0] + 1:] if loaders else built

    @staticmethod
    def _find(cfg: Config, whose: str) -> list[dict]:
        for name in ('test_dataloader', 'val_dataloader'):
            dataset = (cfg.get(name) or {}).get('dataset')
            while dataset is not None:
                if dataset.get('pipeline') is not None:
                    return [dict(transform) for transform in dataset['pipeline']]
                dataset = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
        raise SettingError(f'{whose} has neither a test_dataloader nor a val_dataloader with a pipeline for the images')

    def __call__(self, path: str) -> torch.Tensor:
        """Read and prepare a file, 3 x H x W in uint8, or raise an error of any kind."""
        results = self.loader(dict(img_path=path))
        if results is None:  # ignore_empty
            raise ValueError('cannot be decoded')
        if not self.bgr:
            results['img'] = results['img'][..., ::-1].copy()
        for transform in self.transforms:
            results = transform(results)
        return results['inputs']


def load_images(
    folder: str, pipelines: dict[str, Pipeline], count: int, total: int, seed: int
) -> tuple[list[str], dict[str, torch.Tensor], dict[str, str]]:
    """Choose images by the seed and prepare them in every way that the models need.

    A file that one of the pipelines cannot read is left out of all columns, and the next one takes its place.

    Returns:
        tuple: Paths below the folder of those shown, sorted; key of a pipeline -> the images, B x 3 x H x W, those shown
        first; files that are no images -> why.
    """
    if not osp.isdir(folder):
        raise SettingError(f'--images: there is no folder {folder}')
    names = find_images(folder, with_label=False)[0]['']
    if not names:
        raise SettingError(f'--images: {folder} and the folders in it hold no image ({", ".join(EXTENSIONS)})')
    skipped: dict[str, str] = {}
    chosen: list[tuple[str, dict[str, torch.Tensor]]] = []
    for name in random.Random(seed).sample(names, len(names)):
        if len(chosen) == max(count, total):
            break
        path = osp.join(folder, name)
        try:
            chosen.append((name, {key: pipeline(path) for key, pipeline in pipelines.items()}))
        except Exception as error:  # decoders and transforms raise anything
            reason = describe_error(error.__cause__ or error)
            skipped[path] = 'it cannot be read' if path in reason else reason
    if len(chosen) < 2:
        broken = f'; {len(skipped)} cannot be read, such as {min(skipped)}' if skipped else ''
        found = f'{len(chosen)} image' if chosen else 'no image that can be read'
        raise SettingError(f'--images: {folder} holds {found}, two are needed for an overlap{broken}')
    chosen[:count] = sorted(chosen[:count], key=lambda one: one[0])
    tensors = {key: torch.stack([images[key] for _, images in chosen]) for key in pipelines}
    return [name for name, _ in chosen[:count]], tensors, skipped


def note(report: dict) -> str:
    """The small print of the picture: what the numbers are, and what is not the model's own."""
    chances = sorted({(row['mask_ratio'], row['chance_overlap']) for row in report['columns']})
    chance = ', '.join(f'{overlap:.2f} at mask ratio {ratio:g}' for ratio, overlap in chances)
    text = (
        f'Numbers are of {report["measured"]} images. overlap: mean intersection over union of the visible patches of two '
        f'images; 1 = one mask for all images, independent random masks have about {chance}. '
        'saturation: share of mask_prob below 0.01 or above 0.99.'
    )
    if any(row['norm_pix'] for row in report['columns']):
        text += " reconstruction: where pixels are normalized by patch, the mean and deviation of each are the original's."
    return text


def render(report: dict) -> str:
    """The numbers as a table."""
    width, maskers = (max(len(row[key]) for row in report['columns']) + 8 for key in ('label', 'masker'))
    lines = [f'{"column":{width}}{"masker":{maskers}}{"mean score":>12}{"overlap":>10}{"by chance":>11}{"saturation":>12}']
    for row in report['columns']:
        lines.append(
            f'{row["label"]:{width}}{row["masker"]:{maskers}}{row["mean_score"]:12.4f}{row["overlap"]:10.4f}'
            f'{row["chance_overlap"]:11.2f}{row["saturation"]:12.4f}'
        )
    return '\n'.join([*lines, f'Measured on {report["measured"]} images, seed {report["seed"]}.'])


def main(argv: Sequence[str] | None = None) -> None:
    """Load checkpoints and images, draw, and print the numbers."""
    args = parse_args(argv)
    formats = sorted(f'.{name}' for name in Figure().canvas.get_supported_filetypes())
    if osp.splitext(args.out)[1].lower() not in formats:
        raise SettingError(f'--out {args.out}: the ending must be one of {", ".join(formats)}')
    number = len(args.checkpoints)
    configs = (args.configs or [None]) * (number // len(args.configs or [None]))
    # Log messages go to the standard error: there may be JSON on the standard output, and nothing else then.
    with redirect_stdout(sys.stderr):
        MMLogger.get_current_instance().setLevel('WARNING')
        models = [load(*one) for one in zip(args.checkpoints, configs, args.labels or default_labels(args.checkpoints))]
        pipelines = {pipeline.key: pipeline for _, pipeline, _ in models}
        shown, images, skipped = load_images(args.images, pipelines, args.count, args.statistics_count, args.seed)
    for path, reason in skipped.items():
        print(f'left out: {path} ({reason})', file=sys.stderr)
    columns, rows = [], []
    for model, pipeline, facts in models:
        detail = '{model}, {masker}, {grid[0]}×{grid[1]} patches'.format(**facts)
        if facts['iteration'] is not None:
            detail += f', iteration {facts["iteration"]}'
        column = mask_column(
            facts['label'], model, images[pipeline.key], len(shown), bgr=pipeline.bgr, seed=args.seed, detail=detail
        )
        columns.append(column)
        # Of independent random masks: v / (2 - v) for a share v of visible patches.
        chance = (1 - model.mask_ratio) / (1 + model.mask_ratio)
        rows.append(dict(facts, **column.statistics, chance_overlap=chance))
    report = dict(measured=columns[0].measured, shown=shown, skipped=len(skipped), seed=args.seed, columns=rows)
    os.makedirs(osp.dirname(osp.abspath(args.out)), exist_ok=True)
    plot_mask_table(columns, args.out, [osp.splitext(name)[0] for name in shown], note(report))
    report_to = sys.stderr if args.json == '-' else sys.stdout
    print(f'{render(report)}\nPicture: {args.out}', file=report_to)
    if args.json == '-':
        print(json.dumps(report, indent=2))
    elif args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(report, file, indent=2)


if __name__ == '__main__':
    run(main, status=2)
