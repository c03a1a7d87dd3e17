import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend
from PIL import Image

from mmmlo.visualization import safe_local_vis_backend


@contextmanager
def no_file_larger_than(size):
    """Let the system refuse what would make a file larger, after the part that still fits."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def backend(tmp_path):
    return VISBACKENDS.build(dict(type='mmmlo.SafeLocalVisBackend', save_dir=str(tmp_path / 'vis_data')))


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(safe_local_vis_backend, 'print_log', lambda text, *_: texts.append(text))
    return texts


def test_what_cannot_be_written_is_left_out_as_a_whole(backend, said, tmp_path):
    backend.add_scalars(dict(loss=1.0), step=1)
    with no_file_larger_than(30):  # the first line has 24 letters
        for step in (2, 3):
            backend.add_scalars(dict(loss=float(step)), step=step, file_path='more.json' if step == 2 else None)
    backend.add_scalar('loss', 4.0, step=4)
    lines = (tmp_path / 'vis_data/scalars.json').read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dict(loss=1.0, step=1), dict(loss=4.0, step=4)]
    assert len(said) == 1 and said[0].startswith(f'What is logged cannot be written to {tmp_path}/vis_data: ')
    assert 'File too large. It is left out, and training goes on' in said[0].replace("'", '')


def test_pictures_are_whole_or_not_there(backend, said, tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    backend.add_image('masks', picture, step=3)
    with no_file_larger_than(100):
        backend.add_image('masks', picture, step=4)
    folder = tmp_path / 'vis_data/vis_image'
    assert [path.name for path in folder.iterdir()] == ['masks_3.png'] and len(said) == 1
    assert np.array_equal(np.asarray(Image.open(folder / 'masks_3.png')), picture)


def test_mmengine_s_own_ends_the_run(tmp_path):
    backend = LocalVisBackend(str(tmp_path))
    with pytest.raises(OSError, match='File too large'), no_file_larger_than(10):
        backend.add_scalars(dict(loss=1.0), step=1)


def test_a_full_device(backend, said, tmp_path):
    folder = tmp_path / 'vis_data'
    folder.mkdir()
    (folder / 'scalars.json').symlink_to('/dev/full')  # a device on which each write fails for want of space
    backend.add_scalar('loss', 1.0)
    assert len(said) == 1 and '[Errno 28] No space left on device' in said[0]
    assert (folder / 'scalars.json').is_symlink()
