"""Our data preprocessor against mmpretrain's, and cropping and mirroring against a loop."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmmlo.models import DeviceDataPreprocessor, crop_and_flip
from mmmlo.registry import MODELS

NORMALIZE = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], to_rgb=True)


def images(count=5, shape=(6, 9)):
    return torch.randint(0, 256, (count, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def samples(count=5, label=int):
    return [DataSample(metainfo=dict(sample_idx=i)).set_gt_label(label(i)) for i in range(count)]


def assert_same_samples(found, expected):
    assert len(found) == len(expected)
    for one, two in zip(found, expected):
        assert dict(one.metainfo_items()) == dict(two.metainfo_items())
        assert one.keys() == two.keys()
        assert all(torch.equal(one.get(key), two.get(key)) for key in one.keys())  # noqa: SIM118  no mapping


@pytest.mark.parametrize(
    'batch',
    [
        dict(inputs=images(), data_samples=samples()),
        dict(inputs=images(), data_samples=[DataSample(metainfo=dict(sample_idx=i)) for i in range(5)]),
        dict(inputs=images(), data_samples=samples(label=lambda i: [0] * (1 + i % 2))),
        dict(inputs=images(), data_samples=[s.set_mask(torch.ones(2)) for s in samples()]),
        dict(inputs=images(), data_samples=None),
        dict(inputs=[images(), images()], data_samples=samples()),
    ],
)
def test_ordinary_batches_are_treated_as_by_mmpretrain(batch):
    ours = MODELS.build(dict(type='mmmlo.DeviceDataPreprocessor', **NORMALIZE))(batch, True)
    theirs = MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor', **NORMALIZE))(batch, True)
    several = isinstance(batch['inputs'], list)
    for one, two in zip(*([out['inputs']] if not several else out['inputs'] for out in (ours, theirs))):
        assert one.dtype == torch.float32 and torch.equal(one, two)
    if batch['data_samples'] is None:
        assert ours['data_samples'] is theirs['data_samples'] is None
    else:
        assert_same_samples(ours['data_samples'], theirs['data_samples'])


def test_a_batch_without_samples_and_the_loader_s_own_samples():
    preprocessor = DeviceDataPreprocessor(**NORMALIZE)
    assert preprocessor(dict(inputs=images()))['data_samples'] is None
    raw = samples()
    moved = preprocessor(dict(inputs=images(), data_samples=raw))['data_samples']
    moved[0].set_field(1, 'added')
    assert 'added' not in raw[0]


def test_crop_and_flip_is_what_a_loop_does():
    batch = images(9, (6, 8))
    shift = torch.tensor([(dy, dx) for dy in (-3, 0, 2) for dx in (-9, 1, 8)])
    flip = torch.arange(9) % 2 == 0
    found = crop_and_flip(batch, shift, flip)
    for image, (dy, dx), mirrored, out in zip(batch, shift.tolist(), flip.tolist(), found):
        expected = torch.zeros_like(image)
        for y in range(6):
            for x in range(8):
                if 0 <= y + dy < 6 and 0 <= x + dx < 8:
                    expected[:, y, x] = image[:, y + dy, x + dx]
        assert torch.equal(out, expected.flip(-1) if mirrored else expected)


@pytest.mark.parametrize('training', [False, True])
def test_a_batch_is_cropped_and_mirrored_whether_or_not_in_training(training):
    batch = dict(inputs=images(), data_samples=samples(), shift=torch.ones(5, 2).long(), flip=torch.ones(5).bool())
    ours = DeviceDataPreprocessor(**NORMALIZE)(batch, training)
    cut = crop_and_flip(batch['inputs'], batch['shift'], batch['flip'])
    theirs = MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor', **NORMALIZE))
    assert torch.equal(ours['inputs'], theirs(dict(inputs=cut, data_samples=None))['inputs'])
    assert_same_samples(ours['data_samples'], samples())


@pytest.mark.parametrize(
    'changes',
    [dict(shift=torch.zeros(4, 2).long()), dict(flip=None), dict(flip=torch.zeros(5, 1).bool()), dict(inputs=[images()])],
)
def test_what_does_not_fit_is_named(changes):
    batch = dict(inputs=images(), data_samples=samples(), shift=torch.zeros(5, 2).long(), flip=torch.zeros(5).bool())
    with pytest.raises(ValueError, match='`shift` of B x 2 and `flip` of B; here'):
        DeviceDataPreprocessor()(batch | changes)


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    batch = dict(inputs=images(), data_samples=samples(), shift=torch.ones(5, 2).long(), flip=torch.ones(5).bool())
    on_cpu = DeviceDataPreprocessor(**NORMALIZE)(batch)
    on_gpu = DeviceDataPreprocessor(**NORMALIZE, non_blocking=True).cuda()(batch)
    assert on_gpu['inputs'].is_cuda and all(sample.gt_label.is_cuda for sample in on_gpu['data_samples'])
    torch.testing.assert_close(on_gpu['inputs'].cpu(), on_cpu['inputs'])
    assert [int(sample.gt_label) for sample in on_gpu['data_samples']] == list(range(5))
