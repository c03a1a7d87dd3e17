"""What a masker does to images."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure

from mmmlo.models.maskers import mask_statistics

COLORMAP = 'viridis'
HEAT = 0.82  # share of the colour in a heat map; the rest is the image in grey, faint enough not to pass for scores
COVER = 0.5  # grey of masked patches
BATCH_SIZE = 32

PANEL = 0.95  # inches
DPI = 200
MOST_PIXELS = 60_000  # matplotlib draws no picture of 2 ** 16 pixels along a side


def _to_pixels(patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Repeat a value a patch, N x h x w, to a value a pixel, N x H x W x 1."""
    rows, columns = (size[0] // patches.shape[1], size[1] // patches.shape[2])
    return patches.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2).unsqueeze(-1)


def cover(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Paint the masked patches, N x h x w, of images, N x H x W x 3, in grey."""
    mask = _to_pixels(mask, (images.shape[1], images.shape[2]))
    return images * (1 - mask) + COVER * mask


@dataclass(frozen=True)
class MaskColumn:
    """What one model does to the images of :func:`plot_mask_table`; :func:`mask_column` makes it.

    Attributes:
        label (str): Title of the column.
        detail (str): A line of small print below the title; empty for none.
        images (torch.Tensor): The images that are shown, N x H x W x 3, RGB in [0, 1].
        mask_prob (torch.Tensor): Their scores, N x h x w.
        mask (torch.Tensor): 1 = masked, 0 = visible, N x h x w.
        reconstruction (torch.Tensor): The images with the masked patches predicted, N x H x W x 3.
        statistics (dict[str, float]): :func:`mmmlo.models.maskers.mask_statistics` of all images that were measured.
        measured (int): Their number, N or more.
    """

    label: str
    detail: str
    images: torch.Tensor
    mask_prob: torch.Tensor
    mask: torch.Tensor
    reconstruction: torch.Tensor
    statistics: dict[str, float]
    measured: int


def undo_preprocessing(preprocessor: Any, bgr: bool, channels: int = 3) -> Callable[[torch.Tensor], torch.Tensor]:
    """Find the way back from preprocessed images, B x C x H x W, to colours that can be shown, B x H x W x 3, RGB in [0, 1].

    The preprocessor is asked what it makes of black and of each full channel, so any normalization and any order of the
    channels is undone, without reading the names that preprocessors have for them. Of more than three channels the first
    three are shown, and of fewer the first, in grey.
    """
    probes = torch.cat([torch.zeros(1, channels), 255 * torch.eye(channels)]).view(-1, channels, 1, 1)
    seen = preprocessor(dict(inputs=probes, data_samples=None), False)['inputs'][..., 0, 0].double().cpu()
    black, inverse = seen[0], torch.linalg.inv(seen[1:] - seen[0])

    def undo(images: torch.Tensor) -> torch.Tensor:
        pixels = _first_colours((images.permute(0, 2, 3, 1).double().cpu() - black) @ inverse)
        return (pixels.flip(-1) if bgr else pixels).clamp(0, 1).float()

    return undo


def _first_colours(images: torch.Tensor) -> torch.Tensor:
    """Three channels, N x H x W x 3, of any number of them, in the last place."""
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1].expand(*images.shape[:-1], 3)


@torch.no_grad()
def mask_column(
    label: str,
    model: Any,
    images: torch.Tensor,
    shown: int,
    bgr: bool = True,
    seed: int = 0,
    detail: str = '',
) -> MaskColumn:
    """Mask images with a model, measure all masks, and keep the first images to be shown.

    Args:
        label (str): Title of the column, below which stands ``detail`` in small print.
        model (nn.Module): A :class:`mmmlo.models.BaseMaskedAutoencoder`; it is set to evaluation mode.
        images (torch.Tensor): Images as the config's pipeline returns them, before the model's ``data_preprocessor``:
            B x C x H x W in uint8, at least two.
        shown (int): How many of them, from the first on, are shown. The others are measured only.
        bgr (bool): Whether ``images`` have their channels in OpenCV's order, not in RGB. Defaults to True.
        seed (int): Seed of what the model draws: random masks, Gumbel noise. Models that draw alike get the same masks.
            The random state outside is left as it was. Defaults to 0.
    """
    model.eval()
    undo = undo_preprocessing(model.data_preprocessor, bgr, images.shape[1])
    scores, originals, filled = [], [], []
    masks: list[torch.Tensor] = []
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        # No batch has images of both kinds.
        for batch in (*images[:shown].split(BATCH_SIZE), *images[shown:].split(BATCH_SIZE)):
            if not len(batch):
                continue
            inputs = model.data_preprocessor(dict(inputs=batch, data_samples=None), False)['inputs']
            tokens, grid = model.backbone.embed(inputs)
            if len(masks) * BATCH_SIZE < shown:
                reconstruction, masking = model.reconstruct(inputs)
                originals.append(undo(inputs))
                filled.append(undo(reconstruction))
            else:  # what is only measured needs no encoder and no decoder, which take most of the time
                masking = model.draw_masks(inputs, tokens, grid)
            scores.append(masking.mask_prob.float().cpu())
            masks.append(masking.selection.mask.float().cpu())
    mask_prob, mask = torch.cat(scores), torch.cat(masks)
    return MaskColumn(
        label=label,
        detail=detail,
        images=torch.cat(originals),
        mask_prob=mask_prob[:shown].view(-1, *grid),
        mask=mask[:shown].view(-1, *grid),
        reconstruction=torch.cat(filled),
        statistics=mask_statistics(mask_prob, mask),
        measured=len(images),
    )


def to_colours(scores: torch.Tensor) -> torch.Tensor:
    """Give scores, N x h x w, in [0, 1] their colours, N x h x w x 3."""
    return torch.from_numpy(colormaps[COLORMAP](scores.numpy())[..., :3]).float()


def heat_map(scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Lay scores, N x h x w, as colours over the images in grey, N x H x W x 3."""
    colours = to_colours(scores)
    size = (images.shape[1], images.shape[2])
    colours = torch.cat([_to_pixels(colours[..., channel], size) for channel in range(3)], dim=-1)
    grey = images @ torch.tensor([[0.299], [0.587], [0.114]])
    return HEAT * colours + (1 - HEAT) * grey


def plot_mask_table(columns: Sequence[MaskColumn], path: str, names: Sequence[str] = (), note: str = '') -> None:
    """Draw what several models do to the same images: a row an image, a column a model.

    The original stands on the left. A cell holds the heat map of ``mask_prob`` over the image, the visible patches, and the
    reconstruction; below the column stand the statistics of its masks. Models may differ in grid and in image size.

    Args:
        columns (Sequence[MaskColumn]): The columns, at least one, with the same images in the same order.
        path (str): Where to write the picture; its ending says the format.
        names (Sequence[str]): A name for each row.
        note (str): Small print below everything.
    """
    # The original at the highest resolution that one of the models has.
    original = max((column.images for column in columns), key=lambda images: images.shape[1] * images.shape[2])
    tallest = max(images.shape[1] / images.shape[2] for images in (original, *(column.images for column in columns)))
    width, height = PANEL * (1.8 + 3.2 * len(columns)), PANEL * (1.5 + 1.05 * tallest * len(original))
    figure = Figure(figsize=(width, height), layout='constrained')
    widths = [1.2, *[3.2] * len(columns), 0.6]
    parts = figure.subfigures(1, len(widths), squeeze=False, width_ratios=widths)[0]

    (originals,) = _draw_panels(parts[0], {'original': original})
    for part in (parts[0], parts[-1]):  # as high as the columns' titles, so that rows stand at one height
        part.suptitle('\n', fontsize=9)
        part.supxlabel('\n', fontsize=7)
    for axes, name in zip(originals, names):
        axes.set_ylabel(_shorten(name, 16), fontsize=6)
    for part, column in zip(parts[1:-1], columns):
        pictures = dict(
            mask_prob=heat_map(column.mask_prob, column.images),
            visible=cover(column.images, column.mask),
            reconstruction=column.reconstruction,
        )
        _draw_panels(part, pictures)
        part.suptitle(f'{_shorten(column.label, 44)}\n{_shorten(column.detail, 48)}', fontsize=7.5, parse_math=False)
        mean, saturation, overlap = (column.statistics[name] for name in ('mean_score', 'saturation', 'overlap'))
        part.supxlabel(f'mean score {mean:.3f}  overlap {overlap:.3f}\nsaturation {saturation:.3f}', fontsize=7)
    # Mixed with mid-grey, as the colours in the heat maps are with the images.
    colours = ListedColormap(HEAT * colormaps[COLORMAP](range(256))[:, :3] + (1 - HEAT) * 0.5)
    bar = figure.colorbar(ScalarMappable(cmap=colours), cax=parts[-1].subplots())
    bar.ax.tick_params(labelsize=6)
    bar.set_label('mask_prob', fontsize=7)
    if note:
        figure.supxlabel(textwrap.fill(note, int(22 * width)), fontsize=6, color='0.35')
    figure.savefig(path, dpi=min(DPI, MOST_PIXELS / max(width, height)))


def _draw_panels(part: SubFigure, pictures: Mapping[str, torch.Tensor]) -> list[list[Axes]]:
    """Draw pictures, N x H x W x 3 each, in columns below their names; returns the axes by column."""
    rows = len(next(iter(pictures.values())))
    grid = part.subplots(rows, len(pictures), squeeze=False, gridspec_kw=dict(wspace=0.02, hspace=0.02))
    for column, (name, shown) in zip(grid.T, pictures.items()):
        column[0].set_title(name, fontsize=7)
        for axes, picture in zip(column, shown):
            axes.imshow(picture.numpy(), interpolation='auto')
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(linewidth=0.4, color='0.4')
    return [list(column) for column in grid.T]


def _shorten(text: str, length: int) -> str:
    """Leave the end of a text that is too long: names of files differ there."""
    return text if len(text) <= length else f'…{text[1 - length:]}'
