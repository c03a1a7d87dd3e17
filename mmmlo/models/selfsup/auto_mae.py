"""AutoMAE: masks whose shape a discriminator watches over, and which help the reconstruction."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..selection import select_patches
from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class MaskDiscriminator(nn.Module):
    """Three convolutions with spectral norm that tell rectangles from soft masks.

    Args:
        dims (int): Width of the first layer, of which the second has twice as much. Defaults to 16, as released.
    """

    def __init__(self, dims: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(1, dims, 4, stride=2, padding=1, bias=False)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(dims, 2 * dims, 4, stride=2, padding=1, bias=False)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * dims, 1, 3, padding=1, bias=False)),
        )

    def forward(self, masks: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Judge soft masks, B x L, each of sum 1: B x N, larger for a rectangle."""
        return self.layers(masks.unflatten(1, grid).unsqueeze(1)).flatten(1)


@MODELS.register_module()
class AutoMAE(BaseMaskedAutoencoder):
    """Improving Masked Autoencoders by Learning Where to Mask (Chen et al., PRCV 2023).

    A soft mask m is a draw of the Gumbel-softmax of the scores' logits over the patches of an image. Of the masked patches
    a share are those of the largest m, the others are random. Two levels, on the same batch:

    - ``pretrain``: encoder, decoder and masker minimize the reconstruction loss, which reaches the scores straight through
      (:meth:`gate`), plus ``adversarial_weight * (D(m) - 1)^2``, D being the discriminator, which stands still;
    - ``discriminator``: D minimizes ``(D(r) - 1)^2 + D(m)^2``, r being a random rectangle in noise, so that masks come in
      one piece.

    Args:
        discriminator (dict, optional): Defaults to a :class:`MaskDiscriminator`.
        adversarial_weight (float): Weight of the masks' shape. Defaults to 0.2, as released.
        gate_weight (float): Scale of the gradient from the reconstruction to m. Defaults to 0.5, as released.
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`. ``guided_share``, the share of the masked patches that m
            chooses, defaults to 1/3, which with a mask ratio of 0.75 is a quarter of all patches, as released.

    Raises:
        SettingError: The masker has nothing to learn, or ``temperature`` is given, which does nothing here.
    """

    def __init__(
        self,
        *args: Any,
        discriminator: dict | None = None,
        adversarial_weight: float = 0.2,
        gate_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('guided_share', 1 / 3)
        super().__init__(*args, **kwargs)
        if not self.masker_learns:
            raise SettingError(
                f'model.masker is a {type(self.masker).__name__} and has nothing to learn; use mmmlo.AttentionMapMasker'
            )
        if self.temperature:
            raise SettingError('model.temperature does nothing in mmmlo.AutoMAE, which draws soft masks; leave it out')
        self.discriminator: Any = MODELS.build(discriminator or dict(type='mmmlo.MaskDiscriminator'))
        self.adversarial_weight, self.gate_weight = adversarial_weight, gate_weight

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the levels."""
        return dict(pretrain=(*super().level_modules['pretrain'], 'masker'), discriminator=('discriminator',))

    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Score the patches, draw soft masks and choose; weights of the loss are those of a ``weighting`` alone."""
        self.masker.mask_ratio = self.draw_ratio()
        mask_prob = self.score(images, tokens, grid)
        soft = F.gumbel_softmax(mask_prob.logit(eps=1e-6), dim=1)  # B x L
        selection = select_patches(
            soft, self.masker.mask_ratio, guided_share=self.guided_share, throw_ratio=self.throw_ratio
        )
        weight = None if self.weighting is None else self.weigh(mask_prob, selection.mask)
        return Masking(mask_prob, weight, selection, soft)

    def gate(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Let embedded patches, B x L x C, hang on their soft masks: a factor of exactly 1 that has a derivative."""
        assert masking.soft is not None
        change = self.gate_weight * (masking.soft - masking.soft.detach()).to(tokens.dtype)  # B x L, zeros
        return tokens * (1 + change).unsqueeze(-1)

    def masker_losses(self, masking: Masking, pred: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss by the masks' shape; see :meth:`BaseMaskedAutoencoder.masker_losses`."""
        judged = self.discriminator(masking.soft, self.backbone.grid_size)
        return dict(loss_adversarial=self.adversarial_weight * (judged - 1).square().mean())

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch; see :meth:`BaseMaskedAutoencoder.level_loss`."""
        if level != 'discriminator':
            return super().level_loss(level, batch, fixed)
        with torch.no_grad():
            images = batch['inputs']
            tokens, grid = self.backbone.embed(images)
            soft = self.draw_masks(images, tokens, grid).soft
            rectangles = random_rectangles(len(images), grid, images.device).to(images.dtype)
        of_rectangles, of_masks = (self.discriminator(masks, grid) for masks in (rectangles, soft))
        return dict(loss_real=(of_rectangles - 1).square().mean(), loss_fake=of_masks.square().mean())


def random_rectangles(
    number: int, grid: tuple[int, int], device: torch.device | str = 'cpu', height: float = 0.5
) -> torch.Tensor:
    """Draw soft masks, number x L, each the softmax of a random rectangle of this height plus noise from 0 to 1.

    As released for a grid of 14 x 14, and in proportion on others: of 40 to 160 patches, and of 4 to 10 rows.
    """
    rows, columns = grid

    def uniform() -> torch.Tensor:
        return torch.rand(number, 1, 1, device=device)

    area = rows * columns * (40 + 120 * uniform()) / 196
    least = max(1, round(rows * 4 / 14))
    tall = (least + uniform() * (rows - 2 * least + 1)).floor()  # number x 1 x 1
    wide = (area / tall).ceil().clamp(max=columns)
    top, left = (uniform() * (rows - tall + 1)).floor(), (uniform() * (columns - wide + 1)).floor()
    row = torch.arange(rows, device=device)[:, None] - top  # number x rows x 1
    column = torch.arange(columns, device=device) - left  # number x 1 x columns
    inside = (row >= 0) & (row < tall) & (column >= 0) & (column < wide)  # number x rows x columns
    return (height * inside + torch.rand(inside.shape, device=device)).flatten(1).softmax(dim=1)
