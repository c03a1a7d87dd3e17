"""Losses of this project's models beside those of the released codes and of mmpretrain, on the same weights and images.

All of it in float64, in evaluation mode, which has no dropout. The weights are left in files, for the
processes that are timed.
"""

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
FACTORS = (1.0, -0.5)  # of CL-MAE's curriculum


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
    """Losses of both sides: rows with a name, both values and their relative difference."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, name: str, ours: torch.Tensor, other: torch.Tensor) -> None:
        """Compare two scalars."""
        mine, theirs = ours.item(), other.item()
        self.rows.append(dict(name=name, ours=mine, other=theirs, difference=abs(mine - theirs) / abs(theirs)))

    @property
    def agrees(self) -> bool:
        """bool: Whether every difference is under the tolerance; one that is no number is not."""
        return all(row['difference'] < TOLERANCE for row in self.rows)

    def print(self) -> None:
        """Print what was compared."""
        print(f'{"loss, in float64":44}{"ours":>18}{"the other":>18}{"relative difference":>22}')
        for row in self.rows:
            print(f'{row["name"]:44}{row["ours"]:18.12f}{row["other"]:18.12f}{row["difference"]:22.1e}')


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
def check_mlo_mae(checkout: str, betty: str, shape: Shape, check: Check, ours_path: str, released_path: str) -> None:
    """Compare the losses of MLO-MAE's three levels, and leave our weights and the same by their released names in files."""
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
    torch.save(model.state_dict(), ours_path)
    torch.save({name: module.state_dict() for name, module in modules.items()}, released_path)

    for module in (model, *modules.values()):
        module.double().eval()
    levels = dict(pretrain='pretrain', finetune='finetune', masking='mask')
    for seed, (level, name) in enumerate(levels.items()):
        released = getattr(engine, name).training_step(_double_batch(shape, seed))
        check.add(f'MLO-MAE, {level}', model.level_loss(level, _our_double_batch(shape, seed))['loss'], released)


@torch.no_grad()
def check_cl_mae(checkout: str, shape: Shape, check: Check, ours_path: str, released_path: str) -> None:
    """Compare the losses of CL-MAE's two phases; see :func:`check_mlo_mae`."""
    released: Any = cl_mae(checkout, shape, 'cpu', double=True)
    disturb(released)
    model: Any = build_model(cl_mae_config(shape)).double()
    take_weights(model, released.state_dict(), 'cl-mae')
    torch.save(model.state_dict(), ours_path)
    torch.save(released.state_dict(), released_path)

    batch = _our_double_batch(shape)
    images = batch['inputs']
    check.add('CL-MAE, pretrain', model.level_loss('pretrain', batch)['loss'], released(images, mask_ratio=MASK_RATIO))
    reconstruction, *terms = released(images, mask_ratio=MASK_RATIO, train_mask=True)
    losses = model.level_loss('masking', batch)
    check.add('CL-MAE, masking, reconstruction', losses['reconstruction'], reconstruction)
    for name, term in zip(('binarization', 'ratio', 'diversity'), terms):
        check.add(f'CL-MAE, masking, {name}', losses[f'loss_{name}'], term)
    for factor in FACTORS:
        model.curriculum_factor = factor
        losses = model.level_loss('masking', batch)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        check.add(f'CL-MAE, masking, factor {factor:g}', total, factor * reconstruction + sum(terms))


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
