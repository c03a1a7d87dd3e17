"""Other maskers, frozen or dealt to the wrong images, and one that knows no image: what is it that a masker has learned?"""

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMasker, to_mask_prob


class _Around(BaseMasker):
    """Around another masker, whose needs and loss it takes over."""

    def __init__(self, masker: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.masker = MODELS.build(masker)
        for name in ('grid', 'embed_dims', 'patch_size', 'weighted', 'full_precision'):
            setattr(self, name, getattr(self.masker, name))
        if hasattr(self.masker, 'loss'):
            self.loss = self.masker.loss

    def attach(self, model: nn.Module) -> None:
        """Have the masker inside take what it needs; see :meth:`BaseMasker.attach`."""
        self.masker.attach(model)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        self.masker.mask_ratio = self.mask_ratio
        return self.masker(images, tokens, grid)


@MODELS.register_module()
class FrozenMasker(_Around):
    """A masker that does not learn: what its architecture alone is worth, or the masks of another run.

    Args:
        masker (dict): The masker, at its random initialization, or with ``init_cfg=dict(type='Pretrained', checkpoint=...,
            prefix='masker.')`` as another run has learned it.
    """

    def __init__(self, masker: dict, init_cfg: dict | None = None) -> None:
        super().__init__(masker, init_cfg)
        self.requires_grad_(False)


@MODELS.register_module()
class PermutedMasker(_Around):
    """A masker whose scores go to other images of the batch: what remains is what it knows of positions.

    Args:
        masker (dict): The masker, which may learn.

    Raises:
        SettingError: A batch has a single image.
    """

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches of each image's neighbour at a random distance; see :meth:`BaseMasker.forward`."""
        if len(tokens) < 2:
            raise SettingError('mmmlo.PermutedMasker deals scores to other images, and a batch has one; make it larger')
        return super().forward(images, tokens, grid).roll(int(torch.randint(1, len(tokens), ())), dims=0)


@MODELS.register_module()
class PositionMasker(BaseMasker):
    """A learned score for each position, the same for every image: what there is to gain without looking.

    Args:
        grid (tuple[int, int]): Patches along the height and the width.
    """

    def __init__(self, grid: tuple[int, int], init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.grid = (grid[0], grid[1])
        self.logits = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1]))

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        return to_mask_prob(self.logits).expand(len(tokens), -1)
