"""What the masked autoencoders of this project share: masking, reconstruction and the contract of levels."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_world_size
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import nn
from torch.distributed.nn.functional import all_reduce

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..maskers import BaseMasker
from ..selection import PatchSelection, num_visible, select_patches
from ..weighting import mean_one


class Masking(NamedTuple):
    """The masks of a batch.

    Attributes:
        mask_prob (torch.Tensor): Scores, B x L, in (0, 1); the graph to the masker hangs on them.
        weight (torch.Tensor | None): Weight of every patch's loss, B x L, or None for 1.
        selection (PatchSelection): Which patches are masked; carries no gradient.
        soft (torch.Tensor | None): The soft masks of :class:`AutoMAE`, B x L, from which the hard ones were made.
    """

    mask_prob: torch.Tensor
    weight: torch.Tensor | None
    selection: PatchSelection
    soft: torch.Tensor | None = None


class BaseMaskedAutoencoder(BaseSelfSupervisor):
    """Masked autoencoder whose masks come from a masker, trained on one or several levels.

    A level is one optimization problem: its modules (:attr:`level_modules`) and its loss (:meth:`level_loss`). The
    algorithm knows losses and no optimizer; :class:`mmmlo.engine.MultiLevelOptimWrapper` knows optimizers and no images.
    ``loss()`` is the pretrain level's, which is mmpretrain's contract for self-supervised algorithms.

    Args:
        backbone (dict): A :class:`MaskedViT`.
        neck (dict): Decoder, a :class:`GridMAEDecoder`.
        head (dict): A :class:`MaskedPixelHead`.
        masker (dict): Network that scores patches.
        mask_ratio (float): Share of patches that are masked. Defaults to 0.75.
        mask_ratio_range (tuple[float, float], optional): Range from which the ratio is drawn for each batch and process, in
            place of ``mask_ratio``, as in R2MAE (Dong et al., 2025). Defaults to None.
        temperature (float): Scale of Gumbel noise on the scores, see :func:`select_patches`. Defaults to 0, none.
        normalize_weights (bool): Whether an image's weights are divided by their mean over its masked patches, so that the
            loss cannot fall by scores falling everywhere; nothing in equation (1) of MLO-MAE prevents that. A mean an
            image, not a batch, keeps the loss the same on any number of processes. Defaults to False, as in the paper.
        guided_share (float): Share of the masked patches that are chosen by their scores; the others are drawn uniformly.
            Defaults to 1. At 0 scores only weight the loss.
        throw_ratio (float): Share of the patches that are neither seen nor reconstructed, those between the masked and the
            visible ones in the order of scores, as in AMT (Liu et al., AAAI 2023). Defaults to 0.
        weighting (dict, optional): What makes weights of scores, as :class:`mmmlo.models.TopWeights`. Defaults to None:
            the scores are the weights, or with ``normalize_weights`` divided by their mean.
        weight_share (float): Weights w of the patches become 1 + ``weight_share`` * (w - 1). Defaults to 1; at 0 all are 1.
            ``mmmlo.ScheduleHook`` moves this and other numbers.
        extra_losses (dict, optional): Name -> a loss beside the reconstruction, as :class:`mmmlo.models.UniformityLoss`,
            which the pretrain level adds as ``loss_<name>``.
        data_preprocessor (dict, optional): As in mmpretrain's ``BaseSelfSupervisor``.

    Raises:
        SettingError: The mask ratio leaves no visible patch, or masker, decoder or head do not fit the backbone.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        masker: dict | BaseMasker,
        mask_ratio: float = 0.75,
        temperature: float = 0.0,
        normalize_weights: bool = False,
        guided_share: float = 1.0,
        throw_ratio: float = 0.0,
        weighting: dict | None = None,
        weight_share: float = 1.0,
        extra_losses: dict[str, dict] | None = None,
        mask_ratio_range: tuple[float, float] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.masker = masker if isinstance(masker, BaseMasker) else MODELS.build(masker)
        self.mask_ratio = mask_ratio
        self.mask_ratio_range = mask_ratio_range
        self.temperature = temperature
        self.normalize_weights = normalize_weights
        self.guided_share = guided_share
        self.throw_ratio = throw_ratio
        self.weighting = None if weighting is None else MODELS.build(weighting)
        self.weight_share = weight_share
        self.extra_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in (extra_losses or {}).items()})
        if weighting is not None and not self.masker.weighted:
            raise SettingError(f'model.weighting has no scores to weigh by: model.masker is a {type(self.masker).__name__}')
        self._check_shapes()
        self.masker.attach(self)

    def _check_shapes(self) -> None:
        grid, embed_dims = self.backbone.grid_size, self.backbone.embed_dims
        for ratio in (self.mask_ratio, *(self.mask_ratio_range or ())):
            num_visible(grid[0] * grid[1], ratio)
            if self.throw_ratio < 0 or ratio + self.throw_ratio >= 1:
                raise SettingError(
                    f'model.throw_ratio {self.throw_ratio} and model.mask_ratio {ratio} must leave visible patches: let '
                    'their sum be below 1'
                )
        if self.mask_ratio_range is not None and self.mask_ratio_range[0] > self.mask_ratio_range[-1]:
            raise SettingError(f'model.mask_ratio_range must be two ratios in order, got {self.mask_ratio_range}')
        patch_size = self.backbone.patch_size
        for key, built_for, right in (
            ('masker.grid', self.masker.grid, grid),
            ('neck.grid', self.neck.grid_size, grid),
            ('masker.embed_dims', self.masker.embed_dims, embed_dims),
            ('masker.patch_size', self.masker.patch_size, patch_size),
            ('neck.embed_dim', self.neck.embed_dim, embed_dims),
            ('neck.patch_size', self.neck.patch_size, patch_size),
            ('head.patch_size', self.head.patch_size, patch_size),
            *(
                (f'extra_losses.{name}.head.in_channels', getattr(extra.head, 'in_channels', None), embed_dims)
                for name, extra in self.extra_losses.items()
                if extra.reads_labels
            ),
            *(
                (f'extra_losses.{name}.predictor.{key}', getattr(extra.predictor, attribute), right)
                for name, extra in self.extra_losses.items()
                if extra.reads_patch_loss
                for key, attribute, right in (('grid', 'grid_size', grid), ('embed_dim', 'embed_dim', embed_dims))
            ),
        ):
            if built_for not in (None, right):
                raise SettingError(f'model.{key} is {built_for}, but model.backbone has {right}; set model.{key}={right}')

    @property
    def masker_learns(self) -> bool:
        """bool: Whether the masker has parameters that a level could train."""
        return any(parameter.requires_grad for parameter in self.masker.parameters())

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Names of the modules of each level, the lowest level first."""
        modules = ('backbone', 'neck', 'head')
        return dict(pretrain=(*modules, 'extra_losses') if self.extra_losses else modules)

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch.

        Args:
            level (str): A key of :attr:`level_modules`.
            batch (dict): Preprocessed ``inputs`` (B x 3 x H x W) and ``data_samples``; that of the pretrain level may have
                another such batch as ``labelled``, for extra losses that read labels.
            fixed (Any): What :meth:`fix_level` returned, where several passes must agree.

        Returns:
            dict[str, torch.Tensor]: Scalars; those with 'loss' in their name are summed.
        """
        if level != 'pretrain':
            raise KeyError(f'{type(self).__name__} has no level {level!r}; it has {list(self.level_modules)}')
        return self.loss(batch['inputs'], batch['data_samples'], masking=fixed, labelled=batch.get('labelled'))

    def fix_level(self, level: str, batch: dict) -> Any:
        """Compute what all passes of one hypergradient through this level share, at the unperturbed parameters.

        For the pretrain level these are the masks: perturbing the encoder would otherwise move the masker's input, and
        with it the scores and the choice of patches.
        """
        if level != 'pretrain':
            return None
        with torch.no_grad():
            tokens, grid = self.backbone.embed(batch['inputs'])
        return self.draw_masks(batch['inputs'], tokens, grid)

    def score(
        self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int], scorer: Callable | None = None
    ) -> torch.Tensor:
        """Score the patches, B x L, in the images' precision also under autocast, because scores weight the loss.

        Args:
            images (torch.Tensor): Preprocessed images, B x 3 x H x W.
            tokens (torch.Tensor): Embedded patches, B x L x C; detached here.
            grid (tuple[int, int]): Patches along the height and the width.
            scorer (Callable, optional): Another function of the masker that is called like it. Defaults to the masker.

        Raises:
            SettingError: The grid is not the one that the model is built for.
        """
        if tuple(grid) != self.backbone.grid_size:
            raise SettingError(
                f'images have a grid of {tuple(grid)} patches, but model.backbone.img_size, for which masker and decoder '
                f'are built, one of {self.backbone.grid_size}; resize or crop the images in the pipeline'
            )
        tokens = tokens.detach().to(images.dtype)
        with torch.autocast(images.device.type, enabled=False) if self.masker.full_precision else nullcontext():
            return (scorer or self.masker)(images, tokens, grid).to(images.dtype)

    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Score the patches and choose which to mask; the arguments are those of :meth:`score`."""
        self.masker.mask_ratio = self.draw_ratio()
        mask_prob = self.score(images, tokens, grid)
        selection = select_patches(
            mask_prob, self.masker.mask_ratio, self.temperature, self.guided_share, self.throw_ratio
        )
        return Masking(mask_prob, self.weigh(mask_prob, selection.mask) if self.masker.weighted else None, selection)

    def draw_ratio(self) -> float:
        """Draw the share of patches that is masked of the coming batch, where there is a range of them."""
        if self.mask_ratio_range is None:
            return self.mask_ratio
        low, high = self.mask_ratio_range
        return low + (high - low) * torch.rand(()).item()

    def weigh(self, mask_prob: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Make weights of the loss from the scores, B x L, of which the masked ones are read."""
        if not 0 <= self.weight_share <= 1:
            raise SettingError(f'model.weight_share must be from 0 to 1, got {self.weight_share}')
        weight = mask_prob
        if self.weighting is not None:
            weight = self.weighting(mask_prob, mask)
        elif self.normalize_weights:
            weight = mean_one(mask_prob, mask)
        return weight if self.weight_share == 1 else 1 + self.weight_share * (weight - 1)

    def loss(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
        masking: Masking | None = None,
        labelled: dict | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss of the pretrain level, equation (1) of MLO-MAE up to a constant: sum(mask * p * l) / sum(mask).

        Args:
            inputs (torch.Tensor): Preprocessed images, B x 3 x H x W.
            data_samples (list[DataSample], optional): For ``extra_losses``: no labels enter the reconstruction.
            masking (Masking, optional): Masks to use instead of drawing them.
            labelled (dict, optional): ``inputs`` and ``data_samples`` of the images whose labels ``extra_losses`` read.

        Returns:
            dict[str, torch.Tensor]: ``loss``; with extra losses ``loss_reconstruction`` and ``loss_<name>`` of each.
        """
        pred, latent, masking = self._predict(inputs, masking)
        ids_masked = masking.selection.ids_masked
        loss = self.head.masked_loss(pred, inputs, ids_masked, masking.weight)
        of_masker = self.masker_losses(masking, pred.detach(), inputs)
        if not of_masker and not self.extra_losses and labelled is None:
            return dict(loss=loss)
        hidden: tuple = ()
        if any(extra.reads_patch_loss for extra in self.extra_losses.values()):
            hidden = masking.selection, self.head.patch_loss(pred.detach(), inputs, ids_masked)
        extra = self._extra_losses(latent, data_samples or [], labelled, hidden)
        return dict(loss_reconstruction=loss, **of_masker, **extra)

    def masker_losses(self, masking: Masking, pred: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses that train the masker in the pretrain level, by an algorithm that has its masker there; none.

        Args:
            masking (Masking): The masks.
            pred (torch.Tensor): Predictions of the masked patches, B x M x P, detached.
            images (torch.Tensor): Preprocessed images, B x 3 x H x W.
        """
        return {}

    def _predict(self, images: torch.Tensor, masking: Masking | None) -> tuple[torch.Tensor, torch.Tensor, Masking]:
        """Predictions of the masked patches, B x M x P, features of the visible ones, B x (1 + V) x C, and the masks."""
        tokens, grid = self.backbone.embed(images)  # B x L x C
        if masking is None:
            masking = self.draw_masks(images, tokens, grid)
        _, ids_keep, ids_masked, _ = masking.selection
        latent = self.backbone.encode(self.gate(tokens, masking), ids_keep)  # B x (1 + V) x C
        return self.neck.decode_masked(latent, ids_keep, ids_masked), latent, masking

    def gate(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Return embedded patches, B x L x C, as they are; an algorithm may let a gradient to the scores hang on them."""
        return tokens

    def soft_reconstruction_loss(
        self, images: torch.Tensor, tokens: torch.Tensor, mask_prob: torch.Tensor
    ) -> torch.Tensor:
        """Reconstruction loss under soft masks, which the masker can be differentiated through.

        ``sum(p * l) / sum(p)`` over all patches of all images, of all processes; p is ``mask_prob``, B x L.
        """
        pred = self.soft_predict(tokens, mask_prob)  # B x L x P
        sums = torch.stack([(mask_prob * self.head.patch_loss(pred, images)).sum(), mask_prob.sum()])
        if get_world_size() > 1:
            # A mean of the processes' ratios is not the ratio of their sums. This sum's gradient is summed too, so the
            # average over processes that follows gives that of the ratio.
            sums = all_reduce(sums)
        return sums[0] / sums[1]

    def soft_predict(self, tokens: torch.Tensor, mask_prob: torch.Tensor) -> torch.Tensor:
        """Predict all patches, B x L x P, from embedded ones, B x L x C, each scaled by 1 - p, p being B x L."""
        latent = self.backbone.encode(tokens * (1 - mask_prob).unsqueeze(-1))  # B x (1 + L) x C
        in_order = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        return self.neck(latent, in_order)

    def level_residuals(self, level: str, batch: dict, fixed: Any = None) -> torch.Tensor:
        """Residuals whose squares sum up to the loss of the pretrain level, B x M x P, for its Gauss-Newton matrix.

        Arguments are those of :meth:`level_loss`.

        Raises:
            SettingError: The level's loss is no sum of squares.
        """
        if level != 'pretrain' or self.level_modules[level] != ('backbone', 'neck', 'head'):
            raise SettingError(
                f"hypergradient.matrix='gauss_newton' needs a loss that is a sum of squares, and that of {level!r} has "
                "other terms; take matrix='hessian', or an estimator for each level: "
                'hypergradient=dict(pretrain=..., finetune=...)'
            )
        pred, _, masking = self._predict(batch['inputs'], fixed)
        return self.head.residuals(pred, batch['inputs'], masking.selection.ids_masked, masking.weight)

    def _extra_losses(
        self, latent: torch.Tensor, data_samples: list, labelled: dict | None, hidden: tuple
    ) -> dict[str, torch.Tensor]:
        if labelled is not None and not any(extra.reads_labels for extra in self.extra_losses.values()):
            raise SettingError(
                'train_cfg.dataloaders.labelled has images whose labels nothing reads; give model.extra_losses a '
                'mmmlo.SupervisedLoss, or leave the loader out'
            )
        losses = {}
        extra: Any
        for name, extra in self.extra_losses.items():
            features, samples = latent, data_samples
            if labelled is not None and extra.reads_labels:
                features, samples = self._encode_labelled(labelled['inputs'], extra.mask_ratio), labelled['data_samples']
            losses[f'loss_{name}'] = extra(features, samples, *hidden)
        return losses

    def _encode_labelled(self, images: torch.Tensor, mask_ratio: float) -> torch.Tensor:
        """Features of images, whole or without random patches, B x (1 + V) x C."""
        tokens, _ = self.backbone.embed(images)  # B x L x C
        if not mask_ratio:
            return self.backbone.encode(tokens)
        noise = torch.rand(tokens.shape[:2], device=tokens.device)  # B x L
        return self.backbone.encode(tokens, select_patches(noise, mask_ratio).ids_keep)

    def extract_feat(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of the unmasked images, B x 3 x H x W; see :meth:`MaskedViT.forward`."""
        return self.backbone(inputs)

    @torch.no_grad()
    def reconstruct(self, inputs: torch.Tensor) -> tuple[torch.Tensor, Masking]:
        """Mask images and fill in what was masked, for looking at.

        Where the head predicts normalized pixels (``norm_pix``), each patch's own mean and deviation are put back.

        Returns:
            tuple[torch.Tensor, Masking]: Images with the masked patches predicted, B x 3 x H x W, and the masks.
        """
        tokens, grid = self.backbone.embed(inputs)
        masking = self.draw_masks(inputs, tokens, grid)
        pred = self._predict_all(tokens, masking).float()  # B x L x P
        patches = self.head.patchify(inputs)  # B x L x P
        if self.head.norm_pix:
            pred = pred * (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=-1, keepdim=True)
        mask = masking.selection.mask.unsqueeze(-1)
        return self.head.unpatchify(mask * pred + (1 - mask) * patches, grid), masking

    def _predict_all(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Predictions of all patches, B x L x P."""
        latent = self.backbone.encode(tokens, masking.selection.ids_keep)  # B x (1 + V) x C
        return self.neck(latent, masking.selection.ids_restore)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Run the model as mmpretrain does.

        Raises:
            SettingError: A single loss is asked for to train a model of several levels, or a masker that no level trains.
        """
        if mode == 'loss':
            levels = self.level_modules
            if len(levels) > 1:
                raise SettingError(
                    f'{type(self).__name__} has the levels {list(levels)}, which one loss would mix up; set '
                    "optim_wrapper.constructor='mmmlo.MultiLevelOptimWrapperConstructor', "
                    "train_cfg.type='mmmlo.MultiLevelTrainLoop' and, on several GPUs, "
                    "model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')"
                )
            if self.masker_learns and 'masker' not in levels['pretrain']:
                raise SettingError(
                    f'model.masker, a {type(self.masker).__name__}, is in no level, and one optimizer would lower the '
                    'loss by its scores falling; give the model a downstream module, freeze the masker, or use '
                    'mmmlo.RandomMasker'
                )
        return super().forward(inputs, data_samples, mode)
