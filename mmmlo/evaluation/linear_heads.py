"""Linear classifiers on fixed features, one a token and weight decay, of which the best is tested."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from sklearn.model_selection import train_test_split
from torch import Tensor

from mmmlo.evaluation.features import check_labels, check_splits
from mmmlo.utils.errors import SettingError

__all__ = ['HeadCandidate', 'LinearHeadsResult', 'fast_linear_probe']

# That of the batch normalization before the head of MAE's linear probe, `BatchNorm1d(affine=False, eps=1e-6)`.
_EPS = 1e-6
_HALF_DECADES = tuple(10 ** (-i / 2) for i in range(13))
_ROWS = 65536  # images whose logits are held at a time: 262 MB with 1000 classes

Features = Mapping[str, Tensor]
_Head = tuple[Tensor, Tensor]  # weight, C x K, and bias, K


class HeadCandidate(NamedTuple):
    """One head of the sweep, with its accuracy, in per cent, and cross-entropy, in nats, on the held-out part."""

    token: str
    weight_decay: float
    accuracy: float
    loss: float


class LinearHeadsResult(NamedTuple):
    """What :func:`fast_linear_probe` found.

    Attributes:
        top1 (float): Accuracy on the test features, in per cent.
        top5 (float, optional): Top-5 accuracy, in per cent; None unless there are more than five classes.
        logits (Tensor): Scores of the test features, M x K, float32, on the CPU.
        token (str): The chosen features.
        weight_decay (float): The chosen weight decay.
        candidates (tuple[HeadCandidate]): All heads of the sweep; empty if there was a single one, and so no choice.
    """

    top1: float
    top5: float | None
    logits: Tensor
    token: str
    weight_decay: float
    candidates: tuple[HeadCandidate, ...]


def fast_linear_probe(
    train: Features,
    train_labels: Tensor,
    test: Features,
    test_labels: Tensor,
    num_classes: int,
    seed: int = 0,
    weight_decays: Sequence[float] = _HALF_DECADES,
    held_out: float = 0.2,
    device: torch.device | str = 'cpu',
    progress: Callable[[int, int], None] | None = None,
) -> LinearHeadsResult:
    """Fit linear heads to cached features, choose one on held-out training data, and test it once.

    A head is multinomial logistic regression with an L2 penalty on the weights, not the bias, by L-BFGS, on features that
    are normalized as by the batch normalization of MAE's linear probe. Of all tokens and weight decays the head with the
    best accuracy on a stratified part cut from the training data is chosen, of equal ones the one with the smaller loss
    there, and its setting is fitted again to all training data. A class with a single training image is not held out.
    ``weight_decay`` is 1 / (C x N) of scikit-learn's C on N images.

    Args:
        train (Mapping[str, Tensor]): Training features of each token, as 'cls' and 'mean', N x C.
        train_labels (Tensor): Their class indices, N.
        test (Mapping[str, Tensor]): Test features of the same tokens, M x C.
        test_labels (Tensor): Their class indices, M.
        num_classes (int): Number of classes K.
        seed (int): Seed of the held-out part. Defaults to 0.
        weight_decays (Sequence[float]): Weight decays. Defaults to half decades from 1 to 1e-6.
        held_out (float): Share of the training data on which a head is chosen. Defaults to 0.2.
        device (torch.device | str): Where to fit; it holds the training features of one token. Defaults to 'cpu'.
        progress (Callable, optional): Called after each fit with the number of fits that are done, and with their total.

    Returns:
        LinearHeadsResult: Accuracies in per cent, logits, and what was chosen.

    Raises:
        SettingError: A feature is not finite; tokens or shapes do not fit; a label is out of range; a class of the test
            data is absent from the training data; a setting is out of range; or every class has one training image and
            there is a choice to make.
    """
    train, test = ({t: torch.as_tensor(feats) for t, feats in features.items()} for features in (train, test))
    labels, truth = (torch.as_tensor(some).cpu().long() for some in (train_labels, test_labels))
    if not 0 < held_out < 1:
        raise SettingError(f'`held_out` must lie between 0 and 1, not {held_out}.')
    if not len(weight_decays) or not min(weight_decays) >= 0:
        raise SettingError(f'`weight_decays` must not be empty or below 0: {weight_decays}.')
    check_splits(train, labels, test, truth)
    for part, some in (('training', labels), ('test', truth)):
        check_labels(some, num_classes, f'the {part} labels')

    done, total = 0, 1

    def fit(feats: Tensor, rows: Tensor, decay: float, start: _Head | None = None) -> _Head:
        nonlocal done
        done += 1
        head = _fit(feats, labels[rows].to(device), num_classes, decay, start)
        if progress is not None:
            progress(done, total)
        return head

    token, weight_decay = next(iter(train)), float(weight_decays[0])
    candidates: list[HeadCandidate] = []
    if len(train) * len(weight_decays) > 1:
        total += len(train) * len(weight_decays)
        fitted, held = _split(labels, held_out, seed)
        for name, feats in train.items():
            fit_feats, held_feats = _normalized(feats[fitted], feats[held], device)
            head = None
            for decay in sorted(map(float, weight_decays), reverse=True):  # each starts from the stronger one's solution
                head = fit(fit_feats, fitted, decay, head)
                logits, classes = _logits(held_feats, head), labels[held]
                accuracy = 100 * (logits.argmax(dim=1) == classes).double().mean().item()
                candidates.append(HeadCandidate(name, decay, accuracy, F.cross_entropy(logits.double(), classes).item()))
        token, weight_decay = max(candidates, key=lambda candidate: (candidate.accuracy, -candidate.loss))[:2]
        # Of one or two values every choice is an edge.
        if len(weight_decays) > 2 and weight_decay in (min(weight_decays), max(weight_decays)):
            print_log(
                f'The chosen weight decay {weight_decay:g} lies on the edge of the sweep from {min(weight_decays):g} to '
                f'{max(weight_decays):g}: another beyond it may be better.',
                'current',
                logging.WARNING,
            )
    train_feats, test_feats = _normalized(train[token], test[token], device)
    logits = _logits(test_feats, fit(train_feats, torch.arange(len(labels)), weight_decay))
    top1 = 100 * (logits.argmax(dim=1) == truth).double().mean().item()
    top5 = None
    if num_classes > 5:
        top5 = 100 * (logits.topk(5, dim=1).indices == truth[:, None]).any(dim=1).double().mean().item()
    return LinearHeadsResult(top1, top5, logits, token, weight_decay, tuple(candidates))


def _fit(feats: Tensor, labels: Tensor, num_classes: int, weight_decay: float, start: _Head | None) -> _Head:
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


def _split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit and rows held out, both ascending: as scikit-learn splits them, but single images are fitted."""
    counts = torch.bincount(labels)
    lonely = counts[labels] == 1
    rows = (~lonely).nonzero().flatten()
    if not len(rows):
        raise SettingError(
            'every class has a single training image, so that none can be held out to choose a head by: give one token '
            'and one weight decay, or use `few_shot_probe`.'
        )
    classes = int((counts > 1).sum())
    # scikit-learn wants room for an image of each class in both parts.
    size = min(max(math.ceil(share * len(rows)), classes), len(rows) - classes)
    fitted, held = train_test_split(rows.numpy(), test_size=size, stratify=labels[rows].numpy(), random_state=seed)
    fitted = torch.cat([torch.from_numpy(fitted), lonely.nonzero().flatten()])
    return fitted.sort().values, torch.from_numpy(held).sort().values
