"""Pictures of what a model predicts, for ``tools/test.py --show-dir``."""

import os
import os.path as osp
from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.dist import get_rank
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmlo.registry import HOOKS


@HOOKS.register_module()
class PredictionPictureHook(Hook):
    """Draws the predictions of a test over its images, by the visualizer of mmpretrain, mmseg or mmdet.

    The frameworks have a hook each, with other options, places and names of files. Here a picture is called as its image and
    lies in the folder that was asked for, for segmentation and detection with the truth on its left.

    Args:
        folder (str): Where pictures go; made if it is not there. Those of an earlier test are written over.
        most (int, optional): How many pictures each process draws. Defaults to None, one for every image.
        score_thr (float): Boxes with a lower score are not drawn. Defaults to 0.3, as in mmdet.
    """

    def __init__(self, folder: str, most: int | None = None, score_thr: float = 0.3) -> None:
        self.folder = folder
        self.most = most
        self.score_thr = score_thr
        self._drawn: set[str] = set()

    def before_test(self, runner: Runner) -> None:
        """Make the folder, so that one that cannot be made is an error before the test."""
        os.makedirs(self.folder, exist_ok=True)
        self._drawn.clear()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Draw the images of a batch."""
        for i, sample in enumerate(outputs or ()):
            if self.most is not None and len(self._drawn) >= self.most:
                return
            image = _image(sample, data_batch, i)
            out_file = osp.join(self.folder, self._name(sample))
            if hasattr(runner.visualizer, 'visualize_cls'):
                runner.visualizer.visualize_cls(image, sample, resize=max(image.shape[0], 224), out_file=out_file)
                continue
            name = osp.basename(out_file)
            options = {'pred_score_thr': self.score_thr} if 'pred_instances' in sample else {}
            runner.visualizer.add_datasample(name, image, data_sample=sample, out_file=out_file, **options)

    def _name(self, sample: Any) -> str:
        """A file name like the image's, with a number where another image is called so too."""
        path = sample.get('img_path')
        stem = osp.splitext(osp.basename(path))[0] if path else f'image_{get_rank()}_{len(self._drawn)}'
        name = f'{stem}.png'
        if name in self._drawn:
            name = f'{stem}_{get_rank()}_{len(self._drawn)}.png'
        self._drawn.add(name)
        return name


def _image(sample: Any, data_batch: Any, index: int) -> np.ndarray:
    """The image as it is in its file, or as the pipeline made it where it came out of memory; H x W x 3, RGB."""
    path = sample.get('img_path')
    if path:
        return mmcv.imfrombytes(get(path), channel_order='rgb')
    return data_batch['inputs'][index].permute(1, 2, 0).cpu().numpy().astype(np.uint8)
