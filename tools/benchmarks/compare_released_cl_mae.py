#!/usr/bin/env python
"""CL-MAE: our masker, losses and both phases against the released code, on the same weights and images.

    git clone https://github.com/ristea/cl-mae
    python tools/benchmarks/compare_released_cl_mae.py cl-mae [--seed 0] [--json cl_mae.json]

A tiny model of the released code is built from the checkout, its weights are moved away from their initial values and
copied into :class:`mmmlo.CLMAE`, and both get one batch, in float64 on the CPU. The table has the largest absolute
difference of each of these, and of gradients their norms; the exit status is 1 unless all but the last are under 1e-8:

- the scores, ours being 1 minus the released keep weights, and the choice of patches;
- the three losses on the scores. The released divergence is summed over the images, ours is their mean: with B images ours
  gets B times the released weight 0.1;
- for raw and for normalized pixels: the pretrain phase's loss and its gradient by every parameter of the autoencoder; the
  masking phase's reconstruction term, its sum with the three losses at the curriculum factors 1, 0.3 and -1, and the
  gradient of that sum by every parameter of the masker;
- reported only: the released divergence as it is, rounded to float32.

Images are noise and the model is untrained, so nothing here says how well either of them learns.

The released code is used as it is. What it needs is done from here:

- ``models_mae.py`` alone is imported, and with it ``vit_local.py`` and ``util/pos_embed.py``. They run on a current PyTorch
  and need no timm; it is the training script and ``util/misc.py`` that ask for ``torch._six`` and timm 0.3.2. What the
  script does around the model, freezing one half after the other and adding up the terms, is repeated here;
- its divergence casts to ``torch.float32``. Its module gets a ``torch`` in which that name stands for float64;
- the released functions that build a model fix the size; the class that they call takes any but for the masker's, five
  blocks with four heads;
- the masker's class token has a position embedding, which is zero at first. Unfreezing the masker makes it trainable, so
  here it is not zero, and our class token is the sum of the two.
"""

import argparse
import math
import os.path as osp
import shlex
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

import torch  # noqa: E402
from measure import write_json  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from released import CL_MAE, RELEASED_WEIGHTS, Overlay  # noqa: E402
from torch import nn  # noqa: E402

from mmmlo.models.selfsup.cl_mae import CLMAE  # noqa: E402

TOLERANCE = 1e-8
RELEASED_FILES = ('models_mae.py', 'vit_local.py', 'util/pos_embed.py')

# Over 25 images, as in training: torch.cdist, which the released diversity uses, takes another route from there.
BATCH_SIZE, IMG_SIZE, PATCH_SIZE = 32, 24, 4
DIMS, DEPTH, HEADS, DECODER_DIMS, DECODER_DEPTH, MLP_RATIO = 48, 2, 4, 32, 1, 2
MASK_RATIO = 0.75  # the released divergence knows no other
FACTORS = (1.0, 0.3, -1.0)

BLOCK = {'norm1': 'ln1', 'norm2': 'ln2', 'mlp.fc1': 'ffn.layers.0.0', 'mlp.fc2': 'ffn.layers.1'}


