import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmmlo.evaluation import linear_probe


@pytest.fixture(scope='module')
def task():
    """Features of which most are noise, on very different scales, so that regularization matters."""
    feats, labels = make_classification(
        600, 60, n_informative=8, n_redundant=0, n_classes=3, flip_y=0.1, class_sep=1.5, random_state=0
    )
    feats = feats * np.logspace(-3, 3, 60)
    return feats[:250], labels[:250], feats[250:], labels[250:]


def reference(task, C):
    train_feats, train_labels, test_feats, test_labels = task
    scaler = StandardScaler().fit(train_feats)
    model = LogisticRegression(C=C, max_iter=1000).fit(scaler.transform(train_feats), train_labels)
    return 100 * (model.predict(scaler.transform(test_feats)) == test_labels).mean()


def test_one_value_of_c_is_plain_logistic_regression(task):
    result = linear_probe(*task, grid=[0.1])
    assert result.C == 0.1
    assert result.top1 == pytest.approx(reference(task, 0.1))
    assert 50 < result.top1 < 100


def test_c_is_chosen_without_the_test_data(task):
    train_feats, train_labels, test_feats, test_labels = task
    result = linear_probe(*task)
    assert result.top1 == pytest.approx(reference(task, result.C))
    shuffled = linear_probe(train_feats, train_labels, test_feats, np.roll(test_labels, 1))
    assert shuffled.C == result.C
    assert shuffled.top1 < result.top1


def test_regularization_that_helps_is_found(task):
    """1e-9 shrinks every weight to nothing, so its accuracy is that of the largest class."""
    assert linear_probe(*task, grid=[1e-9, 1e-2]).C == 1e-2
    assert linear_probe(*task, grid=[1e-2, 1e-2 * (1 + 1e-9)]).C == 1e-2, 'of equals the smaller'


def test_tensors_and_seeds(task):
    tensors = [torch.from_numpy(values) for values in task]
    assert linear_probe(*tensors, seed=3) == linear_probe(*task, seed=3)


def test_bad_input(task):
    train_feats, train_labels, test_feats, test_labels = task
    with pytest.raises(ValueError, match='`grid` is empty'):
        linear_probe(*task, grid=[])
    with pytest.raises(ValueError, match='NaN'):
        linear_probe(train_feats * np.nan, train_labels, test_feats, test_labels)
