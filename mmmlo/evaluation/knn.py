"""Nearest-neighbour classification of features."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmmlo.utils.errors import SettingError

__all__ = ['knn_predict', 'knn_scores', 'vote_winner']


def knn_scores(
    query: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 256,
) -> Tensor:
    """Classify features by a weighted vote of their nearest neighbours.

    As in InstDisc and DINO: :func:`knn_predict` by cosine similarity, for one number of neighbours.

    Args:
        query (Tensor): Features to classify, Q x C.
        bank (Tensor): Features with known classes, N x C.
        bank_labels (Tensor): Class indices of ``bank``, N, int64.
        num_classes (int): Number of classes.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): The lower, the more the nearest count. Defaults to 0.07.
        chunk_size (int): How many query features are compared at a time. Defaults to 256.

    Returns:
        Tensor: Scores, Q x ``num_classes``, each row summing to 1.

    Raises:
        ValueError: ``k`` is not in [1, N], ``temperature`` is not positive, a label is out of range, the shapes do not
            fit, or a feature is not finite.
    """
    return knn_predict(
        query, bank, bank_labels, num_classes, ks=(k,), temperature=temperature, query_chunk=chunk_size
    )[k]


@torch.no_grad()
def knn_predict(
    query: Tensor | np.ndarray,
    bank: Tensor | np.ndarray,
    bank_labels: Tensor | np.ndarray,
    num_classes: int,
    ks: Sequence[int] = (10, 20, 100, 200),
    metric: str = 'cosine',
    temperature: float | None = 0.07,
    query_chunk: int = 1024,
    bank_chunk: int = 65536,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Tensor]:
    """Classify features by their nearest neighbours, for several numbers of neighbours at once.

    Two protocols are in use:

    - ``metric='cosine'`` (InstDisc, DINO): neighbours by cosine similarity ``s``, each voting with weight
      ``exp(s / temperature)``, or with weight 1 if ``temperature`` is None.
    - ``metric='l2'`` with ``ks=(5,)`` (CL-MAE, ``engine_zeroshot.py``): neighbours by Euclidean distance, each voting
      with weight 1. Distances are computed in float64 from centred features, because the formula of the squared distance
      by inner products cancels.

    The search is exact and its ties are settled: of neighbours at equal distance the one with the smaller index in the
    bank counts, and of classes with equal votes :func:`vote_winner` takes the smallest label. *Equal* means as computed.
    The inner products of a row may differ in the last bit with its place in a block of the matrix product, so that
    duplicates in the bank, or other chunk sizes, can break ties otherwise; where the products are exact, as with small
    integers and 'l2', nothing depends on the chunks.

    The bank may lie on the CPU or be a ``numpy.memmap`` while ``device`` is a GPU. It is read twice, once to be checked
    and once to be searched. Besides the scores, ``device`` holds one block of ``query_chunk`` x ``bank_chunk``
    similarities with its two chunks of features, and the ``max(ks)`` neighbours found so far of every query.

    Args:
        query (Tensor | np.ndarray): Features to classify, Q x C.
        bank (Tensor | np.ndarray): Features with known classes, N x C.
        bank_labels (Tensor | np.ndarray): Class indices of ``bank``, N, integers.
        num_classes (int): Number of classes.
        ks (Sequence[int]): Numbers of neighbours. The largest alone decides the cost. Defaults to (10, 20, 100, 200).
        metric (str): 'cosine' or 'l2'. Defaults to 'cosine'.
        temperature (float, optional): The lower, the more the nearest count; None lets all count the same. Unused by
            'l2'. Defaults to 0.07.
        query_chunk (int): How many query features are compared at a time. Defaults to 1024.
        bank_chunk (int): With how many features of the bank they are compared at a time. Defaults to 65536.
        device (torch.device | str, optional): Where to compute. Defaults to where ``query`` lies.
        progress (Callable, optional): Called with the number of pairs of a query and a bank image that are compared so
            far, and with their total, Q x N.

    Returns:
        dict[int, Tensor]: For each of ``ks``, ascending, the scores, Q x ``num_classes``, each row summing to 1, where
        ``query`` lies. In the features' dtype, but at least float32.

    Raises:
        ValueError: ``ks`` is empty or not within [1, N], ``temperature`` or a chunk size is not positive, ``metric`` is
            unknown, a label is out of range or no integer, the shapes do not fit, or a feature is not finite.
    """
    # torch cannot wrap a memmap that may only be read, so arrays stay arrays and are copied chunk by chunk.
    home = query.device if isinstance(query, Tensor) else torch.device('cpu')
    device = home if device is None else torch.device(device)
    labels = torch.as_tensor(bank_labels)
    if query.ndim != 2 or bank.ndim != 2 or query.shape[1] != bank.shape[1] or labels.shape != tuple(bank.shape[:1]):
        raise SettingError(
            f'query {tuple(query.shape)}, bank {tuple(bank.shape)} and bank_labels '
            f'{tuple(labels.shape)} do not fit: they must be Q x C, N x C and N.'
        )
    if not len(ks):
        raise SettingError('`ks` is empty: give at least one number of neighbours.')
    wrong = [k for k in ks if not 1 <= k <= len(bank)]
    if wrong:
        raise SettingError(
            f'`k` must lie between 1 and the {len(bank)} images of the bank, not {" or ".join(map(str, wrong))}.'
        )
    if metric not in ('cosine', 'l2'):
        raise SettingError(f"`metric` must be 'cosine' or 'l2', not {metric!r}.")
    if temperature is not None and not temperature > 0:
        raise SettingError(f'`temperature` must be above 0, not {temperature}.')
    if query_chunk < 1 or bank_chunk < 1:
        raise SettingError(f'`query_chunk` and `bank_chunk` must be at least 1, not {query_chunk} and {bank_chunk}.')
    if labels.is_floating_point() or labels.is_complex():
        raise SettingError(f'the labels of the bank must be integers, not {labels.dtype}.')
    if labels.min() < 0 or labels.max() >= num_classes:
        raise SettingError(
            f'the labels of the bank run from {int(labels.min())} to {int(labels.max())}, but there are '
            f'{num_classes} classes.'
        )
    dtype = torch.promote_types(torch.promote_types(_dtype(query), _dtype(bank)), torch.float32)
    work = torch.float64 if metric == 'l2' else dtype
    mean_of_finite(query, 'query', bank_chunk, device)
    # In bfloat16 the mean leaves 0.4 per cent of itself at most, and what float32 features and integers lose to it is
    # nothing: their differences are exact in float64, and so are ties between distances of integers.
    centre = mean_of_finite(bank, 'bank', bank_chunk, device).bfloat16().to(work)

    def prepared(feats: Tensor | np.ndarray, start: int, size: int) -> Tensor:
        rows = _rows(feats, start, size, device).to(work)
        return rows - centre if metric == 'l2' else F.normalize(rows, dim=1)

    most = max(ks)
    starts = range(0, len(query), query_chunk)
    # Queries are the inner loop, so that the bank, much the larger, comes from the CPU or a disk once.
    done = 0
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for bank_start in range(0, len(bank), bank_chunk):
        block = prepared(bank, bank_start, bank_chunk)
        for start in starts:
            rows = prepared(query, start, query_chunk)
            closeness = rows @ block.T
            if metric == 'l2':
                # |q - b|^2 less |q|^2, which is the same for all neighbours of q, and negated.
                closeness.mul_(2).sub_(block.square().sum(dim=1))
            values, columns = _largest(closeness, min(most, len(block)))
            found[start] = _merge(found.get(start), (values, columns + bank_start), most)
            done += len(rows) * len(block)
            if progress is not None:
                progress(done, len(query) * len(bank))

    labels = labels.to(device=device, dtype=torch.int64)
    scores = {k: torch.zeros(len(query), num_classes, dtype=dtype, device=home) for k in sorted(set(ks))}
    for start, (values, index) in found.items():
        if metric == 'l2' or temperature is None:
            weights = torch.ones_like(values, dtype=dtype)
        else:
            # Relative to the nearest: changes no rank, and keeps a small temperature from overflowing.
            weights = ((values - values[:, :1]) / temperature).exp()
        for k, votes in _votes(weights, labels[index], num_classes, set(ks)).items():
            scores[k][start : start + query_chunk] = votes.to(home)
    return scores


def vote_winner(scores: Tensor) -> Tensor:
    """The class with the most votes; of equal ones, which get exactly equal scores, that with the smallest label.

    Args:
        scores (Tensor): Scores of :func:`knn_predict`, Q x ``num_classes``.

    Returns:
        Tensor: Class indices, Q, int64.
    """
    return scores.argmax(dim=1)  # documented to return the first maximum


def _dtype(feats: Tensor | np.ndarray) -> torch.dtype:
    return feats.dtype if isinstance(feats, Tensor) else torch.from_numpy(np.empty(0, feats.dtype)).dtype


def _rows(feats: Tensor | np.ndarray, start: int, size: int, device: torch.device) -> Tensor:
    rows = feats[start : start + size]
    return (rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))).to(device)


def mean_of_finite(feats: Tensor | np.ndarray, name: str, chunk: int, device: torch.device) -> Tensor:
    """The mean of features, C, float64, once they are all known to be finite."""
    total = torch.zeros(feats.shape[1], dtype=torch.float64, device=device)
    for start in range(0, len(feats), chunk):
        rows = _rows(feats, start, chunk, device)
        finite = torch.isfinite(rows).all(dim=1)
        if not finite.all():
            raise SettingError(
                f'the {name} features hold NaN or infinite values: the encoder has diverged. The first such row is '
                f'{start + int((~finite).nonzero()[0])}.'
            )
        total += rows.sum(dim=0, dtype=torch.float64)
    return total / max(1, len(feats))


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row and their columns; equal ones by ascending column, also where only some fit."""
    if k == values.shape[1]:
        return values.sort(dim=1, descending=True, stable=True)
    # topk promises neither an order nor a choice among equals. One value more shows the rows where the choice matters.
    top, columns = values.topk(k + 1, dim=1)
    tied = (top[:, k - 1] == top[:, k]).nonzero().flatten()
    columns = columns[:, :k]
    if len(tied):
        rows, last = values[tied], top[tied, k - 1, None]
        above, equal = rows > last, rows == last
        room = k - above.sum(dim=1, keepdim=True)
        columns[tied] = (above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))).nonzero()[:, 1].view(-1, k)
    columns = columns.sort(dim=1).values
    top, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return top, columns.gather(1, order)


def _merge(left: tuple[Tensor, Tensor] | None, right: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best neighbours of two lists, both in order, those of ``left`` first in the bank."""
    if left is None:
        return right
    values, order = torch.cat([left[0], right[0]], dim=1).sort(dim=1, descending=True, stable=True)
    return values[:, :k], torch.cat([left[1], right[1]], dim=1).gather(1, order[:, :k])


def _votes(weights: Tensor, classes: Tensor, num_classes: int, ks: set[int]) -> dict[int, Tensor]:
    """Shares of the votes of the ``k`` nearest, by k, Q x ``num_classes``; neighbours in order, Q x max(k)."""
    votes = weights.new_zeros(len(weights), num_classes)
    rows = torch.arange(len(weights), device=weights.device)
    shares = {}
    # One neighbour after the other: classes with the same weights then get the same sum, on a GPU as well, where
    # adding all at once would add them in any order.
    for k in range(1, weights.shape[1] + 1):
        votes[rows, classes[:, k - 1]] += weights[:, k - 1]
        if k in ks:
            shares[k] = votes / votes.sum(dim=1, keepdim=True)
    return shares
