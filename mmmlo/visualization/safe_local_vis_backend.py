"""Logged numbers that a full disk can keep from being written, but that end no run for it."""

import logging
import os
import os.path as osp
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend

from mmmlo.registry import VISBACKENDS

__all__ = ['SafeLocalVisBackend']


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, with which training goes on where a line or a picture cannot be written.

    On a full disk mmengine's raises out of the logger's hook, before a checkpoint can be tried. Here a record is left out as
    a whole, so that the file stays one of whole lines. The log says so once, and once when writing works again.

    The arguments are those of mmengine's.
    """

    _failing = False

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Write a picture, if that is possible."""
        try:
            super().add_image(name, image, step, **kwargs)
        except OSError as error:
            self._report(error)

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        size = osp.getsize(file_path) if osp.isfile(file_path) else None
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            if size is not None:
                os.truncate(file_path, size)
            elif osp.isfile(file_path):
                os.remove(file_path)
            self._report(error)
            return
        if self._failing:
            self._failing = False
            print_log(f'{file_path} is written again', 'current')

    def _report(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            print_log(
                f'What is logged cannot be written to {self._save_dir}: {error}. It is left out, and training goes on',
                'current',
                logging.ERROR,
            )
