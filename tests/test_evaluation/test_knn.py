import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from mmmlo.evaluation import knn_predict, knn_scores
from mmmlo.evaluation.feature_cache import Features
from mmmlo.evaluation.protocols import knn_protocol


def clouds(count, classes=7, width=12, seed=0):
    """Overlapping clouds of float64 features, so that neighbours of several classes vote."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = rng.integers(0, classes, count)
    feats = (centres[labels] + 1.5 * rng.normal(size=(count, width))) * rng.uniform(0.1, 10, (count, 1))
    return torch.from_numpy(feats), torch.from_numpy(labels)


def test_a_small_temperature_is_the_nearest_neighbour():
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    bank, query = bank.float(), query.float()
    nearest = bank_labels[(F.normalize(query) @ F.normalize(bank).T).argmax(1)]
    scores = knn_scores(query, bank, bank_labels, 7, k=20, temperature=1e-3)  # exp(1 / 1e-3) is infinite in float32
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores.argmax(1), nearest)


def test_a_class_without_neighbours_scores_zero():
    scores = knn_scores(torch.eye(2), torch.eye(2), torch.tensor([0, 3]), num_classes=5, k=1)
    torch.testing.assert_close(scores, torch.eye(5)[[0, 3]])


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    expected = knn_scores(query, bank, bank_labels, 7)
    actual = knn_scores(query.cuda(), bank.cuda(), bank_labels.cuda(), 7)
    torch.testing.assert_close(actual.cpu(), expected)


def brute_force(query, bank, bank_labels, num_classes, k, metric='l2', temperature=None):
    """Votes of the ``k`` first rows by distance, then index: integers, so that all distances and ties are exact."""
    query, bank, bank_labels = (np.asarray(array) for array in (query, bank, bank_labels))
    distance = ((query[:, None] - bank[None]) ** 2).sum(-1)
    votes = np.zeros((len(query), num_classes))
    for row, distances in enumerate(distance):
        for neighbour in np.lexsort((np.arange(len(bank)), distances))[:k]:
            votes[row, bank_labels[neighbour]] += 1
    return votes / k


def grid_points(count, seed, classes=5):
    """Points of few values: most distances are shared by many, and many points are there several times."""
    rng = np.random.default_rng(seed)
    points, labels = rng.integers(0, 3, (count, 4)), rng.integers(0, classes, count)
    return torch.from_numpy(points.astype('float32')), torch.from_numpy(labels)


@pytest.mark.parametrize('bank_chunk', [1, 7, 119, 1000])
@pytest.mark.parametrize('query_chunk', [1, 13, 40])
def test_ties_go_to_the_smaller_index_and_label(query_chunk, bank_chunk):
    bank, bank_labels = grid_points(120, seed=0)
    query, _ = grid_points(40, seed=1)
    ks = (1, 2, 5, 30, 119, 120)
    found = knn_predict(query, bank, bank_labels, 5, ks, 'l2', query_chunk=query_chunk, bank_chunk=bank_chunk)
    assert list(found) == list(ks)
    shared = 0
    for k in ks:
        expected = brute_force(query, bank, bank_labels, 5, k)
        np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found[k].argmax(1), expected.argmax(1))
        shared += ((expected == expected.max(1, keepdims=True)).sum(1) > 1).sum()
    assert shared > 20, 'otherwise no vote was tied'


def test_ties_of_cosine_similarity():
    """Multiples of unit vectors have similarities of exactly 0 and 1."""
    bank = torch.eye(4).repeat(6, 1) * torch.arange(1, 25)[:, None]
    bank_labels = torch.arange(24) // 4 % 3
    for chunk in (1, 5, 24):
        found = knn_predict(torch.eye(4), bank, bank_labels, 3, (1, 2, 6, 9), temperature=None, bank_chunk=chunk)
        # Each query has six neighbours at similarity 1, of classes 0, 1, 2, 0, 1, 2; then come rows 0, 1 and 2, of class
        # 0, but for the query's own, which is among the six already.
        assert (found[1].argmax(1) == 0).all() and (found[6].argmax(1) == 0).all()
        torch.testing.assert_close(found[2], torch.tensor([[0.5, 0.5, 0]]).expand(4, 3))
        torch.testing.assert_close(found[6], torch.full((4, 3), 1 / 3))
        torch.testing.assert_close(found[9], torch.tensor([[5, 2, 2]]).expand(4, 3) / 9)


@pytest.mark.parametrize(('metric', 'temperature'), [('cosine', 0.07), ('cosine', 1.0), ('l2', None)])
def test_all_k_agree_with_scikit_learn(metric, temperature):
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    ks = (1, 5, 20, 100, 300)
    found = knn_predict(query, bank, bank_labels, 7, ks, metric, temperature, query_chunk=32, bank_chunk=64)
    weights = 'uniform' if metric == 'l2' else lambda distance: np.exp((1 - distance) / temperature)
    for k in ks:
        name = 'euclidean' if metric == 'l2' else 'cosine'
        reference = KNeighborsClassifier(k, metric=name, weights=weights, algorithm='brute').fit(bank, bank_labels)
        np.testing.assert_allclose(found[k], reference.predict_proba(query), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found[k].argmax(1), reference.predict(query))
    if metric == 'cosine':
        scores = knn_scores(query, bank, bank_labels, 7, 20, temperature)
        torch.testing.assert_close(scores, found[20], rtol=0, atol=1e-12)
        assert len(set(scores.argmax(1).tolist())) > 1 and ((scores > 0).sum(1) > 1).any(), 'else weights do not matter'


def test_l2_of_features_far_from_zero():
    """In float32, squared distances by inner products would lose everything here."""
    bank, bank_labels = clouds(200)
    query, _ = clouds(50, seed=1)
    bank, query = (bank + 1e4).float(), (query + 1e4).float()
    reference = KNeighborsClassifier(5, algorithm='kd_tree').fit(bank.double(), bank_labels)
    found = knn_predict(query, bank, bank_labels, 7, (5,), 'l2')[5]
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.argmax(1), reference.predict(query.double()))


@pytest.mark.parametrize(('count', 'found'), [(12, ['cosine k=10', 'l2 k=5']), (7, ['l2 k=5']), (4, None)])
def test_the_protocol_leaves_out_what_the_bank_is_too_small_for(count, found):
    features = {split: Features(dict(mean=torch.eye(count)), torch.arange(count) % 2, False) for split in ('train', 'test')}
    if found is None:
        with pytest.raises(ValueError, match='--protocols knn: needs 5 training images of --data at least, and there are 4'):
            knn_protocol(features, 2, 'mean', 'cpu')
        return
    result = knn_protocol(features, 2, 'mean', 'cpu')
    assert list(result.metrics) == found and f'only {count} training images' in result.notes[0]


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(ks=(0, )), '`k` must lie between 1 and the 4 images of the bank, not 0'),
        (dict(num_classes=3), 'run from 0 to 3, but there are 3 classes'),
        (dict(ks=(1, 5, 9)), 'between 1 and the 4 images of the bank, not 5 or 9'),
        (dict(bank_labels=torch.arange(4) - 1), 'run from -1 to 2'),
        (dict(query=torch.eye(4)[[0, 1]] / torch.tensor([[1], [0]])), 'the query features hold NaN.* 1 of 2, first row 1'),
        (dict(bank=torch.tensor([[0.0] * 4] * 3 + [[np.inf] * 4])), 'the bank features hold NaN.* 1 of 4, first row 3'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    right = dict(query=torch.eye(4), bank=torch.eye(4), bank_labels=torch.arange(4), num_classes=4, ks=(1, 2))
    knn_predict(**right)
    with pytest.raises(ValueError, match=message):
        knn_predict(**{**right, **wrong})


@pytest.mark.gpu
@pytest.mark.parametrize('metric', ['cosine', 'l2'])
def test_a_bank_on_the_cpu_is_searched_on_a_gpu(metric):
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    expected = knn_predict(query, bank, bank_labels, 7, (5, 20), metric)
    actual = knn_predict(query, bank, bank_labels, 7, (5, 20), metric, bank_chunk=64, device='cuda')
    for k in expected:
        assert actual[k].device.type == 'cpu'
        torch.testing.assert_close(actual[k], expected[k])
