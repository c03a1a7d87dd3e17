"""CamVid: street scenes filmed from a car, a small data set for segmentation."""

from collections.abc import Sequence

from mmseg.datasets import BaseSegDataset

from mmmlo.registry import DATASETS

_VOID = 11


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow et al., 2009) with the 11 classes of SegNet (Badrinarayanan et al., 2017).

    A label map holds 0 to 10 for the classes, in the order of ``METAINFO``, and 11 for void: what has no label. Void becomes
    255 when a label map is loaded, so that mmseg's losses, crops and metrics ignore it by their defaults.

    .. code-block:: none

        data/camvid
        ├── images
        │   ├── train/*.jpg
        │   └── val/*.jpg
        └── annotations
            ├── train/*.png
            └── val/*.png

    Args:
        img_suffix (str): End of the images' names. Defaults to '.jpg'. SegNet's own copy has '.png'.
        seg_map_suffix (str): End of the label maps' names. Defaults to '.png'.
        **kwargs: Other arguments of mmseg's ``BaseSegDataset``.
    """

    METAINFO = dict(
        classes=(
            'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'
        ),
        palette=[
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192], [128, 128, 0], [192, 128, 128],
            [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
        ],
    )

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Map labels in the file to those in training; void, and classes not among ``new_classes``, to 255."""
        return {**(super().get_label_map(new_classes) or {}), _VOID: 255}
