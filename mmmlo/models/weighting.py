"""Weight the loss of masked patches by their scores."""

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


def _mean_one(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Divide the weights by their mean over the masked patches of each image."""
    return weights / ((weights * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True))


@MODELS.register_module()
class UniformWeights(nn.Module):
    """Weight 1 for every patch: the scores choose and do not weight. What CL-MAE has without a weighting."""

    differentiable = False

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weight the patches; see :meth:`TopWeights.forward`."""
        return torch.ones_like(scores)


@MODELS.register_module()
class ScoreWeights(nn.Module):
    """The scores themselves, as in MLO-MAE, which has them without a weighting too.

    Args:
        normalize (bool): Whether they are divided by their mean over an image's masked patches. Defaults to False.
    """

    differentiable = True

    def __init__(self, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weight the patches; see :meth:`TopWeights.forward`."""
        return _mean_one(scores, mask) if self.normalize else scores


@MODELS.register_module()
class TopWeights(nn.Module):
    """Weights that count an image's best patches more often than the others, and leave none out.

    Of two weights only, the effective sample size is known beforehand: 0.4 at the defaults, however sure the scores are. So
    no few patches make up the loss, which would ruin the reconstruction of the rest. Not differentiable by the scores.

    Args:
        share (float): Share of an image's patches that count more. Defaults to 0.3.
        ratio (float): How many times as much they count. Defaults to 11.

    Raises:
        SettingError: ``share`` is not between 0 and 1, or ``ratio`` below 1.
    """

    differentiable = False

    def __init__(self, share: float = 0.3, ratio: float = 11.0) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise SettingError(f'model.weighting.share must be between 0 and 1, both excluded, got {share}')
        if ratio < 1:
            raise SettingError(f'model.weighting.ratio must be at least 1, got {ratio}')
        self.share, self.ratio = share, ratio

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weight the patches.

        Args:
            scores (torch.Tensor): ``mask_prob``, B x L.
            mask (torch.Tensor): 1 = masked, 0 = visible, B x L.

        Returns:
            torch.Tensor: B x L, with mean 1 over the masked patches of each image.
        """
        best = scores.topk(max(1, round(self.share * scores.shape[1])), dim=1).indices
        weights = torch.ones_like(scores).scatter(1, best, self.ratio)  # B x L
        return _mean_one(weights, mask)
