import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from mmmlo.evaluation import feature_cache
from mmmlo.evaluation.data import find_data
from mmmlo.evaluation.encoder import load_encoder
from mmmlo.evaluation.feature_cache import FeatureCache, Features, check_features
from mmmlo.evaluation.features import pool_tokens
from mmmlo.utils.errors import DataError

FOLDER = dict(type='CustomDataset', pipeline=[dict(type='mmmlo.LoadImage'), dict(type='PackInputs')])


@pytest.fixture
def encoder(tiny_checkpoint):
    return load_encoder(tiny_checkpoint('mlo'))


def entries(folder):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


@pytest.mark.parametrize('trained_on', [None, FOLDER])
def test_features_are_those_of_the_pixels_in_the_encoder_s_order(labelled_folder, tiny_checkpoint, trained_on):
    """The encoder knows red, green, blue either way; the images come from files, which OpenCV reads the other way."""
    to_rgb = trained_on is not None
    encoder = load_encoder(tiny_checkpoint('colours', dataset=trained_on, data_preprocessor=dict(to_rgb=to_rgb)))
    features = FeatureCache(None, num_workers=0).get(encoder, find_data(str(labelled_folder)))['test']
    files = [str(labelled_folder / 'test' / name / f'{i}.png') for name in ('blue', 'green', 'red') for i in range(8)]
    images = np.stack([cv2.imread(file)[..., ::-1].transpose(2, 0, 1) for file in files]).astype(np.float32)
    mean, std = np.array([120, 110, 100.0])[:, None, None], np.array([60, 61, 62.0])[:, None, None]
    with torch.no_grad():
        expected = encoder.model.eval().extract_feat(torch.from_numpy(((images - mean) / std).astype(np.float32)))
    for token in ('mean', 'cls'):
        torch.testing.assert_close(features.tokens[token], pool_tokens(expected, token), rtol=1e-4, atol=1e-5)
    assert features.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_the_second_time_comes_from_the_disk(labelled_folder, encoder, tmp_path):
    cache = FeatureCache(str(tmp_path), num_workers=0)
    first = cache.get(encoder, find_data(str(labelled_folder)))
    second = cache.get(encoder, find_data(str(labelled_folder)))
    for split in ('train', 'test'):
        assert not first[split].cached and second[split].cached
        assert torch.equal(first[split].labels, second[split].labels)
        for token in ('mean', 'cls'):
            assert torch.equal(first[split].tokens[token], second[split].tokens[token])
    assert len(entries(tmp_path)) == 2


def test_other_images_weights_or_precision_are_computed_anew(labelled_folder, encoder, tiny_checkpoint, tmp_path):
    shutil.copytree(labelled_folder, tmp_path / 'data')
    folder = str(tmp_path / 'features')

    def cached(encoder, **kwargs):
        found = FeatureCache(folder, num_workers=0, **kwargs).get(encoder, find_data(str(tmp_path / 'data')))
        return found['train'].cached, found['test'].cached

    assert cached(encoder) == (False, False)
    assert cached(encoder) == (True, True)
    assert cached(encoder, amp=True) == (False, False)
    assert cached(load_encoder(tiny_checkpoint('other', seed=1))) == (False, False)
    os.utime(tmp_path / 'data/test/red/0.png', (1, 1))
    assert cached(encoder) == (True, False)
    for name in entries(folder):
        if '_train_' in name:
            (tmp_path / 'features' / name).write_bytes(b'')
    assert cached(encoder) == (False, True)
    assert cached(encoder) == (True, True)
    assert all(name.endswith('.pth') for name in entries(folder))


def test_a_diverged_encoder_leaves_nothing_in_the_cache(labelled_folder, encoder, tmp_path):
    encoder.model.backbone.ln1.weight.data[0] = float('nan')
    with pytest.raises(DataError, match="mlo.pth on .*: the train 'mean' features hold NaN or infinite values, 60 of 60"):
        FeatureCache(str(tmp_path), num_workers=0).get(encoder, find_data(str(labelled_folder)))
    assert not entries(tmp_path)


def test_a_copied_test_split_leaves_nothing_in_the_cache(labelled_folder, encoder, tmp_path):
    for split in ('train', 'test'):
        shutil.copytree(labelled_folder / 'test', tmp_path / 'data' / split)
    os.rename(tmp_path / 'data/test/red/0.png', tmp_path / 'data/test/red/renamed.png')
    with pytest.raises(DataError, match='each of the 24 test images has the very features of a training image'):
        FeatureCache(str(tmp_path / 'features'), num_workers=0).get(encoder, find_data(str(tmp_path / 'data')))
    assert not entries(tmp_path / 'features')


def test_copies_are_counted_without_copies_of_the_features(monkeypatch):
    train, test = torch.randn(20000, 64), torch.randn(1000, 64)
    test[:50] = train[1000:1050]
    features = {split: Features(dict(mean=rows), None, False) for split, rows in (('train', train), ('test', test))}
    lines = []
    monkeypatch.setattr(feature_cache, 'print_log', lambda line, *_, **__: lines.append(line))
    tracemalloc.start()
    check_features(features, 'a.pth', 'photos')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < train.numel() * 4 / 4
    assert len(lines) == 1 and 'photos: 50 of 1000 test images have the very features' in lines[0]