def parse_args() -> argparse.Namespace:
    """Read the command line and refuse a folder that is no checkout of the released code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', metavar='CHECKOUT', help=f'a checkout of {CL_MAE}')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights and images')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.parse_args()
    missing = [name for name in RELEASED_FILES if not osp.isfile(osp.join(args.checkout, name))]
    if missing:
        parser.exit(
            2,
            f'error: {args.checkout} has no {missing[0]}; CHECKOUT must be a checkout of {CL_MAE}\n',
        )
    return args


def build_released(models_mae: ModuleType, norm_pix: bool) -> nn.Module:
    """A tiny model of the released code, its weights away from where everything is zero or one."""
    model = models_mae.MaskedAutoencoderViT(
        img_size=IMG_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=DIMS,
        depth=DEPTH,
        num_heads=HEADS,
        decoder_embed_dim=DECODER_DIMS,
        decoder_depth=DECODER_DEPTH,
        decoder_num_heads=HEADS,
        mlp_ratio=MLP_RATIO,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        norm_pix_loss=norm_pix,
        **RELEASED_WEIGHTS,
    ).double()
    # As after the first iteration of the training script.
    model.freeze_maskingnet()
    model.unfreeze_maskingnet()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build_ours(norm_pix: bool) -> nn.Module:
    """The same model of this project."""
    grid = (IMG_SIZE // PATCH_SIZE,) * 2
    return CLMAE(
        backbone=dict(
            type='mmmlo.MaskedViT',
            arch=dict(embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=MLP_RATIO * DIMS),
            img_size=IMG_SIZE,
            patch_size=PATCH_SIZE,
        ),
        neck=dict(
            type='mmmlo.GridMAEDecoder',
            grid=grid,
            patch_size=PATCH_SIZE,
            embed_dim=DIMS,
            decoder_embed_dim=DECODER_DIMS,
            decoder_depth=DECODER_DEPTH,
            decoder_num_heads=HEADS,
            mlp_ratio=MLP_RATIO,
        ),
        head=dict(type='mmmlo.MaskedPixelHead', norm_pix=norm_pix, patch_size=PATCH_SIZE),
        masker=dict(type='mmmlo.ViTMasker', grid=grid, embed_dims=DIMS, head='linear'),
        mask_ratio=MASK_RATIO,
        binarization=dict(loss_weight=RELEASED_WEIGHTS['lambda_gauss']),
        ratio=dict(loss_weight=RELEASED_WEIGHTS['lambda_kl'] * BATCH_SIZE),
        diversity=dict(loss_weight=RELEASED_WEIGHTS['lambda_diversity']),
    ).double()


def as_ours(released: dict[str, torch.Tensor], decoder_norm: str) -> dict[str, torch.Tensor]:
    """Released weights, or gradients, under our names.

    Args:
        released (dict[str, torch.Tensor]): By the released names.
        decoder_norm (str): Our name of the decoder's last norm.

    Returns:
        dict[str, torch.Tensor]: By ours. The masker's last layer is negated: it scores what to mask, not what to keep.
    """
    ours = {}
    for key, value in released.items():
        module, _, name = key.rpartition('.')
        for theirs, mine in BLOCK.items():
            if module.endswith(f'.{theirs}'):
                module = module.removesuffix(theirs) + mine
        if module.startswith('masking_net'):
            module = module.replace('masking_net', 'masker').replace('blocks', 'layers').replace('mlp_head.0', 'norm')
            if module == 'masker' and name == 'pos_embed':
                continue
            if key == 'masking_net.cls_token' and 'masking_net.pos_embed' in released:
                value = value + released['masking_net.pos_embed']
            if module.endswith('mlp_head.1'):
                module, value = 'masker.head', -value
        elif 'decoder' in key or key == 'mask_token':
            module = f'neck.{module}'.replace('decoder_norm', decoder_norm)
        else:
            module = f'backbone.{module}'.replace('blocks', 'layers').replace('proj', 'projection')
            module = module.replace('attn.projection', 'attn.proj').replace('backbone.norm', 'backbone.ln1')
        ours[f'{module.rstrip(".")}.{name}'] = value
    return ours


def gradients(loss: torch.Tensor, named: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Gradients by name."""
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()))))


