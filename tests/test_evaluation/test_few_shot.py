import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmmlo.evaluation import few_shot_probe


@pytest.fixture(scope='module')
def task():
    feats, labels = load_digits(return_X_y=True)
    return feats[:1200].astype('float32'), labels[:1200], feats[1200:].astype('float32'), labels[1200:]


SMALL = dict(shots=(4, 1, 2), draws=2, grid=(1e-2, 1.0))


@pytest.fixture(scope='module')
def result(task):
    return few_shot_probe(*task, **SMALL)


def test_draws(task, result):
    labels = task[1]
    assert list(result.indices) == [1, 2, 4]
    for draw in range(2):
        for shots, more in ((1, 2), (2, 4)):
            assert set(result.indices[shots][draw]) < set(result.indices[more][draw])
        for shots, rows in result.indices.items():
            np.testing.assert_array_equal(np.bincount(labels[rows[draw]]), [shots] * 10)
    assert set(result.indices[4][0]) != set(result.indices[4][1])


def test_a_draw_depends_on_its_seed_and_number_only(task, result):
    again = few_shot_probe(*task, shots=(2,), draws=1, grid=[1.0])
    np.testing.assert_array_equal(again.indices[2][0], result.indices[2][0])
    other = few_shot_probe(*task, shots=(2,), draws=1, grid=[1.0], seed=1)
    assert set(other.indices[2][0]) not in [set(rows) for rows in result.indices[2]]


def test_accuracy_is_that_of_the_pipeline(task, result):
    feats, labels, test_feats, test_labels = task
    assert result.C[1] == [0.1, 0.1]
    for shots, accuracies in result.accuracies.items():
        for draw, accuracy in enumerate(accuracies):
            rows, C = result.indices[shots][draw], result.C[shots][draw]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
            predicted = model.fit(feats[rows].astype('float64'), labels[rows]).predict(test_feats.astype('float64'))
            assert accuracy == pytest.approx(100 * accuracy_score(test_labels, predicted), abs=1e-9)
    assert np.mean(result.accuracies[4]) > np.mean(result.accuracies[1]) > 20


def test_test_labels_choose_nothing(task, result):
    feats, labels, test_feats, test_labels = task
    rolled = few_shot_probe(feats, labels, test_feats, np.roll(test_labels, 1), **SMALL)
    assert rolled.C == result.C
    assert rolled.accuracies[4] != result.accuracies[4]


def test_of_equally_good_regularizations_the_smaller_c_is_taken(task):
    found = few_shot_probe(*task, shots=(8,), draws=1, grid=(1.0, 1.0 * (1 + 1e-9)))
    assert found.C[8] == [1.0]


def test_tensors_and_progress(task, result):
    told = []
    tensors = [torch.from_numpy(array) for array in task]
    same = few_shot_probe(*tensors, **SMALL, progress=lambda *state: told.append(state))
    assert same.accuracies == result.accuracies and same.C == result.C
    assert told == [(done, 6) for done in range(1, 7)]


def test_too_few_images_are_found_before_anything_is_fitted(task):
    feats, labels, test_feats, test_labels = task
    rows = np.concatenate([np.flatnonzero(labels != 3), np.flatnonzero(labels == 3)[:5]])
    told = []
    with pytest.raises(ValueError, match='class 3 has 5 training images, fewer than 16 shots: at most 5 shots'):
        few_shot_probe(feats[rows], labels[rows], test_feats, test_labels, progress=lambda *state: told.append(state))
    assert not told


def test_bad_input(task):
    feats, labels, test_feats, test_labels = task
    with pytest.raises(ValueError, match="the test 'given' features hold NaN"):
        few_shot_probe(feats, labels, test_feats * np.nan, test_labels)
    with pytest.raises(ValueError, match="the training 'given' features hold NaN"):
        few_shot_probe(feats * np.nan, labels, test_feats, test_labels)
    with pytest.raises(ValueError, match=r'classes \[3\] of the test data'):
        few_shot_probe(feats[labels != 3], labels[labels != 3], test_feats, test_labels)
    with pytest.raises(ValueError, match='do not fit'):
        few_shot_probe(feats, labels[1:], test_feats, test_labels)
    with pytest.raises(ValueError, match='do not fit'):
        few_shot_probe(feats, labels, test_feats[:, 1:], test_labels)
    with pytest.raises(ValueError, match='two classes'):
        few_shot_probe(feats[labels == 3], labels[labels == 3], test_feats[test_labels == 3], test_labels[test_labels == 3])
    for wrong in (dict(shots=()), dict(shots=(0,)), dict(draws=0), dict(grid=()), dict(max_folds=1)):
        with pytest.raises(ValueError, match='must be at least 1'):
            few_shot_probe(*task, **wrong)
