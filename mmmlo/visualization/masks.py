"""What a masker does to images."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure


def _displayable(images: torch.Tensor) -> torch.Tensor:
    """Stretch a batch of images to [0, 1] by its common range and put channels last."""
    low, high = images.amin(), images.amax()
    return ((images - low) / (high - low).clamp(min=1e-6)).permute(0, 2, 3, 1)


@torch.no_grad()
def plot_masks(model: Any, images: torch.Tensor, path: str, titles: Sequence[str] = ()) -> None:
    """Draw images, their ``mask_prob`` as a heat map, what stays visible, and the reconstruction, a column an image.

    Args:
        model (nn.Module): A :class:`mmmlo.models.BaseMaskedAutoencoder` in evaluation mode.
        images (torch.Tensor): Preprocessed images on the model's device, B x 3 x H x W.
        path (str): Where to write the picture.
        titles (Sequence[str]): A title for each image. Defaults to none.
    """
    reconstruction, masking = model.reconstruct(images)
    grid = model.backbone.embed(images[:1])[1]
    pixels = (images.shape[2] // grid[0], images.shape[3] // grid[1])
    mask = masking.selection.mask.view(-1, 1, *grid)
    mask = mask.repeat_interleave(pixels[0], dim=2).repeat_interleave(pixels[1], dim=3).permute(0, 2, 3, 1).cpu()
    shown = _displayable(torch.cat([images, reconstruction.clamp(images.amin(), images.amax())]).float().cpu())
    original, filled = shown.split(len(images))
    rows = [
        ('image', original),
        ('mask_prob', masking.mask_prob.view(-1, *grid).float().cpu()),
        ('visible', original * (1 - mask) + 0.5 * mask),
        ('reconstruction', filled),
    ]
    figure = Figure(figsize=(1.0 * len(images) + 1.2, 4.3), layout='constrained')
    all_axes = figure.subplots(len(rows), len(images), squeeze=False)
    for row_axes, (name, pictures) in zip(all_axes, rows):
        for axes, picture in zip(row_axes, pictures):
            heat = axes.imshow(picture, vmin=0, vmax=1, cmap='viridis', interpolation='nearest')
            axes.set(xticks=[], yticks=[])
        row_axes[0].set_ylabel(name)
        if name == 'mask_prob':
            figure.colorbar(heat, ax=list(row_axes), fraction=0.02, pad=0.01)
    for axes, title in zip(all_axes[0], titles):
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)
