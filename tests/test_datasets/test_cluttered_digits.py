from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmmlo.datasets import ClutteredDigits, SampleIndex, SeededDataset, SplitDataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in ('img', 'worth', 'gt_label'))


def test_training_images_are_new_and_follow_the_seed_of_the_sample():
    data = SeededDataset(ClutteredDigits())
    assert not same(data.dataset[3], data.dataset[3])
    assert same(data[SampleIndex(3, 7)], data[SampleIndex(3, 7)])
    assert not same(data[SampleIndex(3, 7)], data[SampleIndex(3, 8)])


def test_test_images_are_fixed_by_seed_and_image():
    first, second, other = (ClutteredDigits('test', copies=2, seed=seed) for seed in (0, 0, 1))
    assert len(first) == 718 and same(first[5], second[5])
    assert not same(first[5], other[5]) and not same(first[5], first[5 + 359])
    assert first.get_data_info(5)['source'] == first.get_data_info(5 + 359)['source']
    assert same(first[2], ClutteredDigits('test', copies=2, indices=[2])[0])


def test_worth_is_where_the_digit_is():
    plain = ClutteredDigits('test', clutter=0)[0]
    background = plain['img'][plain['worth'] == 0]
    assert (background == background[0]).all()
    assert 0.1 < plain['worth'].mean() < 0.5
    changed = (plain['img'] != background[0]).any(axis=-1)
    assert changed[plain['worth'] > 0.1].all()


@pytest.mark.parametrize('target', ['digit', 'parity', 'half', 'presence', 'place', 'colour', 'photograph'])
def test_labels_say_what_is_asked(target):
    data = ClutteredDigits('test', target=target, num_distractors=1)
    samples = [data[i] for i in range(60)]
    labels = {sample['gt_label'] for sample in samples}
    assert labels == set(range(len(data.metainfo['classes'])))
    for i, sample in enumerate(samples):
        digit = data.get_data_info(i)['digit']
        rows, columns = np.nonzero(sample['worth'])
        expected = dict(digit=digit, parity=digit % 2, half=digit // 5, presence=len(rows) > 0)
        if target == 'colour':
            pixel = sample['img'][sample['worth'] == sample['worth'].max()][0]
            expected['colour'] = pixel.argmax()
        if target in expected:
            assert sample['gt_label'] == expected[target]
        if target == 'place':
            assert abs(np.array([rows.mean(), columns.mean()]) - [16, 16]).max() < 12
            assert (rows.mean() > 16 + 4) <= (sample['gt_label'] >= 2)


@pytest.mark.parametrize('target', ['parity', 'half', 'presence', 'place', 'colour', 'photograph'])
def test_other_labels_can_be_cut_too(target):
    data = dict(type='mmmlo.ClutteredDigits', target=target, indices=63)
    parts = [SplitDataset(data, part=part) for part in ('train', 'val')]
    assert abs(len(parts[0]) - 0.8 * 63) < 1 and len(parts[0]) + len(parts[1]) == 63
    if target in ('parity', 'half'):
        assert [parts[1][i]['gt_label'] for i in range(len(parts[1]))] == parts[1].get_gt_labels().tolist()


def test_splits_show_other_scans_and_other_parts_of_the_photographs():
    train, test = ClutteredDigits(clutter=1), ClutteredDigits('test', clutter=1)
    sources = [{data.get_data_info(i)['source'] for i in range(len(data))} for data in (train, test)]
    assert not set.intersection(*sources) and len(set.union(*sources)) == 1797


@pytest.mark.parametrize('wrong', [dict(digit_size=33), dict(digit_size=7), dict(clutter=1.1), dict(target='shape')])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} of ClutteredDigits must be'):
        ClutteredDigits(**wrong)


def test_only_oracles_are_told_the_worth():
    """A key of PackInputs is the one way from the images to a model; a hook that measures has images of its own."""
    configs = sorted([*CONFIGS.glob('*/*_cluttered-digits.py'), *CONFIGS.glob('*/*_camvid-objects.py')])
    assert len(configs) > 8
    for path in configs:
        cfg = Config.fromfile(path)
        told = [str(cfg.train_dataloader), str(cfg.train_cfg), str(cfg.val_dataloader), str(cfg.val_cfg)]
        assert ('worth' in ''.join(told)) == path.name.startswith('oracle')
        assert 'worth' not in ''.join(told[1:])
