"""Options that the benchmarks share, and the checkouts that some need. Nothing heavy is imported here."""

import argparse
import os.path as osp
from typing import NamedTuple

from mmmlo.utils.process import Parser

MLO_MAE, CL_MAE = 'https://github.com/Alexiland/MLO-MAE', 'https://github.com/ristea/cl-mae'
BETTY = 'https://github.com/leopard-ai/betty'
# A file that only a checkout of the project has.
FILES = {MLO_MAE: 'main_cifar10.py', CL_MAE: 'vit_local.py', BETTY: 'betty/hypergradient/darts.py'}


class Shape(NamedTuple):
    """Sizes of the autoencoder and of what it gets: the widths, blocks and heads, and the rest in pixels and images."""

    dims: int = 192
    depth: int = 6
    heads: int = 3
    # Two thirds of the encoder's width and blocks, as in ViT-B.
    decoder_dims: int = 128
    decoder_depth: int = 4
    decoder_heads: int = 4
    img_size: int = 32
    patch_size: int = 4
    batch_size: int = 64

    @property
    def grid(self) -> tuple[int, int]:
        """tuple[int, int]: Patches along the height and the width."""
        return (self.img_size // self.patch_size,) * 2

    @property
    def length(self) -> int:
        """int: Patches of an image, L."""
        return self.grid[0] * self.grid[1]


def add_shape(parser: Parser) -> None:
    """Add an option for each size but the batch's."""
    for name, size in Shape()._asdict().items():
        if name != 'batch_size':
            parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=size, help=f'default: {size}')


def read_shape(args: argparse.Namespace, batch_size: int) -> Shape:
    """The shape asked for."""
    return Shape(**{name: getattr(args, name) for name in Shape._fields if name != 'batch_size'}, batch_size=batch_size)


def add_machine(parser: Parser, cycles: int, warmup: int) -> None:
    """Add where to run, how often, and where to write."""
    parser.add_argument('--cycles', type=int, default=cycles, help=f'cycles that are timed; default: {cycles}')
    parser.add_argument('--warmup', type=int, default=warmup, help=f'cycles before; default: {warmup}')
    parser.add_argument('--device', help='cpu or cuda; default: the GPU if there is one')
    parser.add_argument('--threads', type=int, help='CPU threads; default: what PyTorch takes')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')


def check_checkout(parser: Parser, name: str, folder: str | None, project: str) -> None:
    """End with one line where a folder that should be a checkout of the project is none."""
    if folder is not None and not osp.isfile(osp.join(folder, FILES[project])):
        parser.error(f'{folder} has no {FILES[project]}; {name} must be a checkout of {project}')
