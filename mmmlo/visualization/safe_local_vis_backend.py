"""Logged numbers that a full disk can keep from being written, but that end no run for it."""

import logging
import os
import os.path as osp

from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend

from mmmlo.registry import VISBACKENDS


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, with which training goes on where a line cannot be written.

    On a full disk mmengine's raises out of the logger's hook, before a checkpoint can be tried. Here a record is left out as
    a whole, so that the file stays one of whole lines. The log says so once.
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
            if not self._failed:
                what = f'What is logged cannot be written to {self._save_dir}: {error}. It is left out, and training goes on'
                print_log(what, 'current', logging.ERROR)
            self._failed = True
