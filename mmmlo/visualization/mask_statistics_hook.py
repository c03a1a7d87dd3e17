"""Watches masks while they are learned: numbers, pictures, and a warning when they collapse."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.nn.functional import interpolate, pad
from torchvision.utils import make_grid

from mmmlo.engine.non_finite import random_state, set_random_state
from mmmlo.models.maskers import RandomMasker, mask_statistics, score_correlations, visible_overlap
from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

from .mask_health import collapse_signs
from .masks import MaskColumn, cover, heat_map, mask_column, to_colours

PICTURES = 40  # in a run, at most
TILE = 64  # pixels, at most
MOST_BYTES = 200_000
MOST_IMAGES = 32  # of a batch, on which the loss is compared with that of random masks


@HOOKS.register_module()
class MaskStatisticsHook(Hook):
    """Measures masks, logs them as ``train/masks/<name>``, and hands pictures of them to the visualizer.

    Every ``interval`` iterations, of the pretrain level's batch: :func:`mmmlo.models.maskers.mask_statistics`; the
    correlations of the scores with ``contrast`` and ``centre``, see :func:`mmmlo.models.maskers.score_correlations`; and
    ``difficulty``, the unweighted loss of the masked patches over that under a random mask. Random masks have neither.

    Every ``epochs``, of a fixed set of images, the validation's if there is one: ``masks_<iter>.png``, a row an image with
    the image, its scores, what is visible and the reconstruction; ``mask_frequency_<iter>.png``, how often each place was
    masked since the picture before; and ``masks/epoch_overlap``, how much of what is visible was so in the picture before.

    Nothing here moves the random state of the training. A statistic that stays beyond its bound is warned of, with what to
    change, once until it is back; maskers without parameters are not warned of.

    Args:
        interval (int): Iterations between measurements. Defaults to 50.
        patience (int): Measurements in a row before a warning; 0 switches warnings off. CL-MAE begins with one mask for all
            images. Defaults to 5.
        epochs (int, optional): Epochs between pictures; 0 draws none. Defaults to None: 40 pictures in the run, or one an
            epoch.
        images (int): How many images are drawn. Defaults to 12.

    Raises:
        SettingError: If the interval is not positive.
    """

    # Before the logger, which prints what is measured here.
    priority = 'NORMAL'

    def __init__(self, interval: int = 50, patience: int = 5, epochs: int | None = None, images: int = 12) -> None:
        if interval < 1:
            raise SettingError(f'MaskStatisticsHook.interval must be at least 1, got {interval}')
        self.interval = interval
        self.patience = patience
        self.epochs = epochs
        self.images = images
        self._crossings: dict[str, int] = {}  # in a row
        self._fixed: torch.Tensor | None = None
        self._measured = 0  # masks that are counted in _counts, L
        self._counts: Any = 0

    def before_train_epoch(self, runner) -> None:
        """Draw the masks that the run begins with: after what is written down before training, as an image may be torn."""
        if self.epochs != 0 and not runner.iter:
            self._draw(runner, 0)

    def after_train_epoch(self, runner) -> None:
        """Draw the masks every ``epochs``, and after the last one."""
        every = -(-runner.max_epochs // PICTURES) if self.epochs is None else self.epochs
        if every and (self.every_n_epochs(runner, every) or self.is_last_train_epoch(runner)):
            self._draw(runner, runner.iter)

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Measure every ``interval`` iterations, the first one included."""
        if runner.iter and not self.every_n_train_iters(runner, self.interval):
            return
        model = unwrap(runner.model)
        # A multi-level loop hands over level -> batches.
        batch = data_batch['pretrain'][0] if 'pretrain' in data_batch else data_batch
        images = model.data_preprocessor(batch, False)['inputs']
        if images.shape[0] < 2:
            return
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            tokens, grid = model.backbone.embed(images)
            masking = model.draw_masks(images, tokens, grid)
            statistics = mask_statistics(masking.mask_prob, masking.selection.mask)
            told = dict(statistics)
            if not isinstance(model.masker, RandomMasker):
                told |= score_correlations(masking.mask_prob, images, grid)
                told['difficulty'] = _difficulty(model, images[:MOST_IMAGES], tokens[:MOST_IMAGES], masking.selection)
        for name, value in told.items():
            runner.message_hub.update_scalar(f'train/masks/{name}', value)
        self._counts = self._counts + masking.selection.mask.sum(dim=0).cpu()
        self._measured += images.shape[0]
        if next(model.masker.parameters(), None) is not None:
            self._warn(runner.iter + 1, model, statistics)

    def _warn(self, iteration: int, model: Any, statistics: dict[str, float]) -> None:
        signs = collapse_signs(statistics, model.mask_ratio, binary=hasattr(model, 'mask_losses'))
        self._crossings = {sign.name: self._crossings.get(sign.name, 0) + 1 for sign in signs}
        for name, text, change in signs:
            if self._crossings[name] == self.patience:
                print_log(
                    f'iteration {iteration}: the masks collapse, masks/{name} is {text}. Try {change}; see '
                    'docs/troubleshooting.md',
                    'current',
                    logging.WARNING,
                )

    def _draw(self, runner, iteration: int) -> None:
        model, hub, visualizer = unwrap(runner.model), runner.message_hub, runner.visualizer
        with _undisturbed(model):
            if self._fixed is None:
                self._fixed = _fixed_images(runner, self.images, model.backbone)
            if self._fixed is None:
                return
            bgr = bool(getattr(model.data_preprocessor, '_channel_conversion', False))
            column = mask_column('', model, self._fixed, len(self._fixed), bgr, seed=iteration)
        visualizer.add_image('masks', _sheet(column), step=iteration)
        if self._measured:
            share = (self._counts / self._measured).view(1, *model.backbone.grid_size)
            visualizer.add_image('mask_frequency', _to_uint8(_enlarge(to_colours(share)))[0], step=iteration)
            self._counts, self._measured = 0, 0
        before = hub.get_info('masks_before', [])
        hub.update_info('masks_before', column.mask.flatten(1).int().tolist())
        if np.shape(before) == column.mask.flatten(1).shape:
            overlap = visible_overlap(torch.tensor(before), column.mask.flatten(1))
            visualizer.add_scalars({'masks/epoch_overlap': overlap}, step=iteration)


