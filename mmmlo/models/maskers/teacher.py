"""Score patches by what a moving average of the model finds in them, such as how hard they are."""

import copy
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..losses import RankingLoss
from ..selection import num_visible
from .base import BaseMasker, to_mask_prob

__all__ = ['HardnessMasker', 'PredictedLossMasker', 'TeacherLossMasker', 'TeacherMasker']


class TeacherMasker(BaseMasker):
    """A masker that asks a teacher, an exponential moving average of parts of the model.

    The teacher is in the model's checkpoints; ``mmmlo.TeacherHook`` moves it in every iteration.

    Args:
        momentum (float): How far the teacher goes towards the model in an iteration. Defaults to 0.001. HPM goes from there
            to 0.0001, by a ``mmmlo.ScheduleHook`` for 'masker.momentum'.

    Raises:
        SettingError: The momentum is outside (0, 1].
    """

    full_precision = False
    teacher: Any

    def __init__(self, momentum: float = 0.001, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not 0 < momentum <= 1:
            raise SettingError(f'model.masker.momentum must be above 0 and at most 1, got {momentum}')
        self.momentum = momentum
        self.moves = False  # set by the hook

    @abstractmethod
    def parts(self, model: Any) -> nn.ModuleDict:
        """Name the parts of the model that the teacher follows."""

    def attach(self, model: Any) -> None:
        """Make the teacher, before the model is initialized."""
        self.teacher = copy.deepcopy(self.parts(model)).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'TeacherMasker':
        """Leave the teacher without dropout."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def move(self, model: Any, momentum: float | None = None) -> None:
        """Move the teacher towards the model; ``momentum=1`` makes them equal."""
        _follow(self.teacher, self.parts(model), momentum or self.momentum)

    def check_moves(self) -> None:
        """Raise a SettingError if in training nothing moves the teacher."""
        if self.training and not self.moves:
            raise SettingError(
                f"nothing moves the teacher of model.masker, a {type(self).__name__}; add dict(type='mmmlo.TeacherHook') to "
                'custom_hooks'
            )


class HardnessMasker(TeacherMasker):
    """A masker that asks its teacher which patches are hard.

    Scores are the sigmoid of the losses, standardized within an image: absolute losses shrink during training.
    """

    @abstractmethod
    def hardness(self, images: torch.Tensor) -> torch.Tensor:
        """Tell how hard the patches of images, B x 3 x H x W, are: B x L, larger is harder."""

    @torch.no_grad()
    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        self.check_moves()
        loss = self.hardness(images).to(torch.promote_types(images.dtype, torch.float32))  # B x L
        deviation, mean = torch.std_mean(loss, dim=1, keepdim=True)
        # Noise, so that of patches that are equally hard the first ones are not masked more often.
        return to_mask_prob((loss - mean) / (deviation + 1e-6) + 1e-5 * torch.rand_like(loss))


def _follow(teacher: nn.Module, model: nn.Module, momentum: float) -> None:
    for own, new in zip(teacher.parameters(), model.parameters()):
        own.lerp_(new, momentum)


@MODELS.register_module()
class TeacherLossMasker(HardnessMasker):
    """The reconstruction loss of the teacher under random masks, as in AnatoMask (Li et al., 2024).

    Args:
        passes (int): Masks an image, whose visible patches are others each time. In one pass, as released, a patch that is
            visible there has loss 0; two leave none out at a mask ratio of 0.5 or more, as weights need. Defaults to 1.
        momentum (float): See :class:`TeacherMasker`.
        later (float, optional): Momentum of a second, quicker teacher, whose loss is subtracted: what has been learned in
            between, as a loss that can be reduced (Mindermann et al., ICML 2022). Defaults to None, the loss itself.

    Raises:
        SettingError: There is no pass, the second teacher is slower, or see :class:`TeacherMasker`.
    """

    def __init__(
        self, passes: int = 1, momentum: float = 0.001, later: float | None = None, init_cfg: dict | None = None
    ) -> None:
        super().__init__(momentum, init_cfg)
        if passes < 1:
            raise SettingError(f'model.masker.passes must be at least 1, got {passes}')
        if later is not None and not momentum < later <= 1:
            raise SettingError(f'model.masker.later must be above momentum, {momentum}, and at most 1, got {later}')
        self.passes, self.later = passes, later

    def parts(self, model: Any) -> nn.ModuleDict:
        """Name the parts of the model that the teacher follows."""
        return nn.ModuleDict(dict(backbone=model.backbone, neck=model.neck, head=model.head))

    def attach(self, model: Any) -> None:
        """Make the teachers, before the model is initialized."""
        super().attach(model)
        if self.later is not None:
            self.teacher['later'] = copy.deepcopy(self.teacher)

    @torch.no_grad()
    def move(self, model: Any, momentum: float | None = None) -> None:
        """Move the teachers; see :meth:`TeacherMasker.move`."""
        super().move(model, momentum)
        if self.later is not None:
            _follow(self.teacher['later'], self.parts(model), momentum or self.later)

    def hardness(self, images: torch.Tensor) -> torch.Tensor:
        """Average the loss of each patch over the passes that hide it; see :meth:`HardnessMasker.hardness`."""
        length = math.prod(self.teacher['backbone'].grid_size)
        order = torch.rand(len(images), length, device=images.device).argsort(dim=1)  # B x L
        loss = self._loss(self.teacher, images, order)  # B x L
        return loss if self.later is None else loss - self._loss(self.teacher['later'], images, order)

    def _loss(self, teacher: Any, images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        backbone, neck, head = (teacher[name] for name in ('backbone', 'neck', 'head'))
        tokens, _ = backbone.embed(images)  # B x L x C
        visible = num_visible(order.shape[1], self.mask_ratio)
        losses = []
        for i in range(self.passes):
            ids_keep, ids_masked = order.roll(-i * visible, dims=1).split([visible, order.shape[1] - visible], dim=1)
            pred = neck.decode_masked(backbone.encode(tokens, ids_keep), ids_keep, ids_masked)
            loss = head.patch_loss(pred, images, ids_masked)  # B x M
            losses.append(loss.new_full(order.shape, torch.nan).scatter(1, ids_masked, loss))
        return torch.stack(losses).nanmean(dim=0).nan_to_num()


@MODELS.register_module()
class PredictedLossMasker(HardnessMasker):
    """The loss that the teacher of a :class:`RankingLoss` predicts of whole images, as in HPM (Wang et al., CVPR 2023).

    As in the released code the predictor learns from masked images and is asked about whole ones.

    Args:
        momentum (float): See :class:`TeacherMasker`.

    Raises:
        SettingError: ``model.extra_losses`` has no ranking loss, or see :class:`TeacherMasker`.
    """

    def parts(self, model: Any) -> nn.ModuleDict:
        """Name the parts of the model that the teacher follows."""
        ranking = [loss for loss in model.extra_losses.values() if isinstance(loss, RankingLoss)]
        if not ranking:
            raise SettingError(
                'model.masker is a PredictedLossMasker, which asks the predictor of a loss; add one of '
                "dict(type='mmmlo.RankingLoss', predictor=...) to model.extra_losses"
            )
        return nn.ModuleDict(dict(backbone=model.backbone, predictor=ranking[0].predictor))

    def hardness(self, images: torch.Tensor) -> torch.Tensor:
        """Predict the loss of each patch; see :meth:`HardnessMasker.hardness`."""
        tokens, _ = self.teacher['backbone'].embed(images)  # B x L x C
        in_order = torch.arange(tokens.shape[1], device=images.device).expand(len(tokens), -1)
        return self.teacher['predictor'](self.teacher['backbone'].encode(tokens), in_order).mean(dim=-1)
