"""Loading of an image file, with an error that names the file, or without the file."""

import logging

from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log

from mmmlo.registry import TRANSFORMS
from mmmlo.utils.errors import DataError, SettingError

__all__ = ['CorruptImageError', 'LoadImage', 'TooManyCorruptImagesError']

# A share of fewer images than these says nothing.
_LEAST = 100


class CorruptImageError(DataError):
    """A file is there, but no image can be decoded from it."""


class TooManyCorruptImagesError(CorruptImageError):
    """More of the images are corrupt than may be skipped."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which says which file is corrupt, or skips it.

    For a truncated file mmcv raises a bare ``AssertionError``; for an empty one, or with the pillow backend, an error
    of the decoder that does not say which of a million files it was.

    The dataset replaces a skipped image by another of its own, :class:`mmmlo.SplitDataset` of its part; in test mode
    mmengine stops. Each file is named once in the log. Each worker counts for itself, and anew in each epoch unless it is
    persistent.

    Args:
        *args: Arguments of :class:`mmcv.transforms.LoadImageFromFile`.
        on_corrupt (str): 'raise' stops at a file that cannot be decoded, 'skip' has the dataset take another image.
            Defaults to 'raise'.
        max_share (float): Share of the images loaded so far, from the 100th on, that may be skipped. More of them end the
            run. Defaults to 0.05.
        **kwargs: Other arguments of mmcv's class. ``ignore_empty=True`` is 'skip' for missing files too.

    Raises:
        SettingError: ``on_corrupt`` is something else, or ``max_share`` not in [0, 1].
    """

    def __init__(self, *args, on_corrupt: str = 'raise', max_share: float = 0.05, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if on_corrupt not in ('raise', 'skip'):
            raise SettingError(f"LoadImage.on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}")
        if not 0 <= max_share <= 1:
            raise SettingError(f'LoadImage.max_share must be in [0, 1], got {max_share!r}')
        self.on_corrupt = 'skip' if self.ignore_empty else on_corrupt
        self.max_share = max_share
        self.loaded = 0
        self.skipped = 0
        self._named: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Args:
            results (dict): The annotations of a sample, with ``img_path``.

        Returns:
            dict | None: The same with ``img``, ``img_shape`` and ``ori_shape``; None for a file that is skipped.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptImageError: The file is no image, or not a whole one, or too many were not.
        """
        self.loaded += 1
        try:
            loaded = super().transform(results)
            if loaded is not None:
                return loaded
            reason: Exception = FileNotFoundError('missing, or no image')  # by mmcv's own ignore_empty, which does not say
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not found, not permitted: the system names the file. Decoders set no errno.
            reason = error
        first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        path = str(results['img_path'])
        if self.on_corrupt == 'raise':
            raise CorruptImageError(
                f'cannot decode the image {path} ({first_line}). Replace the file, or take it out of the folder or the '
                "`ann_file`; to skip such files, set `on_corrupt='skip'` in `mmmlo.LoadImage`."
            ) from reason
        self._skip(path, first_line)
        return None

    def _skip(self, path: str, reason: str) -> None:
        """Count a skipped image, name it if it is a new one, and stop if there are too many."""
        self.skipped += 1
        if path not in self._named:
            self._named.add(path)
            print_log(f'cannot decode the image {path} ({reason}): another takes its place', 'current', logging.WARNING)
        if self.loaded >= _LEAST and self.skipped > self.max_share * self.loaded:
            raise TooManyCorruptImagesError(
                f'{self.skipped} of {self.loaded} images could not be decoded, the last one {path}; '
                f'`max_share={self.max_share}` of `mmmlo.LoadImage` allows {self.max_share:.1%}. Are the files whole? '
                'tools/check_data.py folder DIR --decode lists those that are not.'
            )
