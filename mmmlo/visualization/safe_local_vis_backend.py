"""Logged numbers and pictures that a full disk can keep from being written, but that end no run for it."""

import logging
import os
import os.path as osp
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend

from mmmlo.registry import VISBACKENDS
from mmmlo.utils.whole_file import replace_whole


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, with which training goes on where a line cannot be written.

    On a full disk mmengine's raises out of the logger's hook, before a checkpoint can be tried. Here a record or a
    picture is left out as a whole, so that files are whole. The log says so once.
    """

    _failed = False

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        size = osp.getsize(file_path) if osp.isfile(file_path) else None
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            if size is not None:
                os.truncate(file_path, size)
            elif osp.isfile(file_path):
                os.remove(file_path)
            self._tell(error)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Write a picture, H x W x 3, RGB in uint8, as a whole or not at all."""
        folder = self.experiment._img_save_dir
        try:
            os.makedirs(folder, exist_ok=True)
            with replace_whole(osp.join(folder, f'{name}_{step}.png')) as path, open(path, 'wb') as file:
                file.write(cv2.imencode('.png', image[..., ::-1])[1].tobytes())
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._failed:
            what = f'What is logged cannot be written to {self._save_dir}: {error}. It is left out, and training goes on'
            print_log(what, 'current', logging.ERROR)
        self._failed = True
