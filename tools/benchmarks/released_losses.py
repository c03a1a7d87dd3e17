"""Losses of this project's models beside those of the released codes and of mmpretrain, on the same weights and images.

All of it in float64, in evaluation mode, which has no dropout.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from options import Shape
from released import RELEASED_WEIGHTS, cl_mae, mlo_mae
from torch import nn
from variants import (
    MASK_RATIO,
    build_model,
    config,
    learning_rates,
    make_batch,
    mlo_mae_config,
    mmpretrain_config,
    our_batch,
)

from mmmlo.converters import FORMATS

TOLERANCE = 1e-8
FACTORS = (1.0, 0.3, -1.0)  # of CL-MAE's curriculum
# Over 25 images, as in training: torch.cdist, which the released diversity uses, takes another route from there.
TINY = Shape(
    dims=48, depth=2, heads=4, decoder_dims=32, decoder_depth=1, decoder_heads=4, img_size=24, patch_size=4, batch_size=32
)


def cl_mae_config(shape: Shape) -> Config:
    """Our CL-MAE with the released code's head, pixels and weights of losses."""
    cfg = config('CL-MAE', shape)
    cfg.model.masker.head = 'linear'
    cfg.model.head.norm_pix = False
    # The released divergence is summed over the images, ours is their mean.
    weights = dict(binarization='gauss', ratio='kl', diversity='diversity')
    cfg.model.update({name: dict(loss_weight=RELEASED_WEIGHTS[f'lambda_{theirs}']) for name, theirs in weights.items()})
    cfg.model.ratio.loss_weight *= shape.batch_size
    return cfg


class Check:
    """What both sides computed: rows with a name, a value of each or its norm, and the relative difference."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, name: str, ours: torch.Tensor, other: torch.Tensor) -> None:
        """Compare two tensors: the largest difference over the largest value."""
        mine, theirs = (value.item() if value.numel() == 1 else value.norm().item() for value in (ours, other))
        difference = ((ours - other).abs().max() / other.abs().max()).item()
        self.rows.append(dict(name=name, ours=mine, other=theirs, difference=difference))

    @property
    def agrees(self) -> bool:
        """bool: Whether every difference is under the tolerance; one that is no number is not."""
        return all(row['difference'] < TOLERANCE for row in self.rows)

    def print(self) -> None:
        """Print what was compared."""
        print(f'{"in float64; of gradients, scores, masks the norm":52}{"ours":>18}{"the other":>18}{"difference":>12}')
        for row in self.rows:
            print(f'{row["name"]:52}{row["ours"]:18.12f}{row["other"]:18.12f}{row["difference"]:12.1e}')


@torch.no_grad()
def disturb(model: nn.Module, by: float = 0.02) -> None:
    """Move the weights away from where everything is zero or one, so that no two could be mistaken for each other."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(by * torch.randn_like(parameter))


