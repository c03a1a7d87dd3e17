#!/usr/bin/env python
"""Publish the encoder of a checkpoint: a file with it alone, and a model card.

    python tools/model_converters/publish_model.py work_dirs/NAME/epoch_50.pth DIR --results results.json

Writes DIR/NAME-HASH8.pth, whose name ends in the start of its SHA-256, and DIR/NAME-HASH8.md. docs/sharing.md says what is
in them.

Exit status: 0; or 2, and nothing written, for wrong usage or a file that cannot be published.
"""

import argparse
import os.path as osp
import re
import sys
from collections.abc import Sequence

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='of this project, or a file with an encoder alone')
    parser.add_argument('folder', metavar='DIR', help='where to write')
    parser.add_argument('--name', help='first part of the names; default: the name of the config')
    parser.add_argument(
        '--config', metavar='FILE', help='the config that it was pretrained by; default: the one in the checkpoint'
    )
    parser.add_argument(
        '--results', metavar='FILE', help='results.json of tools/evaluate.py; rows of this checkpoint go into the card'
    )
    parser.add_argument('--license', default='', metavar='TEXT', help='terms of use, for the card')
    parser.add_argument('--format', choices=['pth', 'safetensors'], default='pth', help='default: pth')
    parser.add_argument('--overwrite', action='store_true', help='replace files of these names')
    return parser.read(argv)


start(__name__, parse_args)

from mmmlo.evaluation.encoder import Encoder, checkpoint_config, load_encoder
from mmmlo.evaluation.results import ResultsFile, Row
from mmmlo.launch.config import load_config
from mmmlo.launch.publishing import PublishingError, publish_encoder
from mmmlo.utils.checkpoints import Checkpoint, read_checkpoint


def find_name(args: argparse.Namespace, checkpoint: Checkpoint, encoder: Encoder) -> str:
    """The first part of the names: the one asked for, else the config's, else the method's."""
    if args.name is not None:
        if not re.fullmatch(r'\w[\w.+-]*', args.name):
            raise PublishingError(f'--name {args.name!r} must be made of letters, digits, and any of - _ . +')
        return args.name
    if args.config is not None:
        name = osp.splitext(osp.basename(args.config))[0]
    else:  # mmengine adds the time of the start
        name = re.sub(r'_\d{8}_\d{6}$', '', str(checkpoint.meta.get('experiment_name') or ''))
    name = re.sub(r'[^\w.+-]', '_', name).lstrip('.+-')
    return name if re.search('[A-Za-z]', name) else encoder.method.lower()


def read_results(path: str | None) -> list[Row]:
    """All rows of a results file, if there is one."""
    if path is not None and not osp.isfile(path):
        raise PublishingError(f'--results {path} does not exist')
    return [] if path is None else ResultsFile(path).rows


def main(argv: Sequence[str] | None = None) -> None:
    """Read, write, read back."""
    args = parse_args(argv)
    checkpoint = read_checkpoint(args.checkpoint)
    config = load_config(args.config) if args.config else checkpoint_config(args.checkpoint, checkpoint)
    encoder = load_encoder(args.checkpoint, config)
    name = find_name(args, checkpoint, encoder)
    rows = read_results(args.results)
    written = publish_encoder(
        encoder, config, checkpoint.meta, args.folder, name, args.license, rows, args.format, args.overwrite
    )
    if args.results and not any(row.sha256 in (encoder.sha256, written.sha256) for row in rows):
        print(f'note: {args.results} has nothing of {args.checkpoint}; the card says that nothing was measured')
    print(f'Written: {written.path}\n         {written.card}\nsha256: {written.sha256}')


if __name__ == '__main__':
    run(main, status=2)
