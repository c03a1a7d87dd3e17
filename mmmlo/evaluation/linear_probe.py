"""A linear classifier on fixed features, by scikit-learn."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmmlo.utils.errors import SettingError

__all__ = ['LinearProbeResult', 'fit_logistic_regression', 'linear_probe']


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
    """Fit a logistic regression to standardized features and test it.

    The regularization is chosen on a stratified part of the training data, never on the test data; then all training data
    is fitted once more.

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

    Raises:
        ValueError: ``grid`` is empty, a feature is not finite, or a class has a single training image.
    """
    if not len(grid):
        raise SettingError('`grid` is empty: give at least one value of C.')
    cv = StratifiedShuffleSplit(1, test_size=held_out, random_state=seed)
    model, C = fit_logistic_regression(np.asarray(train_feats), np.asarray(train_labels), grid, cv, max_iter)
    return LinearProbeResult(100 * float(model.score(np.asarray(test_feats), np.asarray(test_labels))), C)


def fit_logistic_regression(
    feats: np.ndarray, labels: np.ndarray, grid: Sequence[float], cv: Any, max_iter: int = 1000
) -> tuple[Any, float]:
    """Fit to features standardized with their own mean and deviation, N x C, with the best C in cross-validation.

    Args:
        feats (np.ndarray): Features, N x C.
        labels (np.ndarray): Their class indices, N.
        grid (Sequence[float]): Values of C to choose from; of equally good ones the smallest wins.
        cv: A splitter of scikit-learn; unused if there is nothing to choose.
        max_iter (int): Most iterations of one fit. Defaults to 1000.

    Returns:
        tuple[Any, float]: A fitted model, whose ``score`` is its accuracy, and C.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=grid[0], max_iter=max_iter))
    if len(grid) == 1:
        return model.fit(feats, labels), float(grid[0])
    search = GridSearchCV(model, {'logisticregression__C': sorted(grid)}, cv=cv).fit(feats, labels)
    return search, float(search.best_params_['logisticregression__C'])