def read_released(state: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """Give released weights our names."""
    return FORMATS[kind].read(FORMATS[kind].prepare(state)).state


def take_weights(model: nn.Module, released: dict[str, torch.Tensor], kind: str) -> None:
    """Load released weights."""
    missing, unexpected = model.load_state_dict(read_released(released, kind), strict=False)
    if missing or unexpected:
        raise RuntimeError(f'the released weights do not fit: missing {missing}, unexpected {unexpected}')


def _double_batch(shape: Shape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = make_batch(shape, 'cpu', seed)
    return images.double(), labels


def _our_double_batch(shape: Shape, seed: int = 0) -> dict:
    batch = our_batch(shape, 'cpu', seed)
    return dict(batch, inputs=batch['inputs'].double())


@torch.no_grad()
def check_mlo_mae(checkout: str, betty: str, shape: Shape, check: Check) -> None:
    """Compare the losses of MLO-MAE's three levels."""
    cfg = mlo_mae_config(shape)
    engine = mlo_mae(checkout, betty, shape, learning_rates(cfg), 'cpu')
    modules = {problem.name: problem.module for problem in engine.problems}
    for module in modules.values():
        disturb(module)
    state = dict(modules['pretrain'].state_dict())
    for prefix, name in (('masking_module', 'mask'), ('finetune_module', 'finetune')):
        state.update({f'{prefix}.{key}': value for key, value in modules[name].state_dict().items()})
    model: Any = build_model(cfg)
    take_weights(model, state, 'mlo-mae')
    for module in (model, *modules.values()):
        module.double().eval()
    levels = dict(pretrain='pretrain', finetune='finetune', masking='mask')
    for seed, (level, name) in enumerate(levels.items()):
        released = getattr(engine, name).training_step(_double_batch(shape, seed))
        check.add(f'MLO-MAE, {level}', model.level_loss(level, _our_double_batch(shape, seed))['loss'], released)


def gradients(loss: torch.Tensor, model: nn.Module, choose: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Gradients by the parameters that are not frozen, of those chosen by name; zero by all else."""
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad and choose(name)}
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    return zeros | dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values()))))


def check_cl_mae(checkout: str, norm_pix: bool, check: Check) -> None:
    """Compare scores, masks, losses and gradients of CL-MAE's two phases in a tiny model.

    What the training script does around the released model, freezing one half after the other and adding up the terms, is
    repeated here. The masker's class token has a position embedding, zero at first, which unfreezing makes trainable: here
    it is not zero, and our class token is the sum of the two.
    """
    cfg = cl_mae_config(TINY)
    cfg.model.head.norm_pix = norm_pix
    torch.manual_seed(0)
    theirs: Any = cl_mae(checkout, TINY, 'cpu', double=True, norm_pix=norm_pix)
    theirs.freeze_maskingnet()  # as after the first iteration of the training script
    theirs.unfreeze_maskingnet()
    disturb(theirs, 0.1)
    model: Any = build_model(cfg).double()
    take_weights(model, theirs.state_dict(), 'cl-mae')
    batch = _our_double_batch(TINY)
    images = batch['inputs']
    pixels = 'normalized pixels' if norm_pix else 'raw pixels'

    def add_gradient(name: str, ours: dict[str, torch.Tensor], released: dict[str, torch.Tensor]) -> None:
        # Names and signs are linear, so a gradient is converted as weights are.
        expected = read_released(released, 'cl-mae')
        names = [key for key in expected if key in dict(model.named_parameters())]
        check.add(name, *(torch.cat([gradient[key].reshape(-1) for key in names]) for gradient in (ours, expected)))

    theirs.freeze_maskingnet()
    mask = theirs.forward_encoder(images, MASK_RATIO, False)[1]
    expected = theirs(images, mask_ratio=MASK_RATIO)
    actual = model.level_loss('pretrain', batch)['loss']
    released_gradients = gradients(expected, theirs, lambda name: True)
    our_gradients = gradients(actual, model, lambda name: not name.startswith('masker.'))
    theirs.unfreeze_maskingnet()

    theirs.freeze_backbone()
    keep = theirs.forward_encoder(images, MASK_RATIO, True)[1]
    reconstruction, *terms = theirs(images, mask_ratio=MASK_RATIO, train_mask=True)
    losses = model.level_loss('masking', batch)
    if not norm_pix:  # no pixels enter these
        masking = model.fix_level('pretrain', batch)
        check.add('CL-MAE, scores', masking.mask_prob, 1 - keep)
        check.add('CL-MAE, masked patches', masking.selection.mask, mask.double())
        for name, term in zip(('binarization', 'ratio', 'diversity'), terms):
            check.add(f'CL-MAE, {name}', losses[f'loss_{name}'], term)
    check.add(f'CL-MAE, pretrain: loss, {pixels}', actual, expected)
    add_gradient(f'CL-MAE, pretrain: gradient, {pixels}', our_gradients, released_gradients)
    check.add(f'CL-MAE, masking: reconstruction, {pixels}', losses['loss_reconstruction'], reconstruction)
    for factor in FACTORS:
        model.curriculum_factor = factor
        losses = model.level_loss('masking', batch)
        actual = sum(loss for name, loss in losses.items() if 'loss' in name)
        reconstruction, *terms = theirs(images, mask_ratio=MASK_RATIO, train_mask=True)
        expected = factor * reconstruction + sum(terms)
        check.add(f'CL-MAE, masking: sum, factor {factor:g}, {pixels}', actual, expected)
        # Adding a position embedding to a class token gives both the same gradient: that of the embedding is left out.
        add_gradient(
            f'CL-MAE, masking: gradient, factor {factor:g}, {pixels}',
            gradients(actual, model, lambda name: name.startswith('masker.')),
            gradients(expected, theirs, lambda name: name.startswith('masking_net.') and name != 'masking_net.pos_embed'),
        )


@torch.no_grad()
def check_mae(shape: Shape, check: Check) -> None:
    """Compare the loss of MAE with that of mmpretrain's; both draw the same masks from a seed."""
    ours: Any = build_model(config('MAE', shape))
    theirs: Any = build_model(mmpretrain_config(shape))
    disturb(ours)
    # mmpretrain's decoder takes its grid from the number of patches.
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if not name.endswith('.grid')})
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        losses.append(model.double().loss(**_our_double_batch(shape))['loss'])
    check.add("MAE, beside mmpretrain's", *losses)
