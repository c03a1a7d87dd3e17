"""Images of any depth and number of channels, and those that are turned."""

import io

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmmlo.datasets import ImageFolder, LoadImage, TorchRandomResizedCrop
from mmmlo.utils.config import resolve_channels
from mmmlo.utils.errors import DataError, SettingError
from mmmlo.visualization.masks import undo_preprocessing

RNG = np.random.default_rng(0)


def save(path, pixels):
    if path.suffix == '.npy':
        np.save(path, pixels)
    else:  # floats are rounded where they are compressed
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    return str(path)


def load(path, **kwargs):
    return LoadImage(**kwargs)(dict(img_path=str(path)))['img']


@pytest.mark.parametrize(
    ('name', 'dtype', 'high'),
    [('a.png', np.uint16, 1023), ('a.tif', np.uint16, 65535), ('a.tif', np.float32, 1.0), ('a.tif', np.int16, 3071),
     ('a.npy', np.float64, 1.0), ('a.pgm', np.uint16, 4095)],
)
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 3)])
def test_deep_images_keep_their_range(tmp_path, name, dtype, high, shape):
    if name.endswith('.pgm') and len(shape) == 3:
        pytest.skip('grey by definition')
    pixels = (RNG.random(shape) * high).astype(dtype)
    path = save(tmp_path / name, pixels)
    with pytest.raises(DataError, match=rf'{name} is .* with values from .*; set `max_value` of mmmlo.LoadImage'):
        load(path)
    channels = 1 if len(shape) == 2 else 3
    exact = load(path, channels=channels, max_value=high, to_float32=True)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, pixels.astype(np.float64) * 255 / high, atol=1e-3)
    np.testing.assert_allclose(load(path, channels=channels, max_value=high), exact, atol=0.501)
    assert load(path, channels=channels, max_value=high).dtype == np.uint8
    with pytest.raises(DataError, match=r'has values from .*, beyond `min_value` 0 and `max_value`'):
        load(path, max_value=high / 2)


def test_negative_values_and_what_is_no_number(tmp_path):
    """Hounsfield units, and maps whose margins are filled with NaN."""
    path = save(tmp_path / 'a.tif', np.array([[-1024, 0], [1000, 3071]], dtype=np.int16))
    assert load(path, channels=1, min_value=-1024, max_value=3071).tolist() == [[0, 64], [126, 255]]
    with pytest.raises(DataError, match='values from -1024 to 3071, beyond'):
        load(path, channels=1, max_value=3071)
    path = save(tmp_path / 'b.tif', np.array([[0.5, np.nan]], dtype=np.float32))
    with pytest.raises(DataError, match='values from nan to nan, beyond'):
        load(path, channels=1, max_value=1)


def test_the_pillow_backend_does_not_clip(tmp_path):
    path = save(tmp_path / 'a.png', np.full((4, 4), 1000, np.uint16))
    with pytest.raises(DataError, match="leave out imdecode_backend='pillow'"):
        load(path, imdecode_backend='pillow', max_value=1023)


@pytest.mark.parametrize(
    ('channels', 'shape'), [(1, (8, 6)), (3, (8, 6, 3)), (4, (8, 6, 4)), (7, (8, 6, 7)), (6, (6, 8, 7))]
)
def test_channels(tmp_path, channels, shape):
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = save(tmp_path / ('a.npy' if channels > 4 else 'a.png'), pixels)
    expected = pixels.transpose(1, 2, 0) if channels == 6 else pixels
    assert (load(path, channels=channels) == expected).all()
    found = shape[2] if shape[2:] else 1
    with pytest.raises(DataError, match=rf'a.* has {found} channels, its shape is .* is 5; set that to'):
        load(path, channels=5)
    if channels == 4:
        assert (load(path) == pixels[..., :3]).all()  # alpha is left out, which the log says


