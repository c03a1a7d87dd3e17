"""Many linear classifiers on fixed features, trained side by side."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from sklearn.model_selection import train_test_split
from torch import Tensor

from mmmlo.evaluation.knn import mean_of_finite
from mmmlo.utils.errors import SettingError

__all__ = ['HeadCandidate', 'LinearHeadsResult', 'fast_linear_probe']

# That of the batch normalization before the head of MAE's linear probe, `BatchNorm1d(affine=False, eps=1e-6)`.
_EPS = 1e-6
# Share of the largest eigenvalue below which directions of the features get no larger steps: float32 holds less anyway.
_DAMPING = 1e-5
_HALF_DECADES = tuple(10 ** (-i / 2) for i in range(13))

Features = Mapping[str, Tensor | np.ndarray]


class HeadCandidate(NamedTuple):
    """One head of the sweep.

    Attributes:
        token (str): The features that it classifies.
        lr (float): Its learning rate.
        weight_decay (float): Its weight decay.
        accuracy (float): Accuracy on the held-out part, in per cent; 0 if the head has diverged.
        loss (float): Cross-entropy on the held-out part, in nats; infinite if the head has diverged.
    """

    token: str
    lr: float
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
        lr (float): The chosen learning rate.
        weight_decay (float): The chosen weight decay.
        candidates (tuple[HeadCandidate]): All heads of the sweep; empty if there was a single one, and so no choice.
    """

    top1: float
    top5: float | None
    logits: Tensor
    token: str
    lr: float
    weight_decay: float
    candidates: tuple[HeadCandidate, ...]


