"""Weighted nearest-neighbour classification of features."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['knn_scores']


@torch.no_grad()
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

    As in InstDisc and DINO: neighbours by cosine similarity ``s``, each voting with weight ``exp(s / temperature)``.
    The scores of a sample are divided by their sum, which changes no rank and keeps a small temperature from
    overflowing.

    Args:
        query (Tensor): Features to classify, Q x C.
        bank (Tensor): Features with known classes, N x C, on the device of ``query``.
        bank_labels (Tensor): Class indices of ``bank``, N, int64.
        num_classes (int): Number of classes.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): The lower, the more the nearest count. Defaults to 0.07.
        chunk_size (int): How many query features are compared at a time; each takes N similarities of memory.
            Defaults to 256.

    Returns:
        Tensor: Scores, Q x ``num_classes``, each row summing to 1.

    Raises:
        ValueError: ``k`` is not in [1, N], ``temperature`` is not positive, a label is out of range, the shapes do not
            fit, or a feature is not finite.
    """
    if query.ndim != 2 or bank.ndim != 2 or query.shape[1] != bank.shape[1] or bank_labels.shape != bank.shape[:1]:
        raise ValueError(
            f'query {tuple(query.shape)}, bank {tuple(bank.shape)} and bank_labels '
            f'{tuple(bank_labels.shape)} do not fit: they must be Q x C, N x C and N.'
        )
    if not 1 <= k <= len(bank):
        raise ValueError(f'`k` must lie between 1 and the {len(bank)} images of the bank, not {k}.')
    if not temperature > 0:
        raise ValueError(f'`temperature` must be above 0, not {temperature}.')
    if bank_labels.min() < 0 or bank_labels.max() >= num_classes:
        raise ValueError(
            f'the labels of the bank run from {int(bank_labels.min())} to {int(bank_labels.max())}, but '
            f'there are {num_classes} classes.'
        )
    for name, feats in (('query', query), ('bank', bank)):
        if not torch.isfinite(feats).all():
            raise ValueError(f'the {name} features hold NaN or infinite values: the encoder has diverged.')

    bank = F.normalize(bank, dim=1)
    scores = query.new_zeros(len(query), num_classes)
    for start in range(0, len(query), chunk_size):
        rows = slice(start, start + chunk_size)
        similarity, neighbours = (F.normalize(query[rows], dim=1) @ bank.T).topk(k, dim=1)
        weights = (similarity / temperature).softmax(dim=1)
        scores[rows].scatter_add_(1, bank_labels[neighbours], weights)
    return scores
