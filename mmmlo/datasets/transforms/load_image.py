"""Load an image file of any depth and number of channels, with an error that names the file, or without the file."""

import io
import logging
import struct

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image

from mmmlo.registry import TRANSFORMS
from mmmlo.utils.errors import DataError, SettingError

__all__ = ['CorruptImageError', 'LoadImage']

# A share of fewer images than these says nothing.
_LEAST = 100


class CorruptImageError(DataError):
    """A file is there, but no image can be decoded from it, or more of them than may be skipped."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which loses no depth and no channel without a word, and says which file is corrupt.

    Values of 8 bits come as they are. Others, of 16 bits or floating point, are scaled from ``min_value`` and ``max_value``
    to 0 and 255, and rounded unless ``to_float32`` is set; mmcv would cut 16 bits down to their upper 8. EXIF turns are
    applied, unless ``color_type`` says otherwise. ``.npy`` files, H x W, H x W x C or C x H x W, are read too.

    The dataset replaces a skipped image by another of its own. Each worker counts and names files for itself.

    Args:
        *args: Arguments of :class:`mmcv.transforms.LoadImageFromFile`.
        channels (int, optional): Channels of the image: 1 for grey, 3 for colour, whatever the file has; others must be the
            file's. In configs it follows ``model.backbone.in_channels``. Defaults to None: by ``color_type``.
        max_value (float, optional): The value that becomes 255, such as 4095, 65535 or 1.0. Defaults to None: only 8 bits.
        min_value (float): The value that becomes 0. Defaults to 0.
        on_corrupt (str): 'raise' stops at a file that cannot be decoded, 'skip' has the dataset take another image.
            Defaults to 'raise'.
        max_share (float): Share of the images loaded so far, from the 100th on, that may be skipped. Defaults to 0.05.
        **kwargs: Other arguments of mmcv's class. ``ignore_empty=True`` is 'skip' for missing files too.
    """

    def __init__(
        self, *args, channels: int | None = None, max_value: float | None = None, min_value: float = 0,
        on_corrupt: str = 'raise', max_share: float = 0.05, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        if on_corrupt not in ('raise', 'skip'):
            raise SettingError(f"LoadImage.on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}")
        if not 0 <= max_share <= 1:
            raise SettingError(f'LoadImage.max_share must be in [0, 1], got {max_share!r}')
        if max_value is not None and not max_value > min_value:
            raise SettingError(f'LoadImage.max_value must be above min_value, {min_value}, got {max_value!r}')
        self.channels = channels
        if channels is not None and 'color_type' not in kwargs:
            self.color_type = {1: 'grayscale', 3: 'color'}.get(channels, 'unchanged')
        self.max_value = max_value
        self.min_value = min_value
        self.on_corrupt = 'skip' if self.ignore_empty else on_corrupt
        self.max_share = max_share
        self.loaded = 0
        self.skipped = 0
        self._named: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        """Load the image of ``img_path``, H x W or H x W x C in uint8, or float32; None for a file that is skipped.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptImageError: The file is no image, or not a whole one, or too many were not.
            DataError: The image has another depth or number of channels than the settings, or several pages.
        """
        self.loaded += 1
        path = str(results['img_path'])
        try:
            image = self._decode(path)
            if image is None:
                raise ValueError("no image, not a whole one, or a TIFF for imdecode_backend='tifffile'")
        except DataError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and not self.ignore_empty:
                raise  # not found, not permitted: the system names the file. Decoders set no errno.
            self._skip(path, error)
            return None
        if image.ndim == 3 and image.shape[0] == self.channels != image.shape[2]:
            image = image.transpose(1, 2, 0)
        if image.ndim == 2 and self.color_type.startswith('color'):
            image = np.repeat(image[..., None], 3, axis=2)
        found = 1 if image.ndim == 2 else image.shape[-1]
        if image.ndim not in (2, 3) or self.channels not in (None, found):
            raise DataError(
                f'{path} has {found} channels, its shape is {image.shape}, and `model.backbone.in_channels`, or `channels` '
                f'of mmmlo.LoadImage, is {self.channels}; set that to {found}, or to 1 or 3 for grey or colour'
            )
        results['img'] = self._scale(image, path)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _decode(self, path: str) -> np.ndarray | None:
        content = fileio.get(path, backend_args=self.backend_args)
        if path.lower().endswith('.npy'):
            return np.load(io.BytesIO(content), allow_pickle=False)
        if content[:4] in (b'II*\0', b'MM\0*') and (pages := _count_pages(content)) > 1:
            raise DataError(f'{path} is a TIFF of {pages} pages; save each in a file of its own')
        flag: str | int = self.color_type
        if self.imdecode_backend == 'cv2' and flag != 'unchanged':
            flag = mmcv.image.io.imread_flags[flag] | cv2.IMREAD_ANYDEPTH
            if content[1:4] == b'PNG' and content[25] in (4, 6) and 'alpha' not in self._named:
                self._named.add('alpha')
                hint = 'model.backbone.in_channels=4 keeps it'
                print_log(f'{path} has an alpha channel, which is left out, there and elsewhere; {hint}', 'current')
        elif self.imdecode_backend == 'pillow' and Image.open(io.BytesIO(content)).mode[0] in 'IF':
            raise DataError(f"{path} has more than 8 bits, which pillow clips; leave out imdecode_backend='pillow'")
        image = mmcv.imfrombytes(content, flag=flag, backend=self.imdecode_backend)
        if image is None and content[:2] in (b'II', b'MM'):  # grey TIFFs in floating point, which OpenCV does not colour
            image = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
        return image

    def _scale(self, image: np.ndarray, path: str) -> np.ndarray:
        if image.dtype != np.uint8:
            low, high = image.min(), image.max()
            if self.max_value is None:
                raise DataError(
                    f'{path} is {image.dtype} with values from {low} to {high}, and images have 8 bits; set `max_value` of '
                    'mmmlo.LoadImage to the value that stands for white, such as 4095, 65535 or 1.0'
                )
            if not (self.min_value <= low and high <= self.max_value):  # not a number is neither
                raise DataError(
                    f'{path} has values from {low} to {high}, beyond `min_value` {self.min_value} and `max_value` '
                    f'{self.max_value} of mmmlo.LoadImage; set them to the range of all images'
                )
            image = (image.astype(np.float32) - self.min_value) * np.float32(255 / (self.max_value - self.min_value))
            image = image if self.to_float32 else np.rint(image).astype(np.uint8)
        return image.astype(np.float32) if self.to_float32 else image

    def _skip(self, path: str, error: Exception) -> None:
        """Count a skipped image, name it if it is a new one, and stop at the first, or if there are too many."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if self.on_corrupt == 'raise':
            raise CorruptImageError(
                f'cannot decode the image {path} ({reason}). Replace the file, or take it out of the folder or the '
                "`ann_file`; to skip such files, set `on_corrupt='skip'` in `mmmlo.LoadImage`."
            ) from error
        self.skipped += 1
        if path not in self._named:
            self._named.add(path)
            print_log(f'cannot decode the image {path} ({reason}): another takes its place', 'current', logging.WARNING)
        if self.loaded >= _LEAST and self.skipped > self.max_share * self.loaded:
            raise CorruptImageError(
                f'{self.skipped} of {self.loaded} images could not be decoded, the last one {path}; '
                f'`max_share={self.max_share}` of `mmmlo.LoadImage` allows {self.max_share:.1%}. Are the files whole? '
                'tools/check_data.py CONFIG --decode lists those that are not.'
            )


def _count_pages(content: bytes) -> int:
    """Count the pages of a TIFF, but for smaller copies of one, which maps have."""
    order = '<' if content[:1] == b'I' else '>'
    pages, (offset,) = 0, struct.unpack(f'{order}I', content[4:8])
    while offset and pages < _LEAST:
        (count,) = struct.unpack(f'{order}H', content[offset:offset + 2])
        entries = struct.iter_unpack(f'{order}HHII', content[offset + 2:offset + 2 + 12 * count])
        pages += not any(tag == 254 and value & 1 for tag, _, _, value in entries)
        (offset,) = struct.unpack(f'{order}I', content[offset + 2 + 12 * count:offset + 6 + 12 * count])
    return pages
