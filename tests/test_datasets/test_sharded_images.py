"""Tar files as WebDataset writes them: samples, splits, resume, and what can be wrong with them."""

import io
import json
import os.path as osp
import tarfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose

from mmmlo.datasets import DataError, SampleIndex, SplitDataset, SplitOverlapError, check_level_splits, sharded_images
from mmmlo.datasets.sharded_images import ShardedImages, expand_shards, index_shard
from mmmlo.launch.config import load_config
from mmmlo.registry import DATASETS
from mmmlo.utils.config import dataset_leaves, named_dataloaders
from mmmlo.utils.errors import MissingFileError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
PIPELINE = [dict(type='mmmlo.LoadImage'), dict(type='mmpretrain.PackInputs')]


def image(number):
    return cv2.imencode('.png', np.full((4, 4, 3), number, np.uint8))[1].tobytes()


def write_shard(path, numbers, labels=True):
    with tarfile.open(path, 'w') as archive:
        for number in numbers:
            for ending, content in (('png', image(number)), ('cls', str(number % 3).encode())):
                if ending == 'png' or labels:
                    info = tarfile.TarInfo(f'n01/{number:03}.{ending}')
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """Four shards of six images, whose pixels tell their number."""
    for i in range(4):
        write_shard(tmp_path / f'train-{i:02}.tar', range(6 * i, 6 * i + 6))
    return str(tmp_path / 'train-{00..03}.tar')


def numbers(dataset):
    return [int(dataset[i]['inputs'][0, 0, 0]) for i in range(len(dataset))]


def test_samples_are_those_of_the_files_in_the_order_of_their_keys(shards, tmp_path):
    data = ShardedImages(shards, pipeline=PIPELINE)
    assert numbers(data) == list(range(24))
    assert [int(data[i]['data_samples'].gt_label) for i in range(24)] == [i % 3 for i in range(24)]
    kept = json.loads((tmp_path / 'train-00.tar.index.json').read_text())
    assert kept['size'] == (tmp_path / 'train-00.tar').stat().st_size
    # Another order of shards and members is the same data set, and the index that is there is read.
    write_shard(tmp_path / 'train-03.tar', [23, 19, 18, 21, 20, 22])
    (tmp_path / 'train-03.tar.index.json').unlink()
    again = ShardedImages([str(tmp_path / f'train-{i:02}.tar') for i in (2, 3, 0, 1)], pipeline=PIPELINE)
    assert numbers(again) == list(range(24))
    assert index_shard(str(tmp_path / 'train-00.tar')) == kept


def test_splits_are_cut_and_compared_by_key(shards, tmp_path):
    data = dict(type='mmmlo.ShardedImages', shards=shards, pipeline=PIPELINE)
    parts = [DATASETS.build(dict(type='mmmlo.SplitDataset', part=part, dataset=data)) for part in ('train', 'val')]
    assert sorted(numbers(parts[0]) + numbers(parts[1])) == list(range(24)) and isinstance(parts[0], SplitDataset)
    check_level_splits(dict(finetune=parts[0], masking=parts[1]))
    # The same key in a shard of another name.
    copied = ShardedImages(str(write_shard(tmp_path / 'val.tar', [5])), pipeline=PIPELINE)
    with pytest.raises(SplitOverlapError, match='share 1 images, for example n01/005'):
        check_level_splits(dict(finetune=ShardedImages(shards, pipeline=PIPELINE), masking=copied))


def test_a_sample_is_drawn_again_from_its_index(shards):
    data = DATASETS.build(
        dict(type='mmmlo.SeededDataset', dataset=dict(type='mmmlo.ShardedImages', shards=shards, pipeline=PIPELINE))
    )
    first, second = (data[SampleIndex(7, 3)]['inputs'] for _ in range(2))
    assert first.equal(second) and int(first[0, 0, 0]) == 7