def trainable(model: nn.Module, choose: Callable[[str], bool]) -> dict[str, nn.Parameter]:
    """Parameters that are not frozen, of those chosen by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad and choose(name)}


def flatten(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """One vector, in the order of the names."""
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])


def compare(models_mae: ModuleType, norm_pix: bool, images: torch.Tensor) -> list[dict]:
    """Run both models and compare.

    Args:
        models_mae (ModuleType): The released module.
        norm_pix (bool): Whether the pixels of a patch are normalized.
        images (torch.Tensor): B x 3 x H x W.

    Returns:
        list[dict]: Rows of the table.
    """
    pixels = 'normalized pixels' if norm_pix else 'raw pixels'
    rows: list[dict] = []

    def row(name: str, ours: torch.Tensor, released: torch.Tensor) -> None:
        values = [tensor.item() if tensor.numel() == 1 else None for tensor in (ours, released)]
        largest = (ours.detach() - released.detach()).abs().max().item()
        rows.append(dict(name=name, ours=values[0], released=values[1], difference=largest, required=True))

    def gradient_row(name: str, ours: dict[str, torch.Tensor], released: dict[str, torch.Tensor]) -> None:
        expected = as_ours(released, decoder_norm)
        if set(ours) != set(expected):
            raise RuntimeError(f'the two train different parameters: {sorted(set(ours) ^ set(expected))}')
        row(name, flatten(ours), flatten(expected))
        rows[-1].update(ours=flatten(ours).norm().item(), released=flatten(expected).norm().item())

    released, ours = build_released(models_mae, norm_pix), build_ours(norm_pix)
    decoder_norm = ours.neck.decoder_norm_name
    missing, unexpected = ours.load_state_dict(as_ours(released.state_dict(), decoder_norm), strict=False)
    if unexpected or missing:
        raise RuntimeError(f'the weights do not fit: missing {missing}, unexpected {unexpected}')
    batch = dict(inputs=images, data_samples=None)

    released.freeze_maskingnet()
    _, mask, _ = released.forward_encoder(images, MASK_RATIO, False)
    expected = released(images, mask_ratio=MASK_RATIO)
    actual = ours.level_loss('pretrain', batch)['loss']
    expected_gradients = gradients(expected, trainable(released, lambda name: True))
    actual_gradients = gradients(actual, trainable(ours, lambda name: not name.startswith('masker.')))
    released.unfreeze_maskingnet()

    released.freeze_backbone()
    _, keep, _ = released.forward_encoder(images, MASK_RATIO, True)
    reconstruction, *terms = released(images, mask_ratio=MASK_RATIO, train_mask=True)
    losses = ours.level_loss('masking', batch)
    if not norm_pix:  # no pixels enter these
        masking = ours.fix_level('pretrain', batch)
        row('scores', masking.mask_prob, 1 - keep)
        row('masked patches', masking.selection.mask, mask.double())
        for name, term in zip(('binarization', 'ratio', 'diversity'), terms):
            row(name, losses[f'loss_{name}'], term)
    row(f'pretrain: loss, {pixels}', actual, expected)
    gradient_row(f'pretrain: gradient, {pixels}', actual_gradients, expected_gradients)
    row(f'masking: reconstruction, {pixels}', losses['loss_reconstruction'], reconstruction)
    for factor in FACTORS:
        ours.curriculum_factor = factor
        losses = ours.level_loss('masking', batch)
        actual = sum(loss for name, loss in losses.items() if 'loss' in name)
        reconstruction, *terms = released(images, mask_ratio=MASK_RATIO, train_mask=True)
        expected = factor * reconstruction + sum(terms)
        row(f'masking: sum, factor {factor:g}, {pixels}', actual, expected)
        # Adding a position embedding to a class token gives both the same gradient.
        chosen = trainable(released, lambda name: name.startswith('masking_net.') and name != 'masking_net.pos_embed')
        gradient_row(
            f'masking: gradient, factor {factor:g}, {pixels}',
            gradients(actual, trainable(ours, lambda name: name.startswith('masker.'))),
            gradients(expected, chosen),
        )
    return rows


def released_divergence(models_mae: ModuleType, images: torch.Tensor) -> torch.Tensor:
    """The released divergence with the cast to float32 that it has."""
    released = build_released(models_mae, False)
    return released(images, mask_ratio=MASK_RATIO, train_mask=True)[2]


def agrees(rows: list[dict]) -> bool:
    """Whether every difference that must be is under the tolerance; one that is no number is not."""
    return all(row['difference'] < TOLERANCE for row in rows if row['required'])


def print_table(rows: list[dict]) -> None:
    """Print the figures; of a gradient its norm."""

    def figure(value: float | None) -> str:
        return f'{"":>20}' if value is None else f'{value:20.14f}'

    print(f'{"":52}{"ours":>20}{"released":>20}{"largest difference":>22}')
    for row in rows:
        print(f'{row["name"]:52}{figure(row["ours"])}{figure(row["released"])}{row["difference"]:22.1e}')


def main() -> int:
    """Build both, compare, print a table, write JSON.

    Returns:
        int: The exit status, 1 if the two do not agree.
    """
    args = parse_args()
    sys.path.insert(0, args.checkout)
    import models_mae

    torch.set_num_threads(1)  # a second thread gains nothing on tensors this small
    MMLogger.get_current_instance().setLevel('WARNING')
    generator = torch.Generator().manual_seed(args.seed)
    images = torch.randn(BATCH_SIZE, 3, IMG_SIZE, IMG_SIZE, generator=generator, dtype=torch.float64)
    rows = []
    for norm_pix in (False, True):
        models_mae.torch = Overlay(torch, float32=torch.float64)
        torch.manual_seed(args.seed)
        rows += compare(models_mae, norm_pix, images)
    models_mae.torch = torch
    torch.manual_seed(args.seed)
    ours = next(row['ours'] for row in rows if row['name'] == 'ratio')
    single = released_divergence(models_mae, images).item()
    rows.append(
        dict(name='ratio, as released in float32', ours=ours, released=single, difference=abs(ours - single), required=False)
    )
    agreed = agrees(rows)

    print_table(rows)
    patches = (IMG_SIZE // PATCH_SIZE) ** 2
    print(f'torch {torch.__version__}, float64, seed {args.seed}, {BATCH_SIZE} images of {patches} patches')
    print(f'every difference but the last under {TOLERANCE:g}: {"yes" if agreed else "NO"}')
    if args.json:
        settings = dict(
            command=shlex.join(['python', *sys.argv]), torch=torch.__version__, seed=args.seed, tolerance=TOLERANCE
        )
        for row in rows:  # JSON has no NaN
            row['difference'] = row['difference'] if math.isfinite(row['difference']) else None
        write_json(args.json, dict(settings=settings, agreed=agreed, rows=rows))
    return 0 if agreed else 1


if __name__ == '__main__':
    sys.exit(main())