def fast_linear_probe(
    train: Features,
    train_labels: Tensor | np.ndarray,
    test: Features,
    test_labels: Tensor | np.ndarray,
    num_classes: int,
    seed: int = 0,
    lrs: Sequence[float] = (1.0,),
    weight_decays: Sequence[float] = _HALF_DECADES,
    epochs: float = 90,
    batch_size: int = 2048,
    held_out: float = 0.2,
    min_steps: int = 600,
    device: torch.device | str = 'cpu',
    progress: Callable[[int, int], None] | None = None,
) -> LinearHeadsResult:
    """Train linear heads on cached features, choose one on held-out training data, and test it once.

    One head for each token, learning rate and weight decay, all trained on the same batches. The head with the best
    accuracy on a stratified part cut from the training data is chosen, of equal ones the one with the smaller loss there;
    its setting is trained again on all training data. A class with a single training image is not held out.

    The head and the schedule are those of MAE's linear probe: batch normalization without affine parameters, then a linear
    layer; 90 epochs with a cosine schedule, 10 of them to warm up. What differs, because the features are fixed:

    - no augmentation, and the normalization has the statistics of all fitted features, which running averages estimate;
    - SGD with Nesterov momentum 0.9 instead of LARS, along the eigenvectors of the features' covariance, with a step for
      each by the bound of Boehning (1992, Ann. Inst. Stat. Math. 44) on the curvature of the multinomial logistic loss:
      half an eigenvalue, plus the weight decay. A learning rate of 1 is therefore safe for all features, and the heads
      come close to the optimum of logistic regression although features of transformers are badly conditioned;
    - weight decay is swept, as an L2 penalty on the weights, not the bias: ``weight_decay`` is 1 / (C x N) of scikit-learn's
      C on N images.

    Features on the CPU, or in a ``numpy.memmap``, are brought to ``device`` batch by batch; those that already lie there
    are faster.

    Args:
        train (Mapping[str, Tensor | np.ndarray]): Training features of each token, as 'cls' and 'mean', N x C.
        train_labels (Tensor | np.ndarray): Their class indices, N.
        test (Mapping[str, Tensor | np.ndarray]): Test features of the same tokens, M x C.
        test_labels (Tensor | np.ndarray): Their class indices, M.
        num_classes (int): Number of classes K.
        seed (int): Seed of the held-out part and of the order of the images. Defaults to 0.
        lrs (Sequence[float]): Learning rates, as multiples of the safe one. Defaults to (1,).
        weight_decays (Sequence[float]): Weight decays. Defaults to half decades from 1 to 1e-6.
        epochs (float): Epochs. Defaults to 90.
        batch_size (int): Images of a batch; all of them if there are fewer. Defaults to 2048.
        held_out (float): Share of the training data on which a head is chosen. Defaults to 0.2.
        min_steps (int): Steps to take if the epochs have fewer, as with small training sets. Defaults to 600.
        device (torch.device | str): Where to train. Defaults to 'cpu'.
        progress (Callable, optional): Called after each step with the number of steps that are done, and with their total,
            those of all heads and those of the chosen one together.

    Returns:
        LinearHeadsResult: Accuracies in per cent, logits, and what was chosen.

    Raises:
        ValueError: A feature is not finite; tokens or shapes do not fit; a label is out of range; a class of the test
            data is absent from the training data; a setting is out of range; every class has one training image and there
            is a choice to make; every head has diverged.
    """
    device = torch.device(device)
    labels, truth = torch.as_tensor(train_labels).cpu().long(), torch.as_tensor(test_labels).cpu().long()
    if not 0 < held_out < 1:
        raise SettingError(f'`held_out` must lie between 0 and 1, not {held_out}.')
    if batch_size < 1 or min_steps < 1 or not epochs > 0:
        raise SettingError(
            f'`batch_size`, `min_steps` and `epochs` must be above 0, not {batch_size}, {min_steps} and {epochs}.'
        )
    if not len(lrs) or not min(lrs) > 0 or not len(weight_decays) or not min(weight_decays) >= 0:
        raise SettingError(f'`lrs` must be above 0 and `weight_decays` not below, not {lrs} and {weight_decays}.')
    _check(train, labels, test, truth, num_classes)
    for part, features in (('training', train), ('test', test)):
        for token, feats in features.items():
            mean_of_finite(feats, f'{part} {token!r}', 65536, device)

    done, total = 0, 0

    def steps(count: int) -> int:
        return max(min_steps, math.ceil(epochs * count / batch_size))

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def fit(rows: Tensor, tokens: Sequence[str], settings: Sequence[tuple[float, float]]) -> '_Heads':
        heads = _Heads({token: train[token] for token in tokens}, rows, num_classes, settings, batch_size, device)
        heads.train(labels, steps(len(rows)), torch.Generator().manual_seed(seed), tell)
        return heads

    settings = [(float(lr), float(wd)) for lr in lrs for wd in weight_decays]
    token, (lr, wd) = next(iter(train)), settings[0]
    candidates: tuple[HeadCandidate, ...] = ()
    total = steps(len(labels))
    if len(train) * len(settings) > 1:
        fitted, held = _split(labels, held_out, seed)
        total += steps(len(fitted))
        candidates = tuple(fit(fitted, list(train), settings).candidates(held, labels))
        best = max(candidates, key=lambda candidate: (candidate.accuracy, -candidate.loss))
        if not math.isfinite(best.loss):
            raise SettingError('every head has diverged: lower `lrs`.')
        token, lr, wd = best[:3]
        _warn_of_edges(dict(lr=(lr, lrs), weight_decay=(wd, weight_decays)))
    final = fit(torch.arange(len(labels)), [token], [(lr, wd)])
    logits = torch.cat([
        final.logits(token, rows)[:, 0].cpu() for rows in _batches(test[token], torch.arange(len(truth)), batch_size, device)
    ])
    if not torch.isfinite(logits).all():
        raise SettingError('the head has diverged on all of the training data: lower `lrs`.')
    top1 = 100 * (logits.argmax(dim=1) == truth).double().mean().item()
    top5 = None
    if num_classes > 5:
        top5 = 100 * (logits.topk(5, dim=1).indices == truth[:, None]).any(dim=1).double().mean().item()
    return LinearHeadsResult(top1, top5, logits, token, lr, wd, candidates)


