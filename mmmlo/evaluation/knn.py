"""Nearest-neighbour classification of features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmlo.evaluation.features import check_finite
from mmmlo.utils.errors import SettingError
from mmmlo.utils.progress import progress

__all__ = ['knn_predict', 'knn_scores']


def knn_scores(
    query: Tensor, bank: Tensor, bank_labels: Tensor, num_classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Classify features by :func:`knn_predict` with cosine similarity, for one number of neighbours: Q x ``num_classes``."""
    return knn_predict(query, bank, bank_labels, num_classes, (k, ), temperature=temperature)[k]


@torch.no_grad()
def knn_predict(
    query: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    ks: Sequence[int] = (10, 20, 100, 200),
    metric: str = 'cosine',
    temperature: float | None = 0.07,
    query_chunk: int = 1024,
    bank_chunk: int = 65536,
    device: torch.device | str | None = None,
) -> dict[int, Tensor]:
    """Classify features by a vote of their nearest neighbours, for several numbers of neighbours at once.

    Two protocols are in use:

    - ``metric='cosine'`` (InstDisc, DINO): neighbours by cosine similarity ``s``, each voting with weight
      ``exp(s / temperature)``, or with weight 1 if ``temperature`` is None.
    - ``metric='l2'`` with ``ks=(5,)`` (CL-MAE, ``engine_zeroshot.py``): neighbours by Euclidean distance, each voting
      with weight 1. Distances are computed in float64 from centred features, because the formula of the squared distance
      by inner products cancels.

    The search is exact. Of neighbours at equal distance the one with the smaller index in the bank counts, and classes with
    equal votes get equal scores, of which ``argmax`` takes the smallest label. *Equal* means as computed: inner products may
    differ in the last bit with their place in a block of the matrix product.

    Args:
        query (Tensor): Features to classify, Q x C.
        bank (Tensor): Features with known classes, N x C. It may lie on the CPU while ``device`` is a GPU.
        bank_labels (Tensor): Class indices of ``bank``, N, integers.
        num_classes (int): Number of classes.
        ks (Sequence[int]): Numbers of neighbours. The largest alone decides the cost. Defaults to (10, 20, 100, 200).
        metric (str): 'cosine' or 'l2'. Defaults to 'cosine'.
        temperature (float, optional): The lower, the more the nearest count. Defaults to 0.07.
        query_chunk (int): How many query features are compared at a time. Defaults to 1024.
        bank_chunk (int): With how many of the bank. Defaults to 65536.
        device (torch.device | str, optional): Where to compute. Defaults to where ``query`` lies.

    Returns:
        dict[int, Tensor]: For each of ``ks``, ascending, the scores, Q x ``num_classes``, each row summing to 1, where
        ``query`` lies. In the features' dtype, but at least float32.

    Raises:
        SettingError: One of ``ks`` is not within [1, N], or a label is out of range.
        DataError: A feature is not finite.
    """
    device = query.device if device is None else torch.device(device)
    wrong = [k for k in ks if not 1 <= k <= len(bank)]
    if wrong:
        raise SettingError(
            f'`k` must lie between 1 and the {len(bank)} images of the bank, not {" or ".join(map(str, wrong))}.'
        )
    if bank_labels.min() < 0 or bank_labels.max() >= num_classes:
        raise SettingError(
            f'the labels of the bank run from {int(bank_labels.min())} to {int(bank_labels.max())}, but there are '
            f'{num_classes} classes.'
        )
    check_finite(query, 'query')
    check_finite(bank, 'bank')
    dtype = torch.promote_types(torch.promote_types(query.dtype, bank.dtype), torch.float32)
    work = torch.float64 if metric == 'l2' else dtype
    # In bfloat16 the mean leaves 0.4 per cent of itself at most, and what float32 features and integers lose to it is
    # nothing: their differences are exact in float64, and so are ties between distances of integers.
    centre = bank.mean(dim=0, dtype=torch.float64).bfloat16().to(device, torch.float64)  # C

    def prepared(rows: Tensor) -> Tensor:
        rows = rows.to(device, work)
        return rows - centre if metric == 'l2' else F.normalize(rows, dim=1)

    most, done, tell = max(ks), 0, progress(f'kNN, {metric}')
    chunks = query.split(query_chunk)
    # Values and indices of the neighbours so far, Q_chunk x up to max(ks) each.
    found = [_largest(torch.empty(len(rows), 0, dtype=work, device=device), 0) for rows in chunks]
    # Queries are the inner loop, so that the bank, much the larger, comes from the CPU once.
    for start in range(0, len(bank), bank_chunk):
        block = prepared(bank[start:start + bank_chunk])
        for i, chunk in enumerate(chunks):
            closeness = prepared(chunk) @ block.T  # Q_chunk x N_chunk
            if metric == 'l2':
                # |q - b|^2 less |q|^2, which is the same for all neighbours of q, and negated.
                closeness.mul_(2).sub_(block.square().sum(dim=1))
            values, columns = _largest(closeness, min(most, len(block)))
            # Neighbours found before come first in the bank, so that a stable sort keeps the order among equals.
            values = torch.cat([found[i][0], values], dim=1)
            columns = torch.cat([found[i][1], columns + start], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            found[i] = values[:, :most], columns.gather(1, order[:, :most])
            done += closeness.numel()
            tell(done, len(query) * len(bank))

    labels = bank_labels.to(device, torch.int64)
    parts: dict[int, list[Tensor]] = {k: [] for k in sorted(set(ks))}
    for values, index in found:
        weights = torch.ones_like(values, dtype=dtype)
        if metric == 'cosine' and temperature is not None:
            # Relative to the nearest: changes no rank, and keeps a small temperature from overflowing.
            weights = ((values - values[:, :1]) / temperature).exp()
        classes, votes = labels[index], weights.new_zeros(len(weights), num_classes)
        # One neighbour after the other: classes with the same weights then get the same sum, on a GPU as well, where
        # adding all at once would add them in any order.
        for k in range(1, most + 1):
            votes.scatter_add_(1, classes[:, k - 1:k], weights[:, k - 1:k])
            if k in parts:
                parts[k].append((votes / votes.sum(dim=1, keepdim=True)).to(query.device))
    return {k: torch.cat(scores) for k, scores in parts.items()}


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row and their columns; equal ones by ascending column, also where only some fit."""
    if k == values.shape[1]:
        return values.sort(dim=1, descending=True, stable=True)
    # topk promises neither an order nor a choice among equals. One value more shows the rows where the choice matters.
    top, columns = values.topk(k + 1, dim=1)
    tied = (top[:, k - 1] == top[:, k]).nonzero().flatten()
    columns = columns[:, :k]
    if len(tied):
        columns[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    columns = columns.sort(dim=1).values
    top, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return top, columns.gather(1, order)
