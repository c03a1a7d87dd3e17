"""Draw masks with the spectrum of a colour, as in ColorMAE."""

import torch

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMasker, to_mask_prob

_COLORS = ('white', 'red', 'blue', 'green', 'purple')


@MODELS.register_module()
class ColorMasker(BaseMasker):
    """Filtered noise, whose largest values stay visible: ColorMAE (Hinojosa et al., ECCV 2024), with weight 1 in the loss.

    'red' noise has low frequencies, so visible patches come in clusters; 'blue' high ones, so they keep apart; 'green' those
    in between, clusters that keep apart, the best in the paper; 'purple' all but those; 'white' all, as in MAE. Noise is
    drawn anew for each image and filtered by Gaussians, where the released code cuts windows out of a stored stack.

    Args:
        color (str): One of these. Defaults to 'green'.
        sigma (float): Deviation of the Gaussian in patches. Green is between a half and twice of it. Defaults to 1.

    Raises:
        SettingError: There is no such colour, or the deviation is not positive.
    """

    weighted = False

    def __init__(self, color: str = 'green', sigma: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if color not in _COLORS:
            raise SettingError(f'model.masker.color must be one of {", ".join(map(repr, _COLORS))}, got {color!r}')
        if sigma <= 0:
            raise SettingError(f'model.masker.sigma must be positive, got {sigma}')
        self.color, self.sigma = color, sigma

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Draw a score a patch; see :meth:`BaseMasker.forward`."""
        (height, width), device = grid, tokens.device
        # Filtered at twice the size, so that opposite borders of the grid are no neighbours.
        noise = torch.randn(len(tokens), 2 * height, 2 * width, device=device)
        rows, columns = (torch.fft.fftfreq(2 * size, device=device) for size in grid)  # cycles a patch
        square = rows[:, None] ** 2 + columns**2  # 2H x 2W
        noise = torch.fft.ifft2(torch.fft.fft2(noise) * self._gain(square)).real[:, :height, :width]
        return to_mask_prob(-noise.flatten(1))  # the sign is that of the released code

    def _gain(self, square: torch.Tensor) -> torch.Tensor:
        """Gain of each frequency, given its square."""

        def low(sigma: float) -> torch.Tensor:
            return torch.exp(-2 * (torch.pi * sigma) ** 2 * square)

        band = low(self.sigma / 2) - low(2 * self.sigma)
        red = low(self.sigma)
        return dict(white=torch.ones_like(red), red=red, blue=1 - red, green=band, purple=1 - band / band.max())[self.color]