def _difficulty(model: Any, images: torch.Tensor, tokens: torch.Tensor, selection: Any) -> float:
    """Loss of the masked patches, unweighted, over that under a random mask of the same images."""
    count, visible = len(images), selection.ids_keep.shape[1]
    shuffled = torch.rand(count, selection.mask.shape[1], device=images.device).argsort(dim=1)  # B x L
    losses = []
    for ids_keep, ids_masked in (
        (selection.ids_keep[:count], selection.ids_masked[:count]),
        (shuffled[:, :visible], shuffled[:, visible:]),
    ):
        pred = model.neck.decode_masked(model.backbone.encode(tokens, ids_keep), ids_keep, ids_masked)
        losses.append(model.head.masked_loss(pred, images, ids_masked).double())
    return (losses[0] / losses[1].clamp(min=1e-12)).item()


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Leave the mode of a model and the random state as they are."""
    device, training = next(model.parameters()).device, model.training
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
        model.train(training)


def _fixed_images(runner: Any, count: int, backbone: Any) -> torch.Tensor | None:
    """Take images from all over the data, N x C x H x W: the validation's, which nothing augments, or the training's.

    None if neither has the size that the model is built for.
    """
    size = tuple(cells * backbone.patch_size for cells in backbone.grid_size)
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    for loader in (runner.val_loop and runner.val_loop.dataloader, runner.train_dataloader):
        if loader is not None:
            last = len(loader.dataset) - 1
            places = torch.linspace(0, last, min(count, last + 1)).int().tolist()
            images = [loader.dataset[i]['inputs'] for i in places]
            if all(isinstance(image, torch.Tensor) and image.shape[-2:] == size for image in images):
                return torch.stack(images)
    return None


def _sheet(column: MaskColumn) -> np.ndarray:
    """A row an image, of four square tiles so small that the picture has less than 200 KB; H x W x 3, uint8."""
    images = column.images
    parts = [images, heat_map(column.mask_prob, images), cover(images, column.mask), column.reconstruction]
    tiles = torch.stack(parts, dim=1).flatten(0, 1).permute(0, 3, 1, 2)  # 4N x 3 x H x W
    height, width = tiles.shape[2:]
    side = max(height, width)
    tiles = pad(tiles, (0, side - width, 0, side - height), value=0.5)
    for size in (TILE, 48, 32):
        small = interpolate(tiles, size=size, mode='area') if side > size else tiles
        sheet = _to_uint8(make_grid(small, nrow=4, padding=0).permute(1, 2, 0))
        if len(cv2.imencode('.png', sheet)[1]) <= MOST_BYTES:
            break
    return sheet


def _enlarge(cells: torch.Tensor) -> torch.Tensor:
    """Repeat the pixels of a small picture, 1 x h x w x 3, until it has some 96 along its longer side."""
    factor = max(1, 96 // max(cells.shape[1:3]))
    return cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def _to_uint8(picture: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((picture.clamp(0, 1) * 255).round().byte().numpy())
