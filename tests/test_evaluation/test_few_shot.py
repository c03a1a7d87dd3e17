import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmmlo.evaluation import few_shot_probe, fit_logistic_regression


@pytest.fixture(scope='module')
def task():
    feats, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    return feats[:1200].float(), labels[:1200], feats[1200:].float(), labels[1200:]


SMALL = dict(shots=(4, 1, 2), draws=2)


@pytest.fixture(scope='module')
def result(task):
    return few_shot_probe(*task, **SMALL)


def test_draws(task, result):
    labels = task[1]
    assert list(result) == [1, 2, 4]
    for draw in range(2):
        for shots, more in ((1, 2), (2, 4)):
            assert set(result[shots][draw].rows) < set(result[more][draw].rows)
        for shots, draws in result.items():
            np.testing.assert_array_equal(np.bincount(labels[draws[draw].rows]), [shots] * 10)
    assert set(result[4][0].rows) != set(result[4][1].rows)


def test_a_draw_depends_on_its_seed_and_number_only(task, result):
    again = few_shot_probe(*task, shots=(2,), draws=1)
    np.testing.assert_array_equal(again[2][0].rows, result[2][0].rows)
    other = few_shot_probe(*task, shots=(2,), draws=1, seed=1)
    assert set(other[2][0].rows) not in [set(draw.rows) for draw in result[2]]


def test_accuracy_is_that_of_the_pipeline(task, result):
    feats, labels, test_feats, test_labels = map(np.asarray, task)
    assert [draw.C for draw in result[1]] == [0.1, 0.1]
    for draws in result.values():
        for accuracy, C, rows in draws:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
            predicted = model.fit(feats[rows].astype('float64'), labels[rows]).predict(test_feats.astype('float64'))
            assert accuracy == pytest.approx(100 * accuracy_score(test_labels, predicted), abs=1e-9)
    assert np.mean([draw.accuracy for draw in result[4]]) > np.mean([draw.accuracy for draw in result[1]]) > 20


def test_test_labels_choose_nothing(task, result):
    rolled = few_shot_probe(*task[:3], task[3].roll(1), **SMALL)
    assert [draw.C for draw in rolled[4]] == [draw.C for draw in result[4]]
    assert rolled[4][0].accuracy != result[4][0].accuracy


def test_the_best_c_is_found_and_of_equally_good_ones_the_smaller(task):
    feats, labels = (some[:200].numpy() for some in task[:2])
    folds = StratifiedKFold(2)
    assert fit_logistic_regression(feats, labels, folds, (1e-9, 1e-2))[1] == 1e-2
    assert fit_logistic_regression(feats, labels, folds, (1.0, 1.0 * (1 + 1e-9)))[1] == 1.0
