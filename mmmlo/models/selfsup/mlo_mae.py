"""MLO-MAE: masks learned from the validation loss of a downstream task."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..downstream import TaskMix
from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class MLOMAE(BaseMaskedAutoencoder):
    """Downstream Task Guided Masking Learning in Masked Autoencoders Using Multi-Level Optimization (Guo et al., TMLR 2025).

    Three nested levels, each solved by gradient steps while the others stand still:

    - ``pretrain`` (equation 1): encoder and decoder reconstruct the masked patches, each weighted by its ``mask_prob``;
    - ``finetune`` (equation 2): the downstream head learns the labels of D_tr on the frozen encoder's features;
    - ``masking`` (equation 3): the masker lowers the downstream loss on D_val, through the solutions of the two others.

    The scores' weight in the first loss is the one differentiable link from the masker to everything below it.

    Args:
        downstream (dict, optional): Module with ``loss(features, data_samples) -> dict``, such as :class:`TokenClsHead` or
            any mmpretrain head. Features are the tuple that the backbone returns; of a :class:`SegmentationTask` maps of
            patches, and of a :class:`TaskMix` those of each task; or what the module's own
            ``encode(backbone, images)`` returns, as that of :class:`ReconstructionTask`. With a :class:`ClosedFormHead`,
            which is solved on D_tr whenever it is asked, there is no level ``finetune``. Defaults to None: only the
            pretrain level.
        bilevel (float, optional): Two levels in place of three: ``pretrain`` trains encoder, decoder and head together by
            L_pretrain + ``bilevel`` * L_finetune on labelled images, D_tr. This is our reading of the paper's ablation
            BLO-MAE, whose exact form was not found. Defaults to None: three levels.
        selection_gradient (str): What the hypergradient sees of the choice of patches: 'none', as in the paper, or
            'straight_through', see :meth:`gate`. Defaults to 'none'.
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`.
    """

    def __init__(
        self,
        *args,
        downstream: dict | nn.Module | None = None,
        bilevel: float | None = None,
        selection_gradient: str = 'none',
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if bilevel is not None and (downstream is None or bilevel <= 0):
            raise SettingError(
                f'model.bilevel, the weight of the downstream loss, must be positive and needs a downstream, got {bilevel}'
            )
        if downstream is not None and not isinstance(downstream, nn.Module):
            downstream = MODELS.build(downstream)
        self.downstream: Any = downstream
        mix = {f'model.downstream.tasks.{name}': task for name, task in getattr(downstream, 'tasks', {}).items()}
        for key, task in (mix or {'model.downstream': downstream}).items():
            if hasattr(task, 'check_backbone'):
                task.check_backbone(self.backbone, key)
        self.bilevel = bilevel
        self.closed_form = getattr(downstream, 'closed_form', False)
        if isinstance(downstream, TaskMix) and bilevel is not None:
            raise SettingError('model.bilevel reads labels of the pretrain level, and each task of a TaskMix has its own')
        if self.closed_form and bilevel is not None:
            raise SettingError('model.bilevel weights the loss of a head that learns; model.downstream has nothing to learn')
        if selection_gradient not in ('none', 'straight_through'):
            raise SettingError(
                f"model.selection_gradient must be 'none' or 'straight_through', got {selection_gradient!r}"
            )
        if selection_gradient != 'none' and 'masking' not in self.level_modules:
            raise SettingError('model.selection_gradient does nothing without a downstream and a masker that has parameters')
        self.selection_gradient = selection_gradient
        if 'masking' in self.level_modules and not getattr(self.weighting, 'differentiable', self.weighting is None):
            raise SettingError(
                f'model.weighting is a {type(self.weighting).__name__}, through which no hypergradient reaches the masker; '
                'leave it out, or take mmmlo.ScoreWeights'
            )

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the levels that there are: no ``finetune`` without a downstream module,
        no ``masking`` without one or with a masker that has nothing to learn."""
        levels = super().level_modules
        if self.downstream is not None:
            if self.bilevel is None and not self.closed_form:
                levels['finetune'] = ('downstream',)
            elif self.bilevel is not None:
                levels['pretrain'] += ('downstream',)
            if self.masker_learns:
                levels['masking'] = ('masker',)
        return levels

    @property
    def disjoint_levels(self) -> tuple[tuple[str, str], ...]:
        """tuple[tuple[str, str]]: Pairs of loaders that may not share an image: those that labels are learned from, D_tr,
        and ``masking``, which would reward a head that has learned its images by heart."""
        learned_on = 'labelled' if self.closed_form else 'finetune' if self.bilevel is None else 'pretrain'
        pairs: tuple[tuple[str, str], ...] = ((learned_on, 'masking'),)
        if any(loss.reads_labels for loss in self.extra_losses.values()):
            pairs += (('pretrain', 'masking'), ('labelled', 'masking'))
        return pairs

    @property
    def labelled_level(self) -> str:
        """str: The level whose batches get one of ``train_cfg.dataloaders.labelled`` each."""
        return 'masking' if self.closed_form else 'pretrain'

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch; see :meth:`BaseMaskedAutoencoder.level_loss`.

        ``finetune`` and ``masking`` are the same function on different data: the downstream loss of unmasked images.
        """
        if level in ('finetune', 'masking') and level in self.level_modules:
            features = self._downstream_features(batch) if fixed is None else fixed
            if isinstance(self.downstream, TaskMix):
                return self.downstream.loss(features, {name: batch[name]['data_samples'] for name in features})
            if not self.closed_form:
                return self.downstream.loss(features, batch['data_samples'])
            if 'labelled' not in batch:
                raise SettingError(
                    f'model.downstream, a {type(self.downstream).__name__}, is solved on D_tr in every step; give it a '
                    'loader, train_cfg.dataloaders.labelled'
                )
            train = batch['labelled']
            solved_on = self._downstream_features(train), train['data_samples']
            return self.downstream.loss(features, batch['data_samples'], solved_on)
        losses = super().level_loss(level, batch, fixed)
        if level == 'pretrain' and self.bilevel is not None:
            supervised = self.downstream.loss(self._downstream_features(batch), batch['data_samples'])
            losses.update(
                {f'finetune_{name}': self.bilevel * value if 'loss' in name else value for name, value in supervised.items()}
            )
        return losses

    def gate(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Let the content of embedded patches, B x L x C, hang on their scores, where ``selection_gradient`` says so.

        A visible patch has a gate of 1 with the derivative of ``1 - mask_prob`` (straight through; Bengio et al., 2013): to
        the hypergradient its content, not its position, fades as it gets likelier to be masked. The loss itself stays the
        same, bit for bit. No gate tells what it would be worth to show a masked patch.
        """
        if self.selection_gradient == 'none' or not masking.mask_prob.requires_grad:
            return tokens
        change = (masking.mask_prob.detach() - masking.mask_prob).to(tokens.dtype)  # B x L, zeros
        return tokens + change.unsqueeze(-1) * (tokens - self.backbone.pos_embed[:, 1:])

    fixed_by_others = ('finetune',)
    """tuple[str]: Levels for which :meth:`fix_level` reads no parameter of their own: the features of ``finetune`` are the
    encoder's, which stands still there, so they are the same before and after the head's step."""

    def fix_level(self, level: str, batch: dict) -> Any:
        """Compute what all passes of one hypergradient through a level share; see :meth:`BaseMaskedAutoencoder.fix_level`.

        For ``finetune`` these are the features, with the graph to the encoder where it is differentiated.
        """
        if level == 'finetune':
            return self._downstream_features(batch)
        return super().fix_level(level, batch)

    def _downstream_features(self, batch: dict) -> Any:
        """What the downstream module reads of a batch; of a mix, task -> what it reads of its own batch."""
        if isinstance(self.downstream, TaskMix):
            missing = set(self.downstream.tasks) - set(batch)
            if missing:
                raise SettingError(
                    f'model.downstream.tasks has {sorted(missing)}, for which the level has no loader; name one each in '
                    'train_cfg.dataloaders.<level>.tasks'
                )
            return {name: self._features(batch[name]['inputs'], task) for name, task in self.downstream.tasks.items()}
        return self._features(batch['inputs'], self.downstream)

    def _features(self, images: torch.Tensor, task: Any) -> Any:
        """What a task encodes by itself, or of :meth:`extract_feat` the tokens ``read_tokens``; with ``reads_maps`` maps."""
        if hasattr(task, 'encode'):
            return task.encode(self.backbone, images)
        if getattr(task, 'reads_maps', False):
            grid = [side // self.backbone.patch_size for side in images.shape[2:]]
            # B x (1 + L) x C to B x C x h x w, in that order in memory: a group norm has no second derivative in others
            return tuple(x[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous() for x in self.extract_feat(images))
        tokens = getattr(task, 'read_tokens', slice(None))
        if tokens == slice(None) or not self.backbone.returns_tokens:
            return self.extract_feat(images)
        return (self.backbone.encode(self.backbone.embed(images)[0], outputs=tokens),)
