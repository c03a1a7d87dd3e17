#!/usr/bin/env python
"""CL-MAE: our masker, losses and both phases against the released code, on the same weights and images.

    git clone https://github.com/ristea/cl-mae
    python tools/benchmarks/compare_released_cl_mae.py cl-mae [--seed 0] [--json cl_mae.json]

A tiny model of the released code is built from the checkout, its weights are moved away from their initial values and
converted for :class:`mmmlo.CLMAE`, and both get one batch, in float64 on the CPU. The table has the largest absolute
difference of each of these, and of gradients their norms; the exit status is 1 unless all but the last are under 1e-8:

- the scores, ours being 1 minus the released keep weights, and the choice of patches;
- the three losses on the scores. The released divergence is summed over the images, ours is their mean: with B images ours
  gets B times the released weight 0.1;
- for raw and for normalized pixels: the pretrain phase's loss and its gradient by every parameter of the autoencoder; the
  masking phase's reconstruction term, its sum with the three losses at the curriculum factors 1, 0.3 and -1, and the
  gradient of that sum by every parameter of the masker;
- reported only: the released divergence as it is, rounded to float32.

Images are noise and the model is untrained, so nothing here says how well either of them learns.

The released code is used as it is. ``models_mae.py`` alone is imported, with ``vit_local.py`` and ``util/pos_embed.py``;
what the training script does around the model, freezing one half after the other and adding up the terms, is repeated here.
Its divergence casts to ``torch.float32``: its module gets a ``torch`` in which that name stands for float64. The masker's
class token has a position embedding, zero at first, which unfreezing makes trainable: here it is not zero, and our class
token is the sum of the two.
"""

import argparse
import math
import os.path as osp
import sys
from collections.abc import Callable

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import CL_MAE, Shape, check_checkout

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line and refuse a folder that is no checkout of the released code."""
    parser = Parser(__doc__)
    parser.add_argument('checkout', metavar='CHECKOUT', help=f'a checkout of {CL_MAE}')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights and images')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.read()
    check_checkout(parser, 'CHECKOUT', args.checkout, CL_MAE)
    return args


start(__name__, parse_args)

import torch
from measure import prepare, write_json
from released import cl_mae
from released_losses import cl_mae_config, disturb, read_released, take_weights
from torch import nn
from variants import MASK_RATIO, build_model

TOLERANCE = 1e-8
# Over 25 images, as in training: torch.cdist, which the released diversity uses, takes another route from there.
SHAPE = Shape(
    dims=48, depth=2, heads=4, decoder_dims=32, decoder_depth=1, decoder_heads=4, img_size=24, patch_size=4, batch_size=32
)
FACTORS = (1.0, 0.3, -1.0)


def build_released(args: argparse.Namespace, norm_pix: bool, double: bool = True) -> nn.Module:
    """A tiny model of the released code, its weights away from where everything is zero or one."""
    torch.manual_seed(args.seed)
    model = cl_mae(args.checkout, SHAPE, 'cpu', double, norm_pix).double()
    # As after the first iteration of the training script.
    model.freeze_maskingnet()
    model.unfreeze_maskingnet()
    disturb(model, 0.1)
    return model


def gradients(loss: torch.Tensor, model: nn.Module, choose: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Gradients by the parameters that are not frozen, of those chosen by name; zero by all else."""
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad and choose(name)}
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    return zeros | dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values()))))


