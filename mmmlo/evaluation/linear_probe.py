"""A linear classifier on fixed features."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mmmlo.utils.errors import SettingError

__all__ = ['LinearProbeResult', 'linear_probe']


class LinearProbeResult(NamedTuple):
    """What :func:`linear_probe` found.

    Attributes:
        top1 (float): Accuracy on the test features, in per cent.
        C (float): The inverse regularization that was chosen.
    """

    top1: float
    C: float


def linear_probe(
    train_feats: np.ndarray,
    train_labels: np.ndarray,
    test_feats: np.ndarray,
    test_labels: np.ndarray,
    seed: int = 0,
    grid: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    held_out: float = 0.2,
    max_iter: int = 1000,
) -> LinearProbeResult:
    """Fit a logistic regression to features and test it.

    Features are standardized with the mean and deviation of the data that is fitted. The regularization is chosen on a
    stratified part of the training data, never on the test data; then all training data is fitted once more.

    Args:
        train_feats (np.ndarray | Tensor): Training features, N x C.
        train_labels (np.ndarray | Tensor): Their class indices, N.
        test_feats (np.ndarray | Tensor): Test features, M x C.
        test_labels (np.ndarray | Tensor): Their class indices, M.
        seed (int): Seed of the held-out part. Defaults to 0.
        grid (Sequence[float]): Values of C, scikit-learn's inverse regularization, to choose from. Of equally good
            ones the smallest wins. Defaults to (1e-3, 1e-2, 1e-1, 1).
        held_out (float): Share of the training data on which C is chosen. Defaults to 0.2.
        max_iter (int): Most iterations of one fit. Defaults to 1000.

    Returns:
        LinearProbeResult: ``top1`` in per cent, and ``C``.

    Raises:
        ValueError: ``grid`` is empty, a feature is not finite, or a class has a single training image.
    """
    if not len(grid):
        raise SettingError('`grid` is empty: give at least one value of C.')
    train_feats, train_labels = np.asarray(train_feats), np.asarray(train_labels)

    best = sorted(grid)[0]
    if len(grid) > 1:
        fit_feats, held_feats, fit_labels, held_labels = train_test_split(
            train_feats, train_labels, test_size=held_out, stratify=train_labels, random_state=seed
        )
        scores = {
            C: logistic_regression(C, max_iter).fit(fit_feats, fit_labels).score(held_feats, held_labels)
            for C in sorted(grid)
        }
        best = max(scores, key=lambda C: scores[C])  # the first of equals, so the smallest
    final = logistic_regression(best, max_iter).fit(train_feats, train_labels)
    return LinearProbeResult(100 * float(final.score(np.asarray(test_feats), np.asarray(test_labels))), float(best))


def logistic_regression(C: float, max_iter: int) -> Pipeline:
    """scikit-learn's logistic regression on features standardized with the mean and deviation of what is fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=max_iter))