class _Heads:
    """Linear heads of several tokens and settings on standardized features.

    A head has weights ``basis @ (scale * u)``: ``basis`` (C x C) are the eigenvectors of the features' covariance,
    ``scale`` (C) the roots of the step sizes, and SGD of rate 1 moves ``u`` (C x K). Learning rates are part of ``scale``,
    so that one tensor holds all heads of a token and one matrix product gives all their logits.
    """

    def __init__(
        self,
        features: Features,
        rows: Tensor,
        num_classes: int,
        settings: Sequence[tuple[float, float]],
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.features, self.rows, self.num_classes, self.settings = features, rows, num_classes, settings
        self.batch_size, self.device = min(batch_size, len(rows)), device
        lr, self.decay = torch.tensor(settings, dtype=torch.float64, device=device).T  # H each
        self.mean, self.inverse, self.basis, self.scale, self.weight = {}, {}, {}, {}, {}
        for token, feats in features.items():
            self.mean[token], self.inverse[token] = _moments(feats, rows, device)
            eigenvalues, basis = torch.linalg.eigh(self._covariance(token))
            eigenvalues = eigenvalues.clamp(min=0) + _DAMPING * eigenvalues[-1].clamp(min=1e-12)
            if self.batch_size < len(rows):
                # The covariance of a batch of white noise has eigenvalues up to this (Marchenko-Pastur).
                eigenvalues *= (1 + math.sqrt(len(basis) / self.batch_size)) ** 2
            curvature = eigenvalues[:, None] / (2 * lr) + self.decay  # C x H
            self.basis[token] = basis.float()
            self.scale[token] = curvature.rsqrt().float()[:, :, None]
            self.weight[token] = torch.zeros(len(basis), len(lr), num_classes, device=device, requires_grad=True)
        # The bias belongs to a feature that is always 1, and is not decayed.
        self.bias_scale = (2 * lr).sqrt().float()[:, None]
        self.bias = {token: torch.zeros(len(lr), num_classes, device=device, requires_grad=True) for token in features}
        self.decay = self.decay.float()

    def train(self, labels: Tensor, steps: int, generator: torch.Generator, tell: Callable[[], None]) -> None:
        """Take ``steps`` steps, each followed by ``tell()``; ``labels`` are those of all images, N."""
        optimizer = torch.optim.SGD([*self.weight.values(), *self.bias.values()], lr=1, momentum=0.9, nesterov=True)
        warm_up = steps / 9  # 10 epochs of 90

        def factor(step: int) -> float:
            if step < warm_up:
                return min(1, (step + 1) / warm_up)
            return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        for classes, batch in self._training_batches(labels, steps, generator):
            targets = classes.repeat_interleave(len(self.settings))
            # Summed over heads: none of them appears in the gradient of another.
            loss = torch.zeros((), device=self.device)
            for token, rows in batch.items():
                weight = self.scale[token] * self.weight[token]
                logits = self._logits(token, rows, weight)
                loss = loss + F.cross_entropy(logits.flatten(0, 1), targets, reduction='sum') / len(rows)
                loss = loss + (self.decay / 2 * weight.square().sum(dim=(0, 2))).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            tell()

    @torch.no_grad()
    def logits(self, token: str, rows: Tensor) -> Tensor:
        """Logits of raw features, B x C, by all heads of a token: B x H x K."""
        return self._logits(token, self._standardized(token, rows), self.scale[token] * self.weight[token])

    @torch.no_grad()
    def candidates(self, rows: Tensor, labels: Tensor) -> Iterator[HeadCandidate]:
        """Test all heads on some rows of the features that they were trained on."""
        for token, feats in self.features.items():
            correct = torch.zeros(len(self.settings), dtype=torch.float64, device=self.device)
            loss = torch.zeros_like(correct)
            for index, batch in zip(rows.split(self.batch_size), _batches(feats, rows, self.batch_size, self.device)):
                logits = self.logits(token, batch)
                classes = labels[index].to(self.device)
                correct += (logits.argmax(dim=2) == classes[:, None]).sum(dim=0)
                losses = F.cross_entropy(
                    logits.flatten(0, 1), classes.repeat_interleave(len(self.settings)), reduction='none'
                )
                loss += losses.view(len(batch), -1).sum(dim=0, dtype=torch.float64)
            for setting, right, nats in zip(self.settings, correct.tolist(), loss.tolist()):
                finite = math.isfinite(nats)
                yield HeadCandidate(
                    token, *setting, 100 * right / len(rows) if finite else 0.0, nats / len(rows) if finite else math.inf
                )

    def _training_batches(
        self, labels: Tensor, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Classes and standardized features, B x C a token, of full batches, epoch after epoch."""

        def batch(index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            rows = {token: _take(feats, index, self.device) for token, feats in self.features.items()}
            return labels[index].to(self.device), {token: self._standardized(token, rows[token]) for token in rows}

        if self.batch_size == len(self.rows):
            everything = batch(self.rows)
            for _ in range(steps):
                yield everything
            return
        order = self.rows[:0]
        for _ in range(steps):
            if len(order) < self.batch_size:
                shuffled = self.rows[torch.randperm(len(self.rows), generator=generator)]
                order = torch.cat([order, shuffled])
            # Ascending within a batch: a memmap on a disk is read in one direction.
            yield batch(order[: self.batch_size].sort().values)
            order = order[self.batch_size :]

    def _standardized(self, token: str, rows: Tensor) -> Tensor:
        rows = rows if rows.dtype == torch.float64 else rows.float()
        return ((rows - self.mean[token].to(rows.dtype)) * self.inverse[token].to(rows.dtype)).float()

    def _logits(self, token: str, standardized: Tensor, weight: Tensor) -> Tensor:
        # The product of the two weights rather than of the features and the basis: heads have few classes as a rule.
        flat = self.basis[token] @ weight.flatten(1)
        bias = self.bias_scale * self.bias[token]
        return (standardized @ flat).view(len(standardized), *bias.shape) + bias

    def _covariance(self, token: str) -> Tensor:
        width = self.features[token].shape[1]
        total = torch.zeros(width, width, dtype=torch.float64, device=self.device)
        for batch in _batches(self.features[token], self.rows, 16384, self.device):
            rows = self._standardized(token, batch)
            total += rows.T @ rows
        return total / len(self.rows)


def _take(feats: Tensor | np.ndarray, rows: Tensor, device: torch.device) -> Tensor:
    if isinstance(feats, Tensor):
        return feats[rows.to(feats.device)].to(device)
    return torch.from_numpy(feats[rows.numpy()]).to(device)


def _batches(feats: Tensor | np.ndarray, rows: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
    for index in rows.split(size):
        yield _take(feats, index, device)


def _moments(feats: Tensor | np.ndarray, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of some rows as batch normalization has them, C each, float64."""
    mean = torch.zeros(feats.shape[1], dtype=torch.float64, device=device)
    square = torch.zeros_like(mean)
    for batch in _batches(feats, rows, 16384, device):
        mean += batch.sum(dim=0, dtype=torch.float64)
    mean /= len(rows)
    for batch in _batches(feats, rows, 16384, device):
        square += (batch.double() - mean).square().sum(dim=0)
    return mean, (square / len(rows) + _EPS).rsqrt()


def _split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit and rows held out, both ascending: as scikit-learn splits them, but single images are fitted."""
    counts = torch.bincount(labels)
    lonely = counts[labels] == 1
    rows = (~lonely).nonzero().flatten()
    if not len(rows):
        raise SettingError(
            'every class has a single training image, so that none can be held out to choose a head by: give one token, '
            'one learning rate and one weight decay, or use `few_shot_probe`.'
        )
    classes = int((counts > 1).sum())
    # scikit-learn wants room for an image of each class in both parts.
    size = min(max(math.ceil(share * len(rows)), classes), len(rows) - classes)
    fitted, held = train_test_split(rows.numpy(), test_size=size, stratify=labels[rows].numpy(), random_state=seed)
    fitted = torch.cat([torch.from_numpy(fitted), lonely.nonzero().flatten()])
    return fitted.sort().values, torch.from_numpy(held).sort().values


def _check(train: Features, labels: Tensor, test: Features, truth: Tensor, num_classes: int) -> None:
    if not len(train) or set(train) != set(test):
        raise SettingError(
            f'training and test features must be of the same tokens, one at least, not {sorted(train)} and {sorted(test)}.'
        )
    for part, features, classes in (('training', train, labels), ('test', test, truth)):
        for token, feats in features.items():
            if feats.ndim != 2 or classes.shape != (feats.shape[0],) or not len(classes):
                raise SettingError(
                    f'the {part} {token!r} features {tuple(feats.shape)} and labels {tuple(classes.shape)} do not fit: '
                    'they must be N x C and N, N at least 1.'
                )
            if feats.shape[1] != train[token].shape[1]:
                raise SettingError(
                    f'the {token!r} features have {train[token].shape[1]} channels for training and {feats.shape[1]} for '
                    'the test.'
                )
        if classes.min() < 0 or classes.max() >= num_classes:
            raise SettingError(
                f'the {part} labels run from {int(classes.min())} to {int(classes.max())}, but there are '
                f'{num_classes} classes.'
            )
    absent = sorted(set(truth.tolist()) - set(labels.tolist()))
    if absent:
        raise SettingError(f'classes {absent} of the test data have no training image.')


def _warn_of_edges(axes: Mapping[str, tuple[float, Sequence[float]]]) -> None:
    for name, (chosen, values) in axes.items():
        # Of one or two values every choice is an edge.
        if len(values) > 2 and chosen in (min(values), max(values)):
            print_log(
                f'The chosen {name} {chosen:g} lies on the edge of the sweep from {min(values):g} to {max(values):g}: '
                'another beyond it may be better.',
                'current',
                level=30,  # logging.WARNING
            )
