"""Segmentation as the downstream task: a decode head of mmseg on the encoder's maps of patches."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class SegmentationTask(nn.Module):
    """Any decode head of mmseg, trained on maps of patch features, B x C x h x w, one for each of the backbone's layers.

    Several maps, as ``UPerHead`` reads, come of ``model.backbone.out_indices``; they are of one resolution. Labels are what
    mmseg's pipelines pack, at the images' own resolution, and the head's ``ignore_index`` is left out of the loss.

    Args:
        decode_head (dict): A decode head, as ``dict(type='mmmlo.LinearSegHead', in_channels=192, num_classes=11)``.

    Raises:
        SettingError: The head has no loss.
    """

    reads_maps = True

    def __init__(self, decode_head: dict) -> None:
        super().__init__()
        self.decode_head: Any = MODELS.build(dict(decode_head, _scope_='mmseg'))  # as its loss is mmseg's
        if not hasattr(self.decode_head, 'loss'):
            raise SettingError(
                f'model.downstream.decode_head is a {type(self.decode_head).__name__}, which has no loss; use a decode head '
                'of mmseg, as mmmlo.LinearSegHead or mmseg.FCNHead'
            )

    @property
    def num_classes(self) -> int:
        """int: Number of classes of the head."""
        return self.decode_head.num_classes

    def loss(self, features: tuple[torch.Tensor, ...], data_samples: list) -> dict[str, torch.Tensor]:
        """Compute the head's losses.

        Args:
            features (tuple[torch.Tensor]): Maps of patch features, B x C x h x w each.
            data_samples (list): mmseg's samples, with ``gt_sem_seg`` of 1 x H x W.

        Returns:
            dict[str, torch.Tensor]: The losses and the accuracy of mmseg's head.

        Raises:
            SettingError: A sample has no map of labels, or the maps are not of one size.
        """
        shapes = {tuple(sample.gt_sem_seg.shape) if 'gt_sem_seg' in sample else None for sample in data_samples}
        if len(shapes) > 1 or None in shapes:
            raise SettingError(
                'model.downstream is a SegmentationTask, which needs maps of labels of one size in a batch, and got '
                f'{sorted(map(str, shapes))}; load them by mmseg.LoadAnnotations, crop them to one size and pack them by '
                'mmseg.PackSegInputs in the pipelines of the levels finetune and masking'
            )
        return self.decode_head.loss(features, data_samples, None)
