"""What a masker does to images."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmlo.models.maskers import mask_statistics

COLORMAP = 'viridis'
HEAT = 0.82  # share of the colour in a heat map; the rest is the image in grey, faint enough not to pass for scores
COVER = 0.5  # grey of masked patches
BATCH_SIZE = 32

# Sizes in a table of masks, in inches.
PANEL = 0.95
GAP = 0.04
COLUMN_GAP = 0.2
LEFT, RIGHT, TOP, BOTTOM = 0.3, 0.66, 0.7, 0.4
NOTE_LINE = 0.12
DPI = 200
MOST_PIXELS = 60_000  # matplotlib draws no picture of 2 ** 16 pixels along a side


def _displayable(images: torch.Tensor) -> torch.Tensor:
    """Stretch a batch of images to [0, 1] by its common range and put channels last."""
    low, high = images.amin(), images.amax()
    return ((images - low) / (high - low).clamp(min=1e-6)).permute(0, 2, 3, 1)


def _to_pixels(patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Repeat a value a patch, N x h x w, to a value a pixel, N x H x W x 1."""
    rows, columns = (size[0] // patches.shape[1], size[1] // patches.shape[2])
    return patches.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2).unsqueeze(-1)


def _covered(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images, N x H x W x 3, with their masked patches, N x h x w, in grey."""
    mask = _to_pixels(mask, (images.shape[1], images.shape[2]))
    return images * (1 - mask) + COVER * mask


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
    shown = _displayable(torch.cat([images, reconstruction.clamp(images.amin(), images.amax())]).float().cpu())
    original, filled = shown.split(len(images))
    rows = [
        ('image', original),
        ('mask_prob', masking.mask_prob.view(-1, *grid).float().cpu()),
        ('visible', _covered(original, masking.selection.mask.view(-1, *grid).cpu())),
        ('reconstruction', filled),
    ]
    figure = Figure(figsize=(1.0 * len(images) + 1.2, 4.3), layout='constrained')
    all_axes = figure.subplots(len(rows), len(images), squeeze=False)
    for row_axes, (name, pictures) in zip(all_axes, rows):
        for axes, picture in zip(row_axes, pictures):
            heat = axes.imshow(picture.numpy(), vmin=0, vmax=1, cmap=COLORMAP, interpolation='nearest')
            axes.set(xticks=[], yticks=[])
        row_axes[0].set_ylabel(name)
        if name == 'mask_prob':
            figure.colorbar(heat, ax=list(row_axes), fraction=0.02, pad=0.01)
    for axes, title in zip(all_axes[0], titles):
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


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


def undo_preprocessing(preprocessor: Any, bgr: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Find the way back from preprocessed images, B x 3 x H x W, to colours that can be shown, B x H x W x 3, RGB in [0, 1].

    The preprocessor is asked what it makes of black and of each full channel, so any normalization and any order of the
    channels is undone, without reading the names that preprocessors have for them.
    """
    probes = torch.cat([torch.zeros(1, 3), 255 * torch.eye(3)]).view(4, 3, 1, 1)
    seen = preprocessor(dict(inputs=probes, data_samples=None), False)['inputs'][..., 0, 0].double()
    black, inverse = seen[0], torch.linalg.inv(seen[1:] - seen[0])

    def undo(images: torch.Tensor) -> torch.Tensor:
        pixels = (images.permute(0, 2, 3, 1).double().cpu() - black) @ inverse
        return (pixels.flip(-1) if bgr else pixels).clamp(0, 1).float()

    return undo


@torch.no_grad()
def mask_column(
    label: str,
    model: Any,
    images: torch.Tensor,
    shown: int,
    bgr: bool = True,
    seed: int = 0,
    detail: str = '',
    progress: Callable[[int], None] | None = None,
) -> MaskColumn:
    """Mask images with a model, measure all masks, and keep the first images to be shown.

    Args:
        label (str): Title of the column.
        model (nn.Module): A :class:`mmmlo.models.BaseMaskedAutoencoder` on the CPU; it is set to evaluation mode.
        images (torch.Tensor): Images as the config's pipeline returns them, before the model's ``data_preprocessor``:
            B x 3 x H x W in uint8, at least two.
        shown (int): How many of them, from the first on, are shown. The others are measured only.
        bgr (bool): Whether ``images`` have their channels in OpenCV's order, not in RGB. Defaults to True.
        seed (int): Seed of what the model draws: random masks, Gumbel noise. Models that draw alike get the same masks.
            The random state outside is left as it was. Defaults to 0.
        detail (str): Small print below the title. Defaults to none.
        progress (Callable, optional): Called with the number of images of every batch that is done.

    Returns:
        MaskColumn: The column.
    """
    model.eval()
    undo = undo_preprocessing(model.data_preprocessor, bgr)
    scores, originals, filled = [], [], []
    masks: list[torch.Tensor] = []
    with torch.random.fork_rng(devices=[]):
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
            scores.append(masking.mask_prob.float())
            masks.append(masking.selection.mask.float())
            if progress is not None:
                progress(len(batch))
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


def _heat(scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Scores, N x h x w, as colours over the images in grey, N x H x W x 3."""
    colours = torch.from_numpy(colormaps[COLORMAP](scores.numpy())[..., :3]).float()
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
        names (Sequence[str]): A name for each row. Defaults to none.
        note (str): Small print below everything. Defaults to none.
    """
    # The original at the highest resolution that one of the models has.
    original = max((column.images for column in columns), key=lambda images: images.shape[1] * images.shape[2])
    height = PANEL * max(images.shape[1] / images.shape[2] for images in (original, *(c.images for c in columns)))
    group = 3 * PANEL + 2 * GAP
    width = LEFT + PANEL + len(columns) * (COLUMN_GAP + group) + RIGHT
    note_lines = textwrap.wrap(note, int((width - LEFT) / 0.048))
    bottom = BOTTOM + NOTE_LINE * len(note_lines)
    total = TOP + len(original) * (height + GAP) - GAP + bottom

    figure = Figure(figsize=(width, total))

    def panel(name: str, row: int, left: float, picture: torch.Tensor) -> Axes:
        lower = total - TOP - height - row * (height + GAP)
        axes = figure.add_axes((left / width, lower / total, PANEL / width, height / total), label=f'{name}/{row}')
        axes.imshow(picture.numpy(), interpolation='auto')
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(linewidth=0.4, color='0.4')
        return axes

    def write(x: float, y: float, text: str, size: float, **options: Any) -> None:
        """Write at inches from the lower left."""
        figure.text(x / width, y / total, text, **{'fontsize': size, 'ha': 'center', 'va': 'center', **options})

    head = total - TOP + 0.1
    write(LEFT + PANEL / 2, head, 'original', 7)
    for row, picture in enumerate(original):
        axes = panel('original', row, LEFT, picture)
        if row < len(names):
            axes.set_ylabel(_shorten(names[row], int(height / 0.055)), fontsize=6, labelpad=2)

    for index, column in enumerate(columns):
        left = LEFT + PANEL + COLUMN_GAP + index * (group + COLUMN_GAP)
        pictures = {
            'mask_prob': _heat(column.mask_prob, column.images),
            'visible': _covered(column.images, column.mask),
            'reconstruction': column.reconstruction,
        }
        for place, (name, some) in enumerate(pictures.items()):
            x = left + place * (PANEL + GAP)
            write(x + PANEL / 2, head, name, 7)
            for row, picture in enumerate(some):
                panel(f'{index}/{name}', row, x, picture)
        middle = left + group / 2
        # A bold character is about size / 115 inches wide.
        size = min(9, max(5.5, 115 * group / max(len(column.label), 1)))
        write(middle, total - TOP + 0.52, _shorten(column.label, int(115 * group / size)), size, weight='bold')
        write(middle, total - TOP + 0.35, _shorten(column.detail, int(group / 0.05)), 6.5, color='0.35')
        y = (total - TOP + 0.23) / total
        figure.add_artist(Line2D([left / width, (left + group) / width], [y, y], color='0.3', linewidth=0.6))
        statistics = {name.replace('_', ' '): f'{value:.3f}' for name, value in column.statistics.items()}
        for place, names_below in enumerate((['mean score', 'saturation'], ['overlap'])):
            x = left + place * (PANEL + GAP) + PANEL / 2
            for line, name in enumerate(names_below):
                write(x, bottom - 0.1 - 0.13 * line, f'{name} {statistics[name]}', 7)

    # Mixed with mid-grey, as the colours in the heat maps are with the images.
    colours = ListedColormap(HEAT * colormaps[COLORMAP](range(256))[:, :3] + (1 - HEAT) * 0.5)
    bar_height = min(height * len(original) + GAP * (len(original) - 1), 2 * PANEL)
    bar = figure.add_axes(
        ((width - RIGHT + 0.12) / width, (total - TOP - bar_height) / total, 0.09 / width, bar_height / total)
    )
    figure.colorbar(ScalarMappable(cmap=colours), cax=bar)
    bar.tick_params(labelsize=6, width=0.4, length=2, pad=1.5)
    bar.set_ylabel('mask_prob', fontsize=6.5, labelpad=2)
    for line, text in enumerate(note_lines):
        write(LEFT, bottom - BOTTOM + 0.02 - NOTE_LINE * line, text, 6, ha='left', color='0.35')
    figure.savefig(path, dpi=min(DPI, MOST_PIXELS / max(width, total)))


def _shorten(text: str, length: int) -> str:
    """Leave the end of a text that is too long: names of files differ there."""
    return text if len(text) <= length else f'…{text[1 - length:]}'
