"""Real folders of small images."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

import mmmlo.registry  # noqa: F401  # makes mmpretrain importable everywhere, before a test imports it


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """The scope of this project's pretraining configs."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def image_folder(tmp_path):
    """Write images into one sub-folder a class and return the root: ``image_folder(cat=10, dog=5)``."""

    def write(root='images', **classes):
        rng = np.random.default_rng(0)
        folder = tmp_path / root
        for name, count in classes.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                assert cv2.imwrite(str(folder / name / f'{i:03}.png'), image)
        return folder

    return write
