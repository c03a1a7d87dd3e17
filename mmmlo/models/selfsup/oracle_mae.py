"""Masked autoencoder that is told which patches are worth something: what learned masks can reach at most."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from mmmlo.registry import MODELS
from mmmlo.utils.errors import DataError

from ..selection import select_patches
from ..weighting import mean_one
from .base import Masking
from .mae import MAE

__all__ = ['OracleMAE', 'patch_worth']


def patch_worth(data_samples: list, grid: tuple[int, int]) -> torch.Tensor:
    """Read which patches hold something of worth, from the samples of :class:`mmmlo.datasets.ClutteredDigits`.

    Args:
        data_samples (list): Samples with ``worth``, H x W.
        grid (tuple[int, int]): Patches along the height and the width.

    Returns:
        torch.Tensor: B x L, 1 where more than a tenth of the patch is covered, else 0.

    Raises:
        DataError: A sample tells no worth.
    """
    if not data_samples or any('worth' not in sample for sample in data_samples):
        raise DataError(
            "the samples tell no worth; use a data set that has it, as mmmlo.ClutteredDigits, and name 'worth' among the "
            'meta_keys of PackInputs'
        )
    worth = torch.stack([torch.as_tensor(sample.worth) for sample in data_samples])[:, None]  # B x 1 x H x W
    return (adaptive_avg_pool2d(worth, grid).flatten(1) > 0.1).float()


@MODELS.register_module()
class OracleMAE(MAE):
    """MAE whose patches of worth count more in the loss, or are masked more often: an upper bound, not a method.

    Args:
        choose (bool): Whether worth moves the choice of the masked patches, by 2 in their logit, in place of their weight.
            Defaults to False: masks are random, and patches of worth count 11 times as much as others.
        **kwargs: Arguments of :class:`MAE`.
    """

    def __init__(self, *args, choose: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.choose = choose

    def loss(
        self,
        inputs: torch.Tensor,
        data_samples: list | None = None,
        masking: Masking | None = None,
        labelled: dict | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss of the pretrain level, under masks that know the worth of the patches; see :class:`MAE`."""
        worth = patch_worth(data_samples or [], self.backbone.grid_size).to(inputs.device)  # B x L
        shares = dict(mask_ratio=self.draw_ratio(), throw_ratio=self.throw_ratio)
        if self.choose:
            scores = torch.sigmoid(2 * worth - 1)
            # Gumbel noise at temperature 1 draws in proportion to the scores.
            masking = Masking(scores, None, select_patches(scores, temperature=1.0, **shares))
        else:
            selection = select_patches(torch.rand_like(worth), **shares)
            masking = Masking(worth, mean_one(worth + 0.1, selection.mask), selection)
        return super().loss(inputs, data_samples, masking, labelled)
