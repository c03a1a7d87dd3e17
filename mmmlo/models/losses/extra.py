"""Losses beside the reconstruction, on the encoder's features of the visible patches: ``model.extra_losses``."""

from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from mmmlo.registry import MODELS
from mmmlo.utils.errors import DataError, SettingError

__all__ = ['LogDetLoss', 'RankingLoss', 'SupervisedLoss', 'UniformityLoss']


class ExtraLoss(nn.Module):
    """A term of the pretrain level's loss, whose parameters that level trains.

    Args:
        loss_weight (float): Weight of the term.

    Attributes:
        reads_labels (bool): Whether :class:`mmmlo.models.BaseMaskedAutoencoder` gives it the features of labelled images
            where a loader of their own has some.
        reads_patch_loss (bool): Whether it is called with the :class:`PatchSelection` and the unweighted loss of each masked
            patch, B x M, without a gradient, besides.

    Raises:
        SettingError: The weight is not positive.
    """

    reads_labels = False
    reads_patch_loss = False

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        if loss_weight <= 0:
            raise SettingError(
                f'loss_weight of a {type(self).__name__} in model.extra_losses must be positive, got {loss_weight}'
            )
        self.loss_weight = loss_weight

    def forward(self, latent: torch.Tensor, data_samples: list, *hidden: Any) -> torch.Tensor:
        """Compute the weighted loss, a scalar.

        Args:
            latent (torch.Tensor): Features of class token and visible patches, B x (1 + V) x C.
            data_samples (list): The images' samples.
            hidden: What ``reads_patch_loss`` asks for.
        """
        raise NotImplementedError


def _second_moment(latent: torch.Tensor) -> torch.Tensor:
    """Mean outer product, C x C, of the class tokens at length 1 over the images of all processes."""
    z = normalize(latent[:, 0].to(torch.promote_types(latent.dtype, torch.float32)), dim=1)  # B x C
    moment = z.T @ z / len(z)  # C x C
    # The gradient of this sum is summed too, so the average over processes that follows is that of the whole batch.
    return all_reduce(moment) / get_world_size() if get_world_size() > 1 else moment


@MODELS.register_module()
class UniformityLoss(ExtraLoss):
    """Mean of ``(z_i^T z_j)^2`` over all pairs of images of all processes, z being class tokens at length 1.

    The uniformity loss of U-MAE (Zhang et al., NeurIPS 2022), self-pairs included. The released code gathers features and
    keeps the gradient of a process's own slice, unsummed, so that its weight falls with the number of processes; here any
    number of processes has the gradient of the whole batch.

    Args:
        loss_weight (float): Weight of the loss. Defaults to 0.01, as published.
    """

    def __init__(self, loss_weight: float = 0.01) -> None:
        super().__init__(loss_weight)

    def forward(self, latent: torch.Tensor, data_samples: list, *hidden: Any) -> torch.Tensor:
        """Compute the loss; see :meth:`ExtraLoss.forward`."""
        with torch.autocast(latent.device.type, enabled=False):
            return self.loss_weight * _second_moment(latent).square().sum()


@MODELS.register_module()
class LogDetLoss(ExtraLoss):
    """``-logdet(I + mu / C * sum_i z_i z_i^T)`` over the images of all processes: the coding rate of M-MAE (2023).

    z are class tokens at length 1, of width C. The sum grows with the batch, as in the released code.

    Args:
        loss_weight (float): Weight of the loss. Defaults to 0.01, as published.
        mu (float): Scale of the features. Defaults to 1; the published settings also have 3.
    """

    def __init__(self, loss_weight: float = 0.01, mu: float = 1.0) -> None:
        super().__init__(loss_weight)
        if mu <= 0:
            raise SettingError(f'mu of a LogDetLoss in model.extra_losses must be positive, got {mu}')
        self.mu = mu

    def forward(self, latent: torch.Tensor, data_samples: list, *hidden: Any) -> torch.Tensor:
        """Compute the loss; see :meth:`ExtraLoss.forward`."""
        with torch.autocast(latent.device.type, enabled=False):
            moment = _second_moment(latent)  # C x C
            scale = self.mu * len(latent) * get_world_size() / len(moment)
            identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
            return -self.loss_weight * torch.logdet(identity + scale * moment)