def test_pages_of_a_tiff(tmp_path):
    pages = [Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / 'a.tif', save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match='a.tif is a TIFF of 3 pages; save each in a file of its own'):
        load(tmp_path / 'a.tif')
    pages[0].save(tmp_path / 'b.tif', save_all=True, append_images=[pages[1].resize((4, 4))], tiffinfo={254: 0})
    content = bytearray((tmp_path / 'b.tif').read_bytes())
    # As maps and slides have them: the second page says that it is the first one at a lower resolution.
    second = content.rindex(b'\xfe\x00\x04\x00\x01\x00\x00\x00')
    content[second + 8] = 1
    (tmp_path / 'b.tif').write_bytes(content)
    assert load(tmp_path / 'b.tif').shape == (8, 8, 3)


@pytest.mark.parametrize('depth', [np.uint8, np.uint16])
def test_turns_are_applied_unless_they_are_not_asked_for(tmp_path, depth):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 200, (8, 12)).astype(depth)).save(buffer, 'PNG', exif=exif)
    (tmp_path / 'a.png').write_bytes(buffer.getvalue())
    kwargs = dict(max_value=255)
    assert load(tmp_path / 'a.png', channels=3, **kwargs).shape == (12, 8, 3)
    assert load(tmp_path / 'a.png', color_type='color_ignore_orientation', **kwargs).shape == (8, 12, 3)


def test_crops_of_floats(tmp_path):
    image = RNG.random((20, 30, 5)).astype(np.float32) * 255
    crop = TorchRandomResizedCrop(scale=16)(dict(img=image))['img']
    assert crop.shape == (16, 16, 5) and crop.dtype == np.float32


MODEL = 'configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py'


def config(**model):
    cfg = Config.fromfile(MODEL)
    cfg.merge_from_dict(dict(model=model))
    return cfg


@pytest.mark.parametrize('channels', [1, 4, 6])
def test_one_key_sets_them_all(tmp_path, channels):
    cfg = config(backbone=dict(in_channels=channels))
    cfg.model.masker = dict(type='mmmlo.ConvMasker', patch_size=4)
    resolve_channels(cfg)
    assert cfg.train_dataloader.dataset.dataset.pipeline[0].channels == channels
    assert cfg.test_cfg.bank_dataloader.dataset.pipeline[0].channels == channels
    model = MODELS.build(cfg.model)
    path = save(tmp_path / 'a.npy', RNG.integers(0, 256, (32, 32, channels), dtype=np.uint8).squeeze())
    pipeline = cfg.test_dataloader.dataset.pipeline
    dataset = ImageFolder(data_root=str(tmp_path), with_label=False, extensions=['.npy'], pipeline=pipeline)
    pixels = torch.stack([dataset[0]['inputs']] * 2)
    assert pixels.shape == (2, channels, 32, 32) and str(path) == dataset.get_data_info(0)['img_path']
    images = model.data_preprocessor(dict(inputs=pixels, data_samples=None))['inputs']
    assert torch.isfinite(model.loss(images)['loss'])
    filled, _ = model.reconstruct(images)
    assert filled.shape == images.shape
    shown = undo_preprocessing(model.data_preprocessor, True, channels)(images)
    expected = pixels[:, [2, 1, 0] if channels > 1 else [0, 0, 0]].permute(0, 2, 3, 1) / 255
    assert torch.allclose(shown, expected, atol=1e-5)
    with pytest.raises(SettingError, match=f'images have 2 channels, but model.backbone.in_channels is {channels}'):
        model.extract_feat(images[:, :1].repeat(1, 2, 1, 1))


@pytest.mark.parametrize(
    ('model', 'words'),
    [
        (dict(neck=dict(in_chans=1)), 'model.neck.in_chans is 1, but model.backbone.in_channels is 3; set that one alone'),
        (dict(backbone=dict(in_channels=4), head=dict(in_channels=1)), 'model.head.in_channels is 1, but .* is 4'),
        (
            dict(backbone=dict(in_channels=4), data_preprocessor=dict(mean=[1, 2, 3])),
            'model.data_preprocessor.mean has 3 values, but model.backbone.in_channels is 4; give one a channel',
        ),
    ],
)
def test_disagreement_names_the_key(model, words):
    with pytest.raises(SettingError, match=words):
        resolve_channels(config(**model))


def test_three_channels_change_nothing():
    cfg, plain = config(), config()
    resolve_channels(cfg)
    assert cfg.to_dict() == plain.to_dict()
