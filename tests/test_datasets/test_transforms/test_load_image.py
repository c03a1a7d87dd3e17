import cv2
import numpy as np
import pytest

from mmmlo.datasets.transforms import CorruptImageError
from mmmlo.registry import TRANSFORMS


@pytest.fixture
def picture(tmp_path):
    """Write an image, whole or cut off."""
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), (96, 64))

    def write(suffix='.jpg', share=1.0):
        content = cv2.imencode(suffix, image)[1].tobytes()
        path = tmp_path / f'picture{suffix}'
        path.write_bytes(content[: int(share * len(content))])
        return str(path)

    return write


def load(path, **kwargs):
    return TRANSFORMS.build(dict(type='mmmlo.LoadImage', **kwargs))({'img_path': path})


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('share', [0, 0.1, 0.9])
def test_a_truncated_file_is_named(picture, suffix, share, backend):
    path = picture(suffix, share)
    with pytest.raises(CorruptImageError, match=f'cannot decode the image {path} .*Replace the file') as error:
        load(path, imdecode_backend=backend)
    assert '\n' not in str(error.value)
    assert load(path, imdecode_backend=backend, ignore_empty=True) is None


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_a_whole_file_loads(picture, backend):
    results = load(picture('.png'), imdecode_backend=backend)
    assert results['img'].shape == (64, 96, 3)
    assert results['img_shape'] == results['ori_shape'] == (64, 96)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.jpg'):
        load(str(tmp_path / 'nothing.jpg'))
