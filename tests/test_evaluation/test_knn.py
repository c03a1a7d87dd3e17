import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from mmmlo.evaluation import knn_scores


def clouds(count, classes=7, width=12, seed=0):
    """Overlapping clouds of float64 features, so that neighbours of several classes vote."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = rng.integers(0, classes, count)
    feats = (centres[labels] + 1.5 * rng.normal(size=(count, width))) * rng.uniform(0.1, 10, (count, 1))
    return torch.from_numpy(feats), torch.from_numpy(labels)


@pytest.mark.parametrize('k', [1, 5, 20])
@pytest.mark.parametrize('temperature', [0.07, 1.0])
@pytest.mark.parametrize('chunk_size', [1, 32, 1000])
def test_agrees_with_scikit_learn(k, temperature, chunk_size):
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    reference = KNeighborsClassifier(k, metric='cosine', weights=lambda distance: np.exp((1 - distance) / temperature))
    reference.fit(bank, bank_labels)
    scores = knn_scores(query, bank, bank_labels, 7, k, temperature, chunk_size)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores, reference.predict_proba(query), rtol=0, atol=1e-12)
    if k > 1:
        assert len(set(scores.argmax(1).tolist())) > 1
        assert ((scores > 0).sum(1) > 1).any(), 'otherwise the weights would not matter'


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


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(k=0), '`k` must lie between 1 and the 4 images of the bank, not 0'),
        (dict(k=5), '`k` must lie between 1 and the 4 images of the bank, not 5'),
        (dict(temperature=0), '`temperature` must be above 0'),
        (dict(num_classes=3), 'run from 0 to 3, but there are 3 classes'),
        (dict(bank_labels=torch.tensor([0])), 'do not fit'),
        (dict(query=torch.full((1, 4), float('nan'))), 'the query features hold NaN or infinite values'),
        (dict(bank=torch.full((4, 4), float('inf'))), 'the bank features hold NaN or infinite values'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    right = dict(query=torch.eye(4), bank=torch.eye(4), bank_labels=torch.arange(4), num_classes=4, k=2)
    knn_scores(**right)
    with pytest.raises(ValueError, match=message):
        knn_scores(**{**right, **wrong})


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    bank, bank_labels = clouds(300)
    query, _ = clouds(90, seed=1)
    expected = knn_scores(query, bank, bank_labels, 7)
    actual = knn_scores(query.cuda(), bank.cuda(), bank_labels.cuda(), 7)
    torch.testing.assert_close(actual.cpu(), expected)
