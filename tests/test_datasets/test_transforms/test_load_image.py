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


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr('mmmlo.datasets.transforms.load_image.print_log', lambda text, *_: texts.append(text))
    return texts


def test_corrupt_files_are_skipped_counted_and_named_once(picture, said):
    whole, torn = picture('.png'), picture('.jpg', 0.5)
    transform = TRANSFORMS.build(dict(type='mmmlo.LoadImage', on_corrupt='skip', max_share=0.5))
    for _ in range(3):
        assert transform({'img_path': torn}) is None
        assert transform({'img_path': whole})['img'].shape == (64, 96, 3)
    assert (transform.loaded, transform.skipped) == (6, 3)
    assert len(said) == 1 and said[0].startswith(f'cannot decode the image {torn} ')
    with pytest.raises(FileNotFoundError):
        transform({'img_path': f'{torn}.gone'})


def test_too_many_corrupt_files_end_the_run(picture, said):
    whole, torn = picture('.png'), picture('.jpg', 0.5)
    transform = TRANSFORMS.build(dict(type='mmmlo.LoadImage', on_corrupt='skip', max_share=0.02))
    for i in range(99):  # too few to tell
        transform({'img_path': torn if i < 3 else whole})
    with pytest.raises(CorruptImageError, match=f'4 of 100 images could not be decoded, the last one {torn}; '):
        transform({'img_path': torn})


def test_missing_files_are_skipped_and_counted_with_ignore_empty(tmp_path, said):
    transform = TRANSFORMS.build(dict(type='mmmlo.LoadImage', ignore_empty=True))
    assert transform({'img_path': str(tmp_path / 'nothing.jpg')}) is None
    assert transform.skipped == 1 and 'nothing.jpg' in said[0]


def test_wrong_options_are_named():
    for options, words in (
        (dict(on_corrupt='ignore'), "LoadImage.on_corrupt must be 'raise' or 'skip', got 'ignore'"),
        (dict(max_share=5), r'LoadImage.max_share must be in \[0, 1\], got 5'),
    ):
        with pytest.raises(ValueError, match=words):
            TRANSFORMS.build(dict(type='mmmlo.LoadImage', **options))
