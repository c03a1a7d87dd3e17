"""Weight the loss of masked patches by their scores, without leaving any out."""

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


def mean_one(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Divide the weights by their mean over the masked patches of each image."""
    return weights / ((weights * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True))


def effective_sample_size(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute (sum w)^2 / (M sum w^2) over the M masked patches of each image, B, 1 if all weigh the same (Kish, 1965)."""
    weights = weights * mask  # B x L
    return weights.sum(dim=1) ** 2 / (mask.sum(dim=1) * (weights**2).sum(dim=1))


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
        return mean_one(scores, mask) if self.normalize else scores


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
        return mean_one(weights, mask)


@MODELS.register_module()
class SoftWeights(nn.Module):
    """Weights that follow the scores as far as these tell patches apart, and no further than a bound.

    A patch weighs ``floor + (1 - floor) * L * softmax(power * logit(score))``. Scores that are all alike weigh all patches
    alike; where scores are so sure that the :func:`effective_sample_size` of an image would fall below its bound, the power
    is lowered until it does not. Not differentiable by scores.

    Args:
        power (float): How strongly weights follow the scores. Defaults to 0.5.
        floor (float): Share of the weight that all patches have. Defaults to 0.1.
        min_sample_size (float): Least effective sample size, as a share. Defaults to 0.4.

    Raises:
        SettingError: ``power`` is negative, or another argument not between 0 and 1.
    """

    differentiable = False

    def __init__(self, power: float = 0.5, floor: float = 0.1, min_sample_size: float = 0.4) -> None:
        super().__init__()
        if power < 0:
            raise SettingError(f'model.weighting.power must not be negative, got {power}')
        for name, value in (('floor', floor), ('min_sample_size', min_sample_size)):
            if not 0 <= value < 1:
                raise SettingError(f'model.weighting.{name} must be from 0 to 1, 1 excluded, got {value}')
        self.power, self.floor, self.min_sample_size = power, floor, min_sample_size

    @torch.no_grad()
    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weight the patches; see :meth:`TopWeights.forward`."""
        logits = scores.logit(eps=1e-6)  # B x L
        low, high = torch.zeros_like(logits[:, :1]), torch.full_like(logits[:, :1], self.power)  # B x 1
        power = high
        for _ in range(12):  # bisection, image by image; the first try is the power itself
            size = effective_sample_size(self._weights(logits, power, mask), mask)
            enough = (size >= self.min_sample_size).unsqueeze(1)
            low, high = torch.where(enough, power, low), torch.where(enough, high, power)
            power = (low + high) / 2
        return self._weights(logits, low, mask)

    def _weights(self, logits: torch.Tensor, power: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = self.floor + (1 - self.floor) * logits.shape[1] * (power * logits).softmax(dim=1)  # B x L
        return mean_one(weights, mask)
