"""A linear classifier on fixed features of a few labelled images a class."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from mmmlo.evaluation.features import check_splits
from mmmlo.evaluation.linear_probe import fit_logistic_regression
from mmmlo.utils.errors import SettingError

__all__ = ['FewShotResult', 'few_shot_probe']


class FewShotResult(NamedTuple):
    """What :func:`few_shot_probe` found, by the number of shots, a value for each draw.

    Attributes:
        accuracies (dict[int, list[float]]): Accuracies on the test features, in per cent.
        C (dict[int, list[float]]): The inverse regularizations that were chosen.
        indices (dict[int, list[np.ndarray]]): The rows of the training data that were drawn, shots x classes each,
            int64, ascending.
    """

    accuracies: dict[int, list[float]]
    C: dict[int, list[float]]
    indices: dict[int, list[np.ndarray]]


def few_shot_probe(
    train_feats: Tensor | np.ndarray,
    train_labels: Tensor | np.ndarray,
    test_feats: Tensor | np.ndarray,
    test_labels: Tensor | np.ndarray,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    draws: int = 3,
    seed: int = 0,
    grid: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    one_shot_C: float = 0.1,
    max_folds: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> FewShotResult:
    """Fit a logistic regression to a few images a class, for several numbers of images and several draws.

    As the few-shot linear probe of CL-MAE, 1 to 16 shots and 3 draws, whose other settings are not published. Features are
    standardized with the mean and deviation of the images drawn. The regularization is chosen by stratified
    cross-validation among the same images; with one shot there is nothing to hold out, and it is fixed. The images of a
    draw depend on ``seed`` and the draw alone, and those of fewer shots are among those of more. All is computed in float64.

    Args:
        train_feats (Tensor | np.ndarray): Training features, N x C.
        train_labels (Tensor | np.ndarray): Their class indices, N.
        test_feats (Tensor | np.ndarray): Test features, M x C.
        test_labels (Tensor | np.ndarray): Their class indices, M.
        shots (Sequence[int]): Numbers of images a class. Defaults to (1, 2, 4, 8, 16).
        draws (int): How often the images are drawn. Defaults to 3.
        seed (int): Seed of the draws. Defaults to 0.
        grid (Sequence[float]): Values of C, scikit-learn's inverse regularization, to choose from. Of equally good ones
            the smallest wins. Defaults to (1e-3, 1e-2, 1e-1, 1).
        one_shot_C (float): The value of C with one shot. Defaults to 0.1.
        max_folds (int): Most folds of the cross-validation; with fewer shots there are as many as shots. Defaults to 4.
        progress (Callable, optional): Called after each draw of each number of shots with the number of those done, and
            with their total.

    Returns:
        FewShotResult: Accuracies in per cent, values of C and rows drawn.

    Raises:
        SettingError: A class has fewer images than the most shots, a class of the test data is absent from the training
            data, there are less than two classes, a setting is out of range, the shapes do not fit, or a feature is not
            finite.
    """
    tensors = [torch.as_tensor(some).detach().cpu() for some in (train_feats, train_labels, test_feats, test_labels)]
    check_splits({'given': tensors[0]}, tensors[1], {'given': tensors[2]}, tensors[3])
    train_feats, labels, test_feats, truth = (some.numpy() for some in tensors)
    if not len(shots) or min(shots) < 1 or draws < 1 or not len(grid) or not min(grid) > 0 or max_folds < 2:
        raise SettingError(
            '`shots` and `draws` must be at least 1, `grid` above 0 and `max_folds` at least 2, not '
            f'{shots}, {draws}, {grid} and {max_folds}.'
        )
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise SettingError(f'there must be two classes at least in the training data, not {len(classes)}.')
    rarest = counts.argmin()
    if counts[rarest] < max(shots):
        raise SettingError(
            f'class {classes[rarest]} has {counts[rarest]} training images, fewer than {max(shots)} shots: at most '
            f'{counts[rarest]} shots are possible.'
        )
    test_rows = test_feats.astype(np.float64)
    orders = [np.random.default_rng([seed, draw]).permutation(len(labels)) for draw in range(draws)]  # N each
    counted = sorted(set(shots))
    result = FewShotResult({n: [] for n in counted}, {n: [] for n in counted}, {n: [] for n in counted})
    for done, (count, order) in enumerate(product(counted, orders), 1):
        rows = np.sort(np.concatenate([order[labels[order] == label][:count] for label in classes]))
        feats = train_feats[rows].astype(np.float64)
        # The rows are in the order of the data set: shuffled, so that no fold is one of its sources.
        folds = StratifiedKFold(max(2, min(count, max_folds)), shuffle=True, random_state=0)
        model, C = fit_logistic_regression(feats, labels[rows], grid if count > 1 else [one_shot_C], folds)
        result.accuracies[count].append(100 * float(model.score(test_rows, truth)))
        result.C[count].append(C)
        result.indices[count].append(rows)
        if progress is not None:
            progress(done, len(counted) * draws)
    return result