@MODELS.register_module()
class SupervisedLoss(ExtraLoss):
    """Loss of a head on the encoder's features, as in SupMAE (Liang et al., 2022): labels used directly.

    The labels are those of the batch, read from the visible patches as in SupMAE; or, with
    ``train_cfg.dataloaders.labelled``, those of labelled images that are drawn beside the batch, which may be few. These are
    seen whole, as a downstream head will see them, unless a ``mask_ratio`` hides random patches of them. That is the
    control of MLO-MAE and GuidedMAE: the same labels, as many batches of them, and no mask learned.

    Args:
        head (dict): :class:`TokenClsHead` (``token`` is 'cls' or 'mean') or any of mmpretrain's heads.
        loss_weight (float): Weight of the loss. Defaults to 0.01, as published.
        mask_ratio (float): Share of patches that is hidden of images of ``train_cfg.dataloaders.labelled``. Defaults to 0.
    """

    reads_labels = True

    def __init__(self, head: dict, loss_weight: float = 0.01, mask_ratio: float = 0.0) -> None:
        super().__init__(loss_weight)
        self.head: Any = MODELS.build(head)
        self.mask_ratio = mask_ratio

    def forward(self, latent: torch.Tensor, data_samples: list, *hidden: Any) -> torch.Tensor:
        """Compute the loss; see :meth:`ExtraLoss.forward`.

        Raises:
            DataError: There are no labels.
        """
        if not data_samples or 'gt_label' not in data_samples[0]:
            raise DataError(
                'a SupervisedLoss in model.extra_losses needs labels, and the images have none; give train_dataloader '
                'labelled images, or labelled ones a loader of their own, train_cfg.dataloaders.labelled'
            )
        losses = self.head.loss((latent,), data_samples)
        return self.loss_weight * sum(value for name, value in losses.items() if 'loss' in name)


@MODELS.register_module()
class RankingLoss(ExtraLoss):
    """Teach a second decoder which of two masked patches has the larger loss, as in HPM (Wang et al., CVPR 2023).

    Binary cross entropy of ``s_j - s_i`` against ``l_j > l_i``, averaged over the ordered pairs of an image's masked patches
    whose losses l differ; s is the mean of what the decoder predicts for a patch. It trains the encoder too, which by the
    paper helps already; :class:`mmmlo.models.PredictedLossMasker` asks the decoder's moving average which patches to mask.

    Args:
        predictor (dict): A :class:`GridMAEDecoder` for the backbone's tokens.
        loss_weight (float): Weight of the loss. Defaults to 1, as published.
    """

    reads_patch_loss = True

    def __init__(self, predictor: dict, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.predictor: Any = MODELS.build(predictor)

    def forward(self, latent: torch.Tensor, data_samples: list, *hidden: Any) -> torch.Tensor:
        """Compute the loss; see :meth:`ExtraLoss.forward`."""
        selection, patch_loss = hidden
        scores = self.predictor.decode_masked(latent, selection.ids_keep, selection.ids_masked).mean(dim=-1).to(patch_loss)
        difference = scores[:, None] - scores[:, :, None]  # B x M x M, s_j - s_i
        harder = (patch_loss[:, None] > patch_loss[:, :, None]).to(scores)  # B x M x M
        valid = patch_loss[:, None] != patch_loss[:, :, None]  # B x M x M
        losses = binary_cross_entropy_with_logits(difference, harder, reduction='none')
        return self.loss_weight * (losses * valid).sum() / valid.sum().clamp(min=1)
