"""Images in memory against the pipeline that they stand in for."""

import copy
import pickle

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner.runner import _SlicedDataset
from torch.utils.data import DataLoader

from mmmlo.datasets import (
    DataError,
    InMemoryImages,
    ResumableSampler,
    SampleIndex,
    SeededDataset,
    SplitDataset,
    SplitOverlapError,
    batch_collate,
    check_level_splits,
    sample_sources,
)
from mmmlo.datasets.in_memory_images import uniform_integers

NORMALIZE = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], to_rgb=True)


def split(part='train', pipeline=()):
    images = dict(type='mmmlo.SyntheticImages', num_classes=4, per_class=10, size=16, pipeline=list(pipeline))
    return dict(type='mmmlo.SplitDataset', part=part, dataset=images)


def in_memory(part='train', padding=3, flip_prob=0.5):
    return dict(type='mmmlo.InMemoryImages', padding=padding, flip_prob=flip_prob, dataset=split(part))


def load(dataset, workers=0, epoch=0, seed=5, collate=batch_collate):
    dataset = SeededDataset(dataset)
    sampler = ResumableSampler(dataset, DefaultSampler(dataset, shuffle=True, seed=0), seed)
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, 6, sampler=sampler, num_workers=workers, collate_fn=collate))


def test_a_batch_is_what_the_pipeline_makes_with_the_same_crops_and_flips(monkeypatch):
    cfgs = [dict(type='RandomCrop', crop_size=16, padding=3), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    pipeline = [TRANSFORMS.build(cfg) for cfg in cfgs]
    plain = DATASETS.build(split())
    ours = MODELS.build(dict(type='mmmlo.DeviceDataPreprocessor', **NORMALIZE))
    theirs = MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor', **NORMALIZE))
    seen = 0
    for batch in load(in_memory()):
        samples = []
        for sample, shift, flip in zip(batch['data_samples'], batch['shift'].tolist(), batch['flip'].tolist()):
            box = (shift[0] + 3, shift[1] + 3, 16, 16)
            monkeypatch.setattr(pipeline[0], 'rand_crop_params', lambda img, box=box: box)
            monkeypatch.setattr(pipeline[1], '_choose_direction', lambda flip=flip: 'horizontal' if flip else None)
            results = plain.dataset[sample.sample_idx]
            for transform in pipeline:
                results = transform(results)
            samples.append(results)
        expected = theirs(batch_collate(samples), True)
        found = ours(batch, True)
        assert torch.equal(found['inputs'], expected['inputs'])
        for one, other in zip(found['data_samples'], expected['data_samples']):
            assert torch.equal(one.gt_label, other.gt_label)
            assert (one.sample_idx, one.img_shape) == (other.sample_idx, other.img_shape[:2])
        seen += len(samples)
    assert seen == 32


@pytest.mark.parametrize('other', [dict(workers=2), dict(collate=None), 'sliced', 'outside'])
def test_draws_do_not_depend_on_who_loads_an_image_and_how(other):
    torch.manual_seed(0)
    expected = load(in_memory())
    if other == 'sliced':
        dataset = _SlicedDataset(SeededDataset(in_memory()), 32)
        sampler = ResumableSampler(dataset, DefaultSampler(dataset, shuffle=True, seed=0), 5)
        found = list(DataLoader(dataset, 6, sampler=sampler, collate_fn=batch_collate))
    elif other == 'outside':
        found = load(DATASETS.build(in_memory()))
    else:
        found = load(in_memory(), **(dict(other) | ({'collate': _samples} if 'collate' in other else {})))
    assert len(found) == len(expected)
    for one, two in zip(found, expected):
        assert list(one) == list(two) == ['inputs', 'data_samples', 'shift', 'flip']
        assert all(torch.equal(one[key], two[key]) for key in ('inputs', 'shift', 'flip'))
        assert [s.sample_idx for s in one['data_samples']] == [s.sample_idx for s in two['data_samples']]


def _samples(batch):
    """As a collate function that does not know of whole batches."""
    return batch_collate(list(batch))


@pytest.mark.parametrize('other', [dict(epoch=1), dict(seed=6)])
def test_they_do_depend_on_seed_and_epoch(other):
    draws = []
    for batches in (load(in_memory()), load(in_memory(), **other)):
        drawn = {
            sample.sample_idx: (*shift, flip)
            for batch in batches
            for sample, shift, flip in zip(batch['data_samples'], batch['shift'].tolist(), batch['flip'].tolist())
        }
        draws.append([drawn[i] for i in sorted(drawn)])
    assert sum(one == two for one, two in zip(*draws)) < 4  # of 32, with 98 possibilities


def test_all_draws_are_as_likely():
    dataset = InMemoryImages(split(), padding=2, flip_prob=0.25)
    random = np.random.RandomState(0)
    batch = dataset.__getitems__([SampleIndex(0, int(random.randint(2**62))) for _ in range(10_000)]).batch
    _, counts = np.unique(batch['shift'].numpy(), axis=0, return_counts=True)
    assert len(counts) == 25
    assert abs(counts - 400).max() < 5 * 20
    flips = batch['flip'].float()
    assert abs(flips.mean() - 0.25) < 5 * 0.0044
    for axis in range(2):
        assert abs(np.corrcoef(batch['shift'][:, axis], flips)[0, 1]) < 0.05


def test_uniform_integers_are_those_of_splitmix64():
    """The first outputs of the reference implementation for the seed 1234567, of which we take the upper halves."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = [uniform_integers(np.array([1234567], dtype=np.uint64), stream, 2**32)[0] for stream in range(3)]
    assert found == [value >> 32 for value in expected]


def test_plain_indices_draw_from_numpy():
    dataset = InMemoryImages(split(), padding=3, flip_prob=0.5)
    np.random.seed(0)
    first = dataset.__getitems__(range(20)).batch
    second = dataset.__getitems__(range(20)).batch
    np.random.seed(0)
    again = dataset.__getitems__(range(20)).batch
    assert torch.equal(first['shift'], again['shift']) and torch.equal(first['flip'], again['flip'])
    assert not torch.equal(first['shift'], second['shift'])


def test_without_padding_and_flips_images_stay():
    batch = InMemoryImages(split()).__getitems__(range(5)).batch
    assert not batch['shift'].any() and not batch['flip'].any()


def test_it_is_the_dataset_inside_in_everything_else():
    plain, dataset = DATASETS.build(split()), DATASETS.build(in_memory())
    assert len(dataset) == len(plain) == 32
    assert dataset.metainfo == plain.metainfo
    assert (dataset.get_gt_labels() == plain.get_gt_labels()).all()
    assert sample_sources(dataset) == sample_sources(plain) == sample_sources(SeededDataset(dataset))
    for twin in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert torch.equal(twin[3]['inputs'], dataset[3]['inputs'])
    with pytest.raises(AttributeError, match='unheard_of'):
        dataset.unheard_of  # noqa: B018


def test_the_guard_sees_the_splits():
    parts = {level: DATASETS.build(in_memory(part)) for level, part in (('finetune', 'train'), ('masking', 'val'))}
    check_level_splits(parts)
    with pytest.raises(SplitOverlapError, match='share 32 images'):
        check_level_splits(parts | dict(masking=DATASETS.build(in_memory('train'))))


def test_a_split_around_it_works_as_well():
    inner = InMemoryImages(split()['dataset'], padding=3)
    dataset = SplitDataset(inner, part='val')
    batch = load(dataset)[0]
    expected = [inner.images[sample.sample_idx] for sample in batch['data_samples']]
    assert torch.equal(batch['inputs'], torch.stack(expected))
    assert sample_sources(dataset) == sample_sources(DATASETS.build(split('val')))


def test_files_keep_their_names(image_folder):
    root = image_folder(cat=4, dog=3)
    pipeline = [dict(type='mmmlo.LoadImage'), dict(type='Resize', scale=(10, 8))]
    dataset = InMemoryImages(dict(type='CustomDataset', data_root=str(root), pipeline=pipeline))
    batch = dataset.__getitems__([5, 1]).batch
    assert batch['inputs'].shape == (2, 3, 8, 10)
    assert [sample.img_path for sample in batch['data_samples']] == [str(root / 'dog/001.png'), str(root / 'cat/001.png')]
    assert [int(sample.gt_label) for sample in batch['data_samples']] == [1, 0]
    sample = batch['data_samples'][0]
    assert (sample.ori_shape, sample.img_shape) == ((12, 16), (8, 10))
    image = mmcv.imresize(mmcv.imread(str(root / 'dog/001.png')), (10, 8))
    assert torch.equal(batch['inputs'][0], torch.from_numpy(image).permute(2, 0, 1))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(padding=-1), '`padding` of InMemoryImages must be a number of pixels'),
        (dict(padding=True), '`padding` of InMemoryImages'),
        (dict(flip_prob=1.5), r'`flip_prob` of InMemoryImages must be in \[0, 1\], not 1.5'),
        (dict(dataset=split(pipeline=[dict(type='PackInputs')])), 'has no `img`.*ends before PackInputs'),
        (dict(dataset=split(pipeline=[dict(type='DifferentSizes')])), r'has the shape \(3, 1., 16\).*Resize'),
        (dict(dataset=split(pipeline=[dict(type='ToFloat')])), 'an `img` that is float32 of the shape'),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(DataError, match=message):
        InMemoryImages(**(dict(dataset=split()) | changes))


@TRANSFORMS.register_module()
class DifferentSizes:
    """Images of several heights."""

    def __call__(self, results):
        results['img'] = results['img'][: 16 - results['sample_idx'] % 3]
        return results


@TRANSFORMS.register_module()
class ToFloat:
    """Images of another type."""

    def __call__(self, results):
        results['img'] = results['img'].astype(np.float32)
        return results
