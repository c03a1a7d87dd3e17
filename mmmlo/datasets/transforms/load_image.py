"""Loading of an image file, with an error that names the file."""

from mmcv.transforms import LoadImageFromFile

from mmmlo.registry import TRANSFORMS

__all__ = ['CorruptImageError', 'LoadImage']


class CorruptImageError(ValueError):
    """A file is there, but no image can be decoded from it."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with an error that names the file.

    For a truncated file mmcv raises a bare ``AssertionError``; for an empty one, or with the pillow backend, an error
    of the decoder that does not say which of a million files it was.

    Args:
        *args: Arguments of :class:`mmcv.transforms.LoadImageFromFile`.
        **kwargs: The same. ``ignore_empty=True`` skips missing and corrupt files, and the dataset takes another image.
    """

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Args:
            results (dict): The annotations of a sample, with ``img_path``.

        Returns:
            dict | None: The same with ``img``, ``img_shape`` and ``ori_shape``; None for a file that is skipped.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptImageError: The file is no image, or not a whole one.
        """
        try:
            return super().transform(results)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not found, not permitted: the system names the file. Decoders set no errno.
            reason = error
        if self.ignore_empty:
            return None
        first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise CorruptImageError(
            f'cannot decode the image {results["img_path"]} ({first_line}). Replace the file, or take it out of the '
            'folder or the `ann_file`; to skip such files, set `ignore_empty=True` in `mmmlo.LoadImage`.'
        ) from reason
