"""A linear classifier on fixed features of a few labelled images a class."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mmmlo.utils.progress import progress

__all__ = ['Draw', 'few_shot_probe', 'fit_logistic_regression']

GRID = (1e-3, 1e-2, 1e-1, 1.0)  # values of C, scikit-learn's inverse regularization, to choose from
_ONE_SHOT_C = 0.1
_MOST_FOLDS = 4


class Draw(NamedTuple):
    """Accuracy on the test features, in per cent, the C that was chosen, and the training rows, ascending."""

    accuracy: float
    C: float
    rows: np.ndarray


def few_shot_probe(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    test_labels: Tensor,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    draws: int = 3,
    seed: int = 0,
) -> dict[int, list[Draw]]:
    """Fit a logistic regression to a few images a class, for several numbers of images and several draws.

    As the few-shot linear probe of CL-MAE, 1 to 16 shots and 3 draws, whose other settings are not published. Features are
    standardized with the mean and deviation of the images drawn. The regularization is chosen by stratified
    cross-validation among the same images; with one shot there is nothing to hold out, and it is fixed. The images of a
    draw depend on ``seed`` and the draw alone, and those of fewer shots are among those of more. All is computed in float64.

    Args:
        train_feats (Tensor): Training features, N x C, with as many images of each class as the most shots.
        train_labels (Tensor): Their class indices, N.
        test_feats (Tensor): Test features, M x C.
        test_labels (Tensor): Their class indices, M.
        shots (Sequence[int]): Numbers of images a class. Defaults to (1, 2, 4, 8, 16).
        draws (int): How often the images are drawn. Defaults to 3.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        dict[int, list[Draw]]: By the number of shots, ascending.
    """
    feats, labels, test, truth = (some.cpu().numpy() for some in (train_feats, train_labels, test_feats, test_labels))
    test = test.astype(np.float64)
    tell = progress('few-shot')
    orders = [np.random.default_rng([seed, draw]).permutation(len(labels)) for draw in range(draws)]  # N each
    result: dict[int, list[Draw]] = {count: [] for count in sorted(set(shots))}
    for done, (count, order) in enumerate(product(result, orders), 1):
        rows = np.sort(np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)]))
        # The rows are in the order of the data set: shuffled, so that no fold is one of its sources.
        folds = StratifiedKFold(max(2, min(count, _MOST_FOLDS)), shuffle=True, random_state=0)
        grid = GRID if count > 1 else (_ONE_SHOT_C, )
        model, C = fit_logistic_regression(feats[rows].astype(np.float64), labels[rows], folds, grid)
        result[count].append(Draw(100 * float(model.score(test, truth)), C, rows))
        tell(done, len(result) * draws)
    return result


def fit_logistic_regression(
    feats: np.ndarray, labels: np.ndarray, cv: Any, grid: Sequence[float] = GRID
) -> tuple[Any, float]:
    """Fit to features standardized with their own mean and deviation, N x C, with the best C in cross-validation.

    Of equally good values in the ascending ``grid`` the smallest wins; ``cv`` is a splitter of scikit-learn. Returned are a
    fitted model, whose ``score`` is its accuracy, and C.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=grid[0], max_iter=1000))
    if len(grid) == 1:
        return model.fit(feats, labels), grid[0]
    search = GridSearchCV(model, {'logisticregression__C': list(grid)}, cv=cv).fit(feats, labels)
    return search, search.best_params_['logisticregression__C']
