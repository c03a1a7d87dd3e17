"""Crop, mirror and normalize a batch of uint8 images on the device of the model."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from mmpretrain.models.utils import SelfSupDataPreprocessor

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


def crop_and_flip(images: torch.Tensor, shift: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Crop each image at a place of its own and mirror it or not, with one gather along each axis.

    Args:
        images (torch.Tensor): B x C x H x W, of any type.
        shift (torch.Tensor): Rows and columns by which the crop begins further down and to the right, B x 2, integers;
            outside of the image there are zeros.
        flip (torch.Tensor): Which crops are mirrored, B, bool.

    Returns:
        torch.Tensor: B x C x H x W.
    """
    channels, height, width = images.shape[1:]
    rows = shift[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = shift[:, 1:] + torch.where(flip[:, None], columns.flip(0), columns)
    # One row and one column of zeros, which all those outside of the image are taken from.
    images = F.pad(images, (0, 1, 0, 1))
    rows = torch.where((rows < 0) | (rows > height), height, rows)
    columns = torch.where((columns < 0) | (columns > width), width, columns)
    images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width + 1))
    return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


@MODELS.register_module()
class DeviceDataPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor``, which also crops and mirrors, and moves all labels at once.

    A batch of :class:`mmmlo.InMemoryImages` says in ``shift`` and ``flip`` what is to be done with its images. They are
    moved to the device as uint8, a quarter of the bytes of fp32, and cropped and mirrored there, in training or not. Other
    batches are treated as by mmpretrain's class.

    mmpretrain moves each label by itself: for a batch of 256 that is 256 copies to the device.

    Args:
        mean (Sequence[float], optional): The mean of each channel, of which there may be any number.
        std (Sequence[float], optional): The deviation of each.
        **kwargs: Other arguments of mmpretrain's class: ``to_rgb``, ``non_blocking``.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs: Any) -> None:
        if mean is None or std is None or len(mean) in (1, 3):
            super().__init__(mean=mean, std=std, **kwargs)
            return
        super().__init__(mean=mean[:3], std=std[:3], **kwargs)  # mmengine takes one or three, and broadcasts any
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the device and prepare it there.

        Args:
            data (dict): ``inputs``, uint8 images, B x C x H x W or a list of such views; ``data_samples``; ``shift``, B x 2,
                and ``flip``, B, of a batch that is still to be cropped and mirrored.
            training (bool): As in mmpretrain's class.

        Returns:
            dict: ``inputs``, normalized, and ``data_samples``.

        Raises:
            SettingError: ``shift`` or ``flip`` do not fit the images.
        """
        inputs, samples = data['inputs'], data.get('data_samples')
        if 'shift' in data or 'flip' in data:
            self._check(inputs, data.get('shift'), data.get('flip'))
            inputs, shift, flip = self.cast_data([inputs, data['shift'], data['flip']])
            inputs = crop_and_flip(inputs, shift, flip)
        prepared = super().forward(dict(inputs=inputs, data_samples=None), training)
        return prepared | dict(data_samples=self._move_samples(samples))

    @staticmethod
    def _check(inputs: Any, shift: Any, flip: Any) -> None:
        shapes = [tuple(getattr(value, 'shape', ())) for value in (inputs, shift, flip)]
        batch = shapes[0][:1]
        if len(shapes[0]) != 4 or shapes[1:] != [(*batch, 2), batch]:
            raise SettingError(
                "a batch to crop and mirror has `inputs` of B x C x H x W, `shift` of B x 2 and `flip` of B; here they're "
                f'{shapes[0]}, {shapes[1]} and {shapes[2]}. Collate it with mmmlo.batch_collate or default_collate.'
            )

    def _move_samples(self, samples: Any) -> Any:
        """Data samples with labels on the device, as new objects, as mmpretrain's class returns them."""
        plain = isinstance(samples, list) and all(
            isinstance(sample, BaseDataElement)
            and sample.keys() == ['gt_label']
            and sample.gt_label.shape == samples[0].gt_label.shape
            for sample in samples
        )
        if not samples or not plain:
            return self.cast_data(samples)
        labels = torch.stack([sample.gt_label for sample in samples])
        moved = []
        for sample, label in zip(samples, labels.to(self.device, non_blocking=self._non_blocking).unbind()):
            new = type(sample)()
            for name, value in sample.metainfo_items():
                new.set_field(value, name, field_type='metainfo')
            new.set_field(label, 'gt_label')
            moved.append(new)
        return moved