def compare(args: argparse.Namespace, norm_pix: bool, images: torch.Tensor) -> list[dict]:
    """Run both models on images, B x 3 x H x W, and compare: rows of the table."""
    pixels = 'normalized pixels' if norm_pix else 'raw pixels'
    rows: list[dict] = []

    def row(name: str, ours: torch.Tensor, released: torch.Tensor) -> None:
        values = [tensor.item() if tensor.numel() == 1 else None for tensor in (ours, released)]
        largest = (ours.detach() - released.detach()).abs().max().item()
        rows.append(dict(name=name, ours=values[0], released=values[1], difference=largest, required=True))

    def gradient_row(name: str, ours: dict[str, torch.Tensor], released: dict[str, torch.Tensor]) -> None:
        # Names and signs are linear, so a gradient is converted as weights are.
        expected = read_released(released, 'cl-mae')
        names = [key for key in expected if key in dict(model.named_parameters())]
        vectors = [torch.cat([gradient[key].reshape(-1) for key in names]) for gradient in (ours, expected)]
        row(name, *vectors)
        rows[-1].update({side: vector.norm().item() for side, vector in zip(('ours', 'released'), vectors)})

    cfg = cl_mae_config(SHAPE)
    cfg.model.head.norm_pix = norm_pix
    theirs, model = build_released(args, norm_pix), build_model(cfg).double()
    take_weights(model, theirs.state_dict(), 'cl-mae')
    batch = dict(inputs=images, data_samples=None)

    theirs.freeze_maskingnet()
    _, mask, _ = theirs.forward_encoder(images, MASK_RATIO, False)
    expected = theirs(images, mask_ratio=MASK_RATIO)
    actual = model.level_loss('pretrain', batch)['loss']
    released_gradients = gradients(expected, theirs, lambda name: True)
    our_gradients = gradients(actual, model, lambda name: not name.startswith('masker.'))
    theirs.unfreeze_maskingnet()

    theirs.freeze_backbone()
    _, keep, _ = theirs.forward_encoder(images, MASK_RATIO, True)
    reconstruction, *terms = theirs(images, mask_ratio=MASK_RATIO, train_mask=True)
    losses = model.level_loss('masking', batch)
    if not norm_pix:  # no pixels enter these
        masking = model.fix_level('pretrain', batch)
        row('scores', masking.mask_prob, 1 - keep)
        row('masked patches', masking.selection.mask, mask.double())
        for name, term in zip(('binarization', 'ratio', 'diversity'), terms):
            row(name, losses[f'loss_{name}'], term)
    row(f'pretrain: loss, {pixels}', actual, expected)
    gradient_row(f'pretrain: gradient, {pixels}', our_gradients, released_gradients)
    row(f'masking: reconstruction, {pixels}', losses['loss_reconstruction'], reconstruction)
    for factor in FACTORS:
        model.curriculum_factor = factor
        losses = model.level_loss('masking', batch)
        actual = sum(loss for name, loss in losses.items() if 'loss' in name)
        reconstruction, *terms = theirs(images, mask_ratio=MASK_RATIO, train_mask=True)
        expected = factor * reconstruction + sum(terms)
        row(f'masking: sum, factor {factor:g}, {pixels}', actual, expected)
        # Adding a position embedding to a class token gives both the same gradient: that of the embedding is left out.
        gradient_row(
            f'masking: gradient, factor {factor:g}, {pixels}',
            gradients(actual, model, lambda name: name.startswith('masker.')),
            gradients(expected, theirs, lambda name: name.startswith('masking_net.') and name != 'masking_net.pos_embed'),
        )
    return rows


def agrees(rows: list[dict]) -> bool:
    """Whether every difference that must be is under the tolerance; one that is no number is not."""
    return all(row['difference'] < TOLERANCE for row in rows if row['required'])


def print_table(rows: list[dict]) -> None:
    """Print the figures; of a gradient its norm."""
    print(f'{"":52}{"ours":>20}{"released":>20}{"largest difference":>22}')
    for row in rows:
        figures = [' ' * 20 if row[side] is None else f'{row[side]:20.14f}' for side in ('ours', 'released')]
        print(f'{row["name"]:52}{"".join(figures)}{row["difference"]:22.1e}')


def main() -> int:
    """Build both, compare, print a table, write JSON; the exit status is 1 if the two do not agree."""
    args = parse_args()
    prepare(argparse.Namespace(device='cpu', threads=1))  # a second thread gains nothing on tensors this small
    generator = torch.Generator().manual_seed(args.seed)
    size = SHAPE.batch_size, 3, SHAPE.img_size, SHAPE.img_size
    images = torch.randn(*size, generator=generator, dtype=torch.float64)
    rows = [row for norm_pix in (False, True) for row in compare(args, norm_pix, images)]
    ours = next(row['ours'] for row in rows if row['name'] == 'ratio')
    single = build_released(args, False, double=False)(images, mask_ratio=MASK_RATIO, train_mask=True)[2].item()
    rows.append(
        dict(name='ratio, as released in float32', ours=ours, released=single, difference=abs(ours - single), required=False)
    )
    agreed = agrees(rows)
    print_table(rows)
    print(f'torch {torch.__version__}, float64, seed {args.seed}, {SHAPE.batch_size} images of {SHAPE.length} patches')
    print(f'every difference but the last under {TOLERANCE:g}: {"yes" if agreed else "NO"}')
    for row in rows:  # JSON has no NaN
        row['difference'] = row['difference'] if math.isfinite(row['difference']) else None
    write_json(args.json, args, dict(agreed=agreed, rows=rows))
    return 0 if agreed else 1


if __name__ == '__main__':
    run(main)
