import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmmlo.evaluation import fast_linear_probe, linear_heads

FEW = dict(weight_decays=(1e-1, 1e-2, 1e-3))


def digits(count):
    """Pixels of digits, some of them always 0."""
    feats, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        feats.astype('float32'), labels, train_size=count, stratify=labels, random_state=0
    )
    return train, train_labels, test, test_labels


def badly_scaled():
    """Features of which most are noise, on very different scales, so that regularization matters."""
    feats, labels = make_classification(
        600, 60, n_informative=8, n_redundant=0, n_classes=3, flip_y=0.1, class_sep=1.5, random_state=0
    )
    feats = (feats * np.logspace(-3, 3, 60)).astype('float32')
    return feats[:250], labels[:250], feats[250:], labels[250:]


def correlated(count=2000, width=192, classes=10, tests=1500):
    """Classes that differ along weak directions of features whose covariance has a condition of 37,000."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    deviation = 1 / np.arange(1, width + 1)
    labels = rng.integers(0, classes, count + tests)
    centres = 0.05 * rng.normal(size=(classes, width)) * np.sqrt(deviation)
    feats = ((centres[labels] + deviation * rng.normal(size=(len(labels), width))) @ rotation).astype('float32')
    return feats[:count], labels[:count], feats[count:], labels[count:]


def as_heads(task, **kwargs):
    train, train_labels, test, test_labels = map(torch.as_tensor, task)
    kwargs.setdefault('num_classes', int(train_labels.max()) + 1)
    return fast_linear_probe(dict(mean=train), train_labels, dict(mean=test), test_labels, **kwargs)


def regression(C):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))


@pytest.fixture(scope='module')
def task():
    return digits(200)


@pytest.fixture(scope='module')
def result(task):
    return as_heads(task, **FEW)


@pytest.mark.parametrize('make', [lambda: digits(200), lambda: digits(500), badly_scaled, correlated])
def test_as_good_as_tuned_logistic_regression(make):
    """C is tuned on the held-out part of the sweep."""
    train, train_labels, test, test_labels = make()
    fitted, held = linear_heads._split(torch.as_tensor(train_labels), 0)
    scores = {
        C: regression(C).fit(train[fitted], train_labels[fitted]).score(train[held], train_labels[held])
        for C in 10.0 ** np.arange(-4, 3)
    }
    best = max(scores, key=scores.get)
    reference = 100 * regression(best).fit(train, train_labels).score(test, test_labels)
    assert 50 < reference < 99.9
    assert as_heads(make()).top1 > reference - 1


@pytest.mark.parametrize('make', [lambda: digits(200), badly_scaled, correlated])
def test_one_head_is_regularized_logistic_regression(make):
    train, train_labels, test, test_labels = task = make()
    found = as_heads(task, weight_decays=[1e-2])
    # As batch normalization: its eps, 1e-6, is as much as the smallest variance of `badly_scaled`.
    mean, deviation = train.mean(0, dtype='float64'), np.sqrt(train.var(0, dtype='float64') + 1e-6)
    reference = LogisticRegression(C=1 / (1e-2 * len(train)), max_iter=5000, tol=1e-8)
    reference.fit((train - mean) / deviation, train_labels)
    expected = reference.predict_proba((test - mean) / deviation)
    np.testing.assert_allclose(found.logits.softmax(1), expected, rtol=0, atol=2e-3)


def test_accuracies_are_those_of_the_logits(task, result):
    assert result.logits.shape == (len(task[3]), 10) and result.logits.dtype == torch.float32
    assert result.top1 == pytest.approx(100 * accuracy_score(task[3], result.logits.argmax(1)), abs=1e-9)
    assert result.top5 == pytest.approx(100 * top_k_accuracy_score(task[3], result.logits, k=5), abs=1e-9)
    assert 80 < result.top1 < result.top5 < 100


def test_top5_needs_more_than_five_classes():
    found = as_heads(badly_scaled(), **FEW)
    assert found.top5 is None
    assert 50 < found.top1 < 100


def test_the_choice_is_the_best_on_the_held_out_part(task, result):
    assert [candidate[2:] for candidate in result.candidates] == [('mean', wd) for wd in (1e-1, 1e-2, 1e-3)]
    best = max(result.candidates, key=lambda candidate: (candidate[0], -candidate[1]))
    assert (result.token, result.weight_decay) == best[2:]
    train, labels, *_ = task
    fitted, held = linear_heads._split(torch.as_tensor(labels), 0)
    alone = as_heads((train[fitted], labels[fitted], train[held], labels[held]), **{**FEW, 'weight_decays': [1e-2]})
    assert result.candidates[1][0] == pytest.approx(alone.top1)
    assert result.candidates[1][1] == pytest.approx(log_loss(labels[held], alone.logits.double().softmax(1)), rel=1e-3)


def test_test_labels_choose_nothing(task, result):
    train, train_labels, test, test_labels = task
    rolled = as_heads((train, train_labels, test, np.roll(test_labels, 1)), **FEW)
    assert rolled.candidates == result.candidates
    assert rolled[3:5] == result[3:5]
    torch.testing.assert_close(rolled.logits, result.logits, rtol=0, atol=0)
    assert rolled.top1 < result.top1


def test_seeds(task):
    first, again, other = (as_heads(task, **FEW, seed=seed) for seed in (0, 0, 1))
    assert first.candidates == again.candidates and torch.equal(first.logits, again.logits)
    assert first.candidates != other.candidates


def test_the_better_token_is_chosen(task):
    train, train_labels, test, test_labels = task
    tokens = [dict(cls=torch.randn(some.shape), mean=torch.from_numpy(some)) for some in (train, test)]
    found = fast_linear_probe(tokens[0], torch.as_tensor(train_labels), tokens[1], torch.as_tensor(test_labels), 10, **FEW)
    assert found.token == 'mean' and len(found.candidates) == 6
    assert found.top1 == as_heads(task, **FEW).top1


def test_edges_of_the_sweep_are_told(task, monkeypatch):
    lines = []
    monkeypatch.setattr(linear_heads, 'print_log', lambda line, *_, **__: lines.append(line))
    as_heads(task, **{**FEW, 'weight_decays': (1e2, 1e1, 1e-2)})
    assert len(lines) == 1 and 'The chosen weight decay 0.01 lies on the edge of the sweep from 0.01 to 100' in lines[0]
    as_heads(task, **{**FEW, 'weight_decays': (1e2, 1e-2)})
    as_heads(task, **{**FEW, 'weight_decays': (1e2, 1e-2, 1e-30)})
    assert len(lines) == 1


def test_chunks_change_nothing(task, result, monkeypatch):
    monkeypatch.setattr(linear_heads, '_ROWS', 64)
    found = as_heads(task, **FEW)
    torch.testing.assert_close(found.logits.softmax(1), result.logits.softmax(1), rtol=0, atol=5e-3)


def test_a_class_of_one_image_is_fitted_and_not_held_out(task):
    train, train_labels, test, test_labels = task
    rows = np.concatenate([np.flatnonzero(train_labels != 3), np.flatnonzero(train_labels == 3)[:1]])
    fitted, held = linear_heads._split(torch.as_tensor(train_labels[rows]), 0)
    assert sorted([*fitted.tolist(), *held.tolist()]) == list(range(len(rows)))
    assert len(rows) - 1 in fitted
    assert as_heads((train[rows], train_labels[rows], test, test_labels), **FEW).top1 > 60

    pairs = torch.arange(10).repeat(2)  # a fifth would be four images, fewer than there are classes
    fitted, held = linear_heads._split(pairs, 0)
    assert len(set(pairs[fitted].tolist())) == len(set(pairs[held].tolist())) == 10

    single = [np.flatnonzero(train_labels == label)[0] for label in range(10)]
    with pytest.raises(ValueError, match='every class has a single training image'):
        as_heads((train[single], train_labels[single], test, test_labels), **FEW)


@pytest.mark.gpu
def test_features_on_the_cpu_are_brought_to_a_gpu(task):
    expected, found = as_heads(task, **FEW), as_heads(task, **FEW, device='cuda')
    assert found.logits.device.type == 'cpu' and found.weight_decay == expected.weight_decay
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-2, atol=1e-2)
