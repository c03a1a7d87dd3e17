"""Detection as the downstream task: a single-stage head of mmdet on the encoder's map of patches."""

from typing import Any

import torch
from mmengine.model import BaseModule

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.text import format_list

# They assign labels by points or anchors and boxes alone, so that their targets are the same at any parameters.
_FIXED = ('ATSSHead', 'FCOSHead', 'RetinaHead')


@MODELS.register_module()
class DetectionTask(BaseModule):
    """A dense head of mmdet, trained on the map of patch features, B x C x h x w, or on a pyramid of it.

    Within one hypergradient labels may not be assigned anew at moved parameters, so heads are refused that assign them by
    their own predictions; a head of your own that reads boxes alone says so by ``fixed_targets = True``. Two-stage heads
    have NMS and RoIAlign, which have no second derivative.

    Args:
        head (dict): Such as ``dict(type='mmdet.FCOSHead', strides=[16], regress_ranges=((-1, 1e8), ), ...)``, with
            ``loss_cls=dict(type='mmmlo.PlainFocalLoss')`` in place of mmdet's focal loss.
        neck (dict, optional): What makes several maps of the one, as :class:`SimpleFPN`. Defaults to None.

    Raises:
        SettingError: The head is none of these, or its focal loss is mmcv's kernel.
    """

    reads_maps = True

    def __init__(self, head: dict, neck: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        # What they build in turn, such as losses, is mmdet's.
        self.neck: Any = None if neck is None else MODELS.build(dict(neck, _scope_='mmdet'))
        self.head: Any = MODELS.build(dict(head, _scope_='mmdet'))
        # Key -> its channels, and what makes the head's input.
        self._channels = dict(head=head) if neck is None else dict(neck=neck)
        kind = type(self.head)
        fixed = kind.__module__.startswith('mmdet.') and kind.__name__ in _FIXED
        if not getattr(self.head, 'fixed_targets', fixed):
            raise SettingError(
                f'model.downstream.head is a {kind.__name__}; hypergradients need one of {format_list(_FIXED)}, whose '
                'targets depend on boxes alone. Heads that assign labels by their own predictions would move them between '
                'the passes of a hypergradient, and the NMS and RoIAlign of two-stage heads have no second derivative'
            )
        for name, loss in self.head.named_children():
            if type(loss).__name__ == 'FocalLoss':
                raise SettingError(
                    f"model.downstream.head.{name} is mmdet's FocalLoss, whose kernel for GPUs has no second derivative; "
                    f"set model.downstream.head.{name}.type='mmmlo.PlainFocalLoss'"
                )

    @property
    def num_classes(self) -> int:
        """int: Number of classes of the head."""
        return self.head.num_classes

    def check_backbone(self, backbone: Any, key: str) -> None:
        """Refuse, with a SettingError, channels other than the backbone's; ``key`` is the task's own."""
        for name, cfg in self._channels.items():
            if cfg['in_channels'] != backbone.embed_dims:
                raise SettingError(
                    f'{key}.{name}.in_channels is {cfg["in_channels"]}, but model.backbone has {backbone.embed_dims}; set '
                    f'{key}.{name}.in_channels={backbone.embed_dims}'
                )

    def loss(self, features: tuple[torch.Tensor, ...], data_samples: list) -> dict[str, torch.Tensor]:
        """Compute the head's losses.

        Args:
            features (tuple[torch.Tensor]): Maps of patch features, the last B x C x h x w.
            data_samples (list): mmdet's samples, with ``gt_instances`` of ``bboxes`` and ``labels``.

        Returns:
            dict[str, torch.Tensor]: The losses of mmdet's head, summed over the maps.

        Raises:
            SettingError: A sample has no boxes or was not preprocessed by mmdet, or the head's strides are not the maps'.
        """
        if not all('gt_instances' in own and 'bboxes' in own.gt_instances for own in data_samples):
            raise SettingError(
                'model.downstream is a DetectionTask, and a sample has no boxes; take a data set of mmdet for the levels '
                'finetune and masking, load them by mmdet.LoadAnnotations(with_bbox=True) and pack them by '
                'mmdet.PackDetInputs'
            )
        maps = features[-1:] if self.neck is None else self.neck(features)
        if 'batch_input_shape' not in data_samples[0]:
            raise SettingError(
                "a DetectionTask needs data_preprocessor=dict(type='mmdet.DetDataPreprocessor', ...) in "
                'train_cfg.dataloaders.finetune and .masking'
            )
        self._check_strides(maps, data_samples[0].batch_input_shape)
        losses = self.head.loss(maps, data_samples)
        return {name: torch.stack(value).sum() if isinstance(value, list) else value for name, value in losses.items()}

    def _check_strides(self, maps: tuple[torch.Tensor, ...], images: tuple[int, int]) -> None:
        """Compare strides with sizes: boxes would be elsewhere without a word."""
        strides = [stride for stride, _ in self.head.prior_generator.strides]
        right = [round(images[0] / own.shape[2]) for own in maps]
        # Maps of odd sizes are rounded up or down when they are halved.
        fits = all(abs(side / s - size) < 1 for s, m in zip(strides, maps) for side, size in zip(images, m.shape[2:]))
        if len(strides) != len(maps) or not fits:
            raise SettingError(
                f'model.downstream.head has the strides {strides} (strides, or anchor_generator.strides), but its maps '
                f'of images of {images[0]} x {images[1]} pixels have {right}'
            )
