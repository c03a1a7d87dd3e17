"""A seeded, stratified cut of a list of labels into named parts."""

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ['stratified_parts']


def stratified_parts(labels: Sequence[int] | np.ndarray, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Cut samples into named parts in which every class keeps its share.

    The parts are disjoint and hold every sample. Each class appears in each part, and each part's size is within one of its
    exact share unless rare classes need more. The cut depends on ``labels``, ``fractions`` and ``seed`` alone: a recorded
    split has to outlive upgrades, so it draws from ``numpy.random.RandomState``, whose stream is frozen. scikit-learn's
    splitters cut in two, may leave a rare class out of a small part, and do not promise the same cut in the next release.

    Args:
        labels (Sequence[int] | np.ndarray): One class index a sample, N.
        fractions (Mapping[str, float]): The share of each part, in order. They are positive and sum to 1, and every
            class has at least as many samples as there are parts: who calls checks it, since it knows better names.
        seed (int): Seed of the cut.

    Returns:
        dict[str, np.ndarray]: The indices of each part, ascending.
    """
    labels = np.asarray(labels)
    shares = np.array(list(fractions.values()), dtype=np.float64)
    rng = np.random.RandomState(seed)

    by_class = np.argsort(labels, kind='stable')
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    pieces: list[list[np.ndarray]] = [[] for _ in shares]
    owed = np.zeros(len(shares))  # what rounding has so far kept from each part
    for members in np.split(by_class, starts):
        counts = _counts(len(members), shares, owed)
        for part, piece in zip(pieces, np.split(rng.permutation(members), np.cumsum(counts)[:-1])):
            part.append(piece)
    return {name: np.sort(np.concatenate(part)).astype(np.int64) for name, part in zip(fractions, pieces)}


def _counts(size: int, shares: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Share out ``size`` samples of one class; ``owed`` is updated in place."""
    exact = size * shares
    counts = np.floor(exact).astype(int)
    owed += exact - counts
    for _ in range(size - counts.sum()):
        part = int(owed.argmax())
        counts[part] += 1
        owed[part] -= 1
    while size >= len(counts) and counts.min() == 0:
        giver, taker = int(counts.argmax()), int(counts.argmin())
        counts[giver] -= 1
        counts[taker] += 1
        owed[giver] += 1
        owed[taker] -= 1
    return counts