def test_what_is_wrong_with_a_shard_is_named(shards, tmp_path):
    last = tmp_path / 'train-03.tar'
    with pytest.raises(MissingFileError, match='there is no shard .*train-04.tar'):
        ShardedImages(shards.replace('03}', '04}'), pipeline=PIPELINE)
    whole = last.read_bytes()
    for torn in (whole[: len(whole) // 3 + 100], b'no tar file' * 100):
        last.write_bytes(torn)
        (tmp_path / 'train-03.tar.index.json').unlink(missing_ok=True)
        with pytest.raises(DataError, match='the shard .*train-03.tar is (torn or no tar file|cut off)'):
            ShardedImages(shards, pipeline=PIPELINE)
    kept = tmp_path / 'train-03.tar.index.json'
    write_shard(last, [17, 18])
    with pytest.raises(DataError, match="the key 'n01/017' is in two shards, .*train-02.tar and .*train-03.tar"):
        ShardedImages(shards, pipeline=PIPELINE)
    write_shard(last, [18, 18])
    kept.unlink()
    with pytest.raises(DataError, match="train-03.tar has two images of the key 'n01/018'"):
        ShardedImages(shards, pipeline=PIPELINE)
    write_shard(last, [18], labels=False)
    kept.unlink(missing_ok=True)
    with pytest.raises(DataError, match="'n01/018' of the shard .* has no n01/018.cls .*set `with_label=False`"):
        ShardedImages(shards, pipeline=PIPELINE)
    assert len(ShardedImages(shards, with_label=False, pipeline=PIPELINE)) == 19


def test_a_shard_that_changes_or_goes_while_it_is_read_is_named(shards, tmp_path):
    data = ShardedImages(shards, pipeline=PIPELINE)
    write_shard(tmp_path / 'train-03.tar', [*range(18, 22), 23, 22])
    with pytest.raises(DataError, match='has no 023.png where its index says; remove .*train-03.tar.index.json'):
        data[23]
    (tmp_path / 'train-03.tar').write_bytes(b'short')
    with pytest.raises(DataError, match='the shard .*train-03.tar is cut off'):
        data[23]
    (tmp_path / 'train-03.tar').unlink()
    with pytest.raises(DataError, match='the shard .*train-03.tar is gone'):
        data[23]


@pytest.mark.parametrize('failures', [2, 10])
def test_a_url_that_does_not_answer_is_tried_again(shards, monkeypatch, failures):
    data, calls = ShardedImages(shards, pipeline=PIPELINE), []
    system, path = sharded_images._file_system(str(shards).replace('{00..03}', '00'), 0)

    def cat_file(*args, **kwargs):
        calls.append(args)
        if len(calls) <= failures:
            raise TimeoutError('no answer')
        return system.cat_file(*args, **kwargs)

    monkeypatch.setattr(sharded_images, '_WAIT', 0.0)
    monkeypatch.setattr(sharded_images, '_file_system', lambda *_: (SimpleNamespace(cat_file=cat_file), path))
    if failures == 2:
        assert int(Compose(PIPELINE)(data.get_data_info(3))['inputs'][0, 0, 0]) == 3 and len(calls) == 3
    else:
        with pytest.raises(DataError, match=r'could not be read in 4 tries \(.*no answer\); once it answers, --resume'):
            data[3]


def test_a_file_system_of_fsspec_serves(shards, tmp_path):
    import fsspec

    memory = fsspec.filesystem('memory')
    for i in range(2):
        memory.pipe_file(f'/shards/train-{i}.tar', (tmp_path / f'train-0{i}.tar').read_bytes())
    data = ShardedImages('memory://shards/train-{0..1}.tar', pipeline=PIPELINE)
    assert numbers(data) == list(range(12)) and memory.exists('/shards/train-0.tar.index.json')


def test_the_config_of_imagenet_reads_shards(shards):
    cfg = load_config(osp.join(ROOT, 'configs/_base_/datasets/imagenet_shards.py'))
    leaves = [leaf for _, loader in named_dataloaders(cfg) for _, leaf in dataset_leaves(loader.dataset, '')]
    assert {leaf.type for leaf in leaves} == {'mmmlo.ShardedImages'}
    folder = cfg.train_dataloader.dataset.dataset.shards
    assert len(expand_shards(folder)) == 147 and expand_shards(folder)[9].endswith('train-0009.tar')
    cfg.train_dataloader.dataset.dataset.shards = shards
    data = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(data) == 19 and data[0]['inputs'].shape == (3, 224, 224)  # 80 per cent of each class
