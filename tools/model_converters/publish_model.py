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

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

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

from mmmlo.evaluation.encoder import checkpoint_config, load_encoder
from mmmlo.evaluation.results import ResultsFile
from mmmlo.launch.config import load_config
from mmmlo.launch.publishing import publish_encoder
from mmmlo.utils.checkpoints import file_hash, read_checkpoint
from mmmlo.utils.errors import MissingFileError, SettingError


def main(argv: Sequence[str] | None = None) -> None:
    """Publish the encoder, and print where it is."""
    args = parse_args(argv)
    if args.name is not None and not re.fullmatch(r'\w[\w.+-]*', args.name):
        raise SettingError(f'--name {args.name!r} must be made of letters, digits, and any of - _ . +')
    if args.results and not osp.isfile(args.results):
        raise MissingFileError(f'--results {args.results} does not exist')
    checkpoint = read_checkpoint(args.checkpoint)
    config = load_config(args.config) if args.config else checkpoint_config(args.checkpoint, checkpoint)
    encoder = load_encoder(args.checkpoint, config)
    name = args.name
    if name is None:
        started = str(checkpoint.meta.get('experiment_name') or '')  # to which mmengine adds the time
        name = osp.splitext(osp.basename(args.config))[0] if args.config else re.sub(r'_\d{8}_\d{6}$', '', started)
        name = re.sub(r'[^\w.+-]', '_', name).lstrip('.+-') or encoder.method.lower()
    rows = ResultsFile(args.results).rows if args.results else []
    path = publish_encoder(
        encoder, config, checkpoint.meta, args.folder, name, args.license, rows, args.format, args.overwrite
    )
    sha256 = file_hash(path)
    if args.results and not any(row.sha256 in (encoder.sha256, sha256) for row in rows):
        print(f'note: {args.results} has nothing of {args.checkpoint}; the card says that nothing was measured')
    print(f'Written: {path}\n         {osp.splitext(path)[0]}.md\nsha256: {sha256}')


if __name__ == '__main__':
    run(main, status=2)
