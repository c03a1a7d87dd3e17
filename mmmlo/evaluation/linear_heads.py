"""Linear classifiers on fixed features, one a token and weight decay, of which the best is tested."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmmlo.evaluation.features import extract_tokens
from mmmlo.utils.errors import SettingError
from mmmlo.utils.progress import progress

__all__ = ['LinearHeadsResult', 'fast_linear_probe', 'quick_linear_top1']

# That of the batch normalization before the head of MAE's linear probe, `BatchNorm1d(affine=False, eps=1e-6)`.
_EPS = 1e-6
_HALF_DECADES = tuple(10 ** (-i / 2) for i in range(13))
_QUICK = (1e-1, 1e-2, 1e-3, 1e-4)  # weight decays of a probe beside a short run
_HELD_OUT = 0.2  # share of the training data on which a head is chosen
_ROWS = 65536  # images whose logits are held at a time: 262 MB with 1000 classes

_Head = tuple[Tensor, Tensor]  # weight, C x K, and bias, K


class LinearHeadsResult(NamedTuple):
    """What was chosen, with the logits of the test features, M x K, float32, on the CPU, and accuracies in per cent.

    ``top5`` is None unless there are more than five classes. Candidates are accuracies and cross-entropies, in nats, on the
    held-out part, with token and weight decay.
    """

    top1: float
    top5: float | None
    logits: Tensor
    token: str
    weight_decay: float
    candidates: list[tuple[float, float, str, float]]


def fast_linear_probe(
    train: Mapping[str, Tensor],
    labels: Tensor,
    test: Mapping[str, Tensor],
    truth: Tensor,
    num_classes: int,
    seed: int = 0,
    weight_decays: Sequence[float] = _HALF_DECADES,
    device: torch.device | str = 'cpu',
) -> LinearHeadsResult:
    """Fit linear heads to cached features, choose one on held-out training data, and test it once.

    A head is multinomial logistic regression with an L2 penalty on the weights, not the bias, by L-BFGS, on features that
    are normalized as by the batch normalization of MAE's linear probe. Of all tokens and weight decays the head with the
    best accuracy on a stratified fifth of the training data is chosen, of equal ones the one with the smaller loss there,
    and its setting is fitted again to all training data. A class with a single training image is not held out.
    ``weight_decay`` is 1 / (C x N) of scikit-learn's C on N images.

    Args:
        train (Mapping[str, Tensor]): Training features of each token, as 'cls' and 'mean', N x C.
        labels (Tensor): Their class indices, N.
        test (Mapping[str, Tensor]): Test features of the same tokens, M x C.
        truth (Tensor): Their class indices, M.
        num_classes (int): Number of classes K, each with a training image.
        seed (int): Seed of the held-out part. Defaults to 0.
        weight_decays (Sequence[float]): Weight decays, descending. Defaults to half decades from 1 to 1e-6.
        device (torch.device | str): Where to fit; it holds the training features of one token. Defaults to 'cpu'.

    Raises:
        SettingError: Every class has one training image.
    """
    fitted, held = _split(labels, seed)
    candidates: list[tuple[float, float, str, float]] = []
    tell = progress(f'linear, seed {seed}')
    for name, feats in train.items():
        fit_feats, held_feats = _normalized(feats[fitted], feats[held], device)
        head = None
        for decay in weight_decays:  # each starts from the stronger one's solution
            head = _fit(fit_feats, labels[fitted].to(device), num_classes, decay, head)
            logits = _logits(held_feats, head)
            loss = F.cross_entropy(logits.double(), labels[held]).item()
            candidates.append((_accuracy(logits, labels[held]), loss, name, decay))
            tell(len(candidates), len(train) * len(weight_decays))
    token, weight_decay = max(candidates, key=lambda candidate: (candidate[0], -candidate[1]))[2:]
    first, last = weight_decays[0], weight_decays[-1]
    if len(weight_decays) > 2 and weight_decay in (first, last):  # of two, every choice is an edge
        text = f'The chosen weight decay {weight_decay:g} lies on the edge of the sweep from {last:g} to {first:g}'
        print_log(f'{text}: another beyond it may be better.', 'current', logging.WARNING)
    train_feats, test_feats = _normalized(train[token], test[token], device)
    logits = _logits(test_feats, _fit(train_feats, labels.to(device), num_classes, weight_decay))
    top5 = _accuracy(logits, truth, 5) if num_classes > 5 else None
    return LinearHeadsResult(_accuracy(logits, truth), top5, logits, token, weight_decay, candidates)


def quick_linear_top1(model: nn.Module, train: DataLoader, test: DataLoader, seed: int = 0) -> float:
    """Fit the probe to a model's features of one loader by few weight decays, and test it on another's, in per cent."""
    (bank, labels), (query, truth) = extract_tokens(model, train), extract_tokens(model, test)
    return fast_linear_probe(bank, labels, query, truth, int(labels.max()) + 1, seed, _QUICK).top1


def _accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Top-k accuracy in per cent."""
    found = logits.argmax(dim=1, keepdim=True) if k == 1 else logits.topk(k, dim=1).indices  # N x k
    return 100 * (found == labels[:, None]).any(dim=1).double().mean().item()


def _fit(feats: Tensor, labels: Tensor, num_classes: int, weight_decay: float, start: _Head | None = None) -> _Head:
    """Minimize mean cross-entropy + weight_decay / 2 * |weight|^2 on normalized features, N x C."""
    weight, bias = start or (feats.new_zeros(feats.shape[1], num_classes), feats.new_zeros(num_classes))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn='strong_wolfe'
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight_decay / 2 * weight.square().sum()
        loss.backward()
        for rows, classes in zip(feats.split(_ROWS), labels.split(_ROWS)):
            part = F.cross_entropy(torch.addmm(bias, rows, weight), classes, reduction='sum') / len(feats)
            part.backward()
            loss = loss + part.detach()
        return loss.detach()

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _logits(feats: Tensor, head: _Head) -> Tensor:
    """Logits of normalized features, N x K, on the CPU."""
    weight, bias = head
    return torch.cat([torch.addmm(bias, rows, weight).cpu() for rows in feats.split(_ROWS)])


def _normalized(fitted: Tensor, other: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Normalize features by the mean and variance of the fitted ones; float32, on the device."""
    fitted = fitted.to(device)
    var, mean = torch.var_mean(fitted, dim=0, correction=0)
    scale = (var + _EPS).rsqrt()
    return ((fitted - mean) * scale).float(), ((other.to(device) - mean) * scale).float()


def _split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit and rows held out, both ascending: as scikit-learn splits them, but single images are fitted."""
    counts = torch.bincount(labels)
    lonely = counts[labels] == 1
    rows = (~lonely).nonzero().flatten()
    if not len(rows):
        raise SettingError(
            'every class has a single training image, so that none can be held out to choose a head by: use few-shot.'
        )
    classes = int((counts > 1).sum())
    # scikit-learn wants room for an image of each class in both parts.
    size = min(max(math.ceil(_HELD_OUT * len(rows)), classes), len(rows) - classes)
    fitted, held = train_test_split(rows.numpy(), test_size=size, stratify=labels[rows].numpy(), random_state=seed)
    fitted = torch.cat([torch.from_numpy(fitted), lonely.nonzero().flatten()])
    return fitted.sort().values, torch.from_numpy(held).sort().values
