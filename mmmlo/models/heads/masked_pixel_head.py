"""Score the reconstruction of each patch, and weight it."""

import torch
from mmpretrain.models import MAEPretrainHead
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class MaskedPixelHead(MAEPretrainHead):
    """mmpretrain's ``MAEPretrainHead`` on any (H, W) grid, returning per-patch losses that can be weighted.

    Args:
        loss (dict): Config of the pixel loss. Defaults to mean squared error.
        **kwargs: Other arguments of ``MAEPretrainHead``: ``norm_pix``, ``patch_size``, ``in_channels``.
    """

    def __init__(self, loss: dict | None = None, **kwargs) -> None:
        super().__init__(loss=loss or dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'), **kwargs)

    def patchify(self, imgs: torch.Tensor) -> torch.Tensor:
        """Cut images, B x C x H x W, into patches, row by row, B x L x (patch_size ** 2 * C), channels running fastest."""
        p = self.patch_size
        batch, channels, height, width = imgs.shape
        x = imgs.reshape(batch, channels, height // p, p, width // p, p)  # B x C x rows x p x columns x p
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, (height // p) * (width // p), p * p * channels)

    def unpatchify(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Put the patches of an (H, W) grid together into images, the inverse of :meth:`patchify`."""
        p = self.patch_size
        height, width = grid
        x = x.reshape(x.shape[0], height, width, p, p, self.in_channels)  # B x rows x columns x p x p x C
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], self.in_channels, height * p, width * p)

    def construct_target(self, target: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Take what is to be predicted of patches: their pixels, with ``norm_pix`` less their mean and over their deviation.

        Args:
            target (torch.Tensor): Preprocessed images, B x C x H x W.
            ids (torch.Tensor, optional): Indices of the patches, B x M; all in order without.

        Returns:
            torch.Tensor: B x M x (patch_size ** 2 * C).
        """
        patches = self.patchify(target)  # B x L x (p * p * C)
        if ids is not None:
            patches = patches.gather(1, ids.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))  # B x M x (p * p * C)
        if self.norm_pix:
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            patches = (patches - mean) / (variance + 1e-6) ** 0.5
        return patches

    def patch_loss(self, pred: torch.Tensor, images: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the reconstruction loss of each patch.

        Args:
            pred (torch.Tensor): Predictions, B x M x (patch_size ** 2 * C).
            images (torch.Tensor): Preprocessed images, B x C x H x W.
            ids (torch.Tensor, optional): Indices of the patches that are predicted, B x M; all in order without.

        Returns:
            torch.Tensor: B x M, the mean over a patch's pixels, in fp32 at least.
        """
        target = self.construct_target(images, ids)
        # bf16 predictions would round the loss that the hypergradient differentiates.
        loss = self.loss_module.penalty(pred.to(target.dtype), target)  # B x M x (p * p * C)
        return loss.mean(dim=-1) / self.loss_module.channel

    def masked_loss(
        self, pred: torch.Tensor, images: torch.Tensor, ids_masked: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Average the loss over the masked patches, each weighted: equation (1) of MLO-MAE up to a constant.

        The denominator counts masked patches and never sums weights: ``weight`` is not a mask.

        Args:
            pred (torch.Tensor): Predictions, B x M x (patch_size ** 2 * C).
            images (torch.Tensor): Preprocessed images, B x C x H x W.
            ids_masked (torch.Tensor): Indices of the masked patches, B x M.
            weight (torch.Tensor, optional): Weight of every patch, B x L; 1 everywhere without, as in MAE.

        Returns:
            torch.Tensor: A scalar.
        """
        loss = self.patch_loss(pred, images, ids_masked)  # B x M
        return (loss if weight is None else loss * weight.gather(1, ids_masked)).mean()

    def residuals(
        self, pred: torch.Tensor, images: torch.Tensor, ids_masked: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute what :meth:`masked_loss` is the sum of the squares of, B x M x (patch_size ** 2 * C).

        No gradient flows to the weight. Arguments are those of :meth:`masked_loss`.

        Raises:
            SettingError: The pixel loss is no squared error.
        """
        if not isinstance(self.loss_module.penalty, nn.MSELoss):
            raise SettingError(
                "hypergradient.matrix='gauss_newton' needs squared errors; set model.head.loss.criterion='L2', or "
                "matrix='hessian'"
            )
        target = self.construct_target(images, ids_masked)
        scale = target.new_tensor(1 / (target.numel() * self.loss_module.channel))
        if weight is not None:
            scale = scale * weight.detach().gather(1, ids_masked).unsqueeze(-1)  # B x M x 1
        return scale.sqrt() * (pred.to(target.dtype) - target)
