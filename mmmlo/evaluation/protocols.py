"""The protocols on features: each from features, 'train' and 'test', to a result with its settings."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from mmmlo.utils.errors import SettingError

from .feature_cache import Features
from .few_shot import few_shot_probe
from .knn import knn_predict
from .linear_heads import fast_linear_probe
from .results import Metric, ProtocolResult

__all__ = ['few_shot_protocol', 'knn_protocol', 'linear_protocol']

Splits = dict[str, Features]


def knn_protocol(features: Splits, num_classes: int, token: str, device: str | torch.device) -> ProtocolResult:
    """Classify by nearest neighbours, by the two protocols in use; the main metric is 'cosine k=20'.

    Cosine similarity with weighted votes, T = 0.07 and k = 10, 20, 100, 200 (Wu et al., 2018, as DINO evaluates); and
    Euclidean distance with equal votes and k = 5, CL-MAE's released evaluation. Values of k beyond the number of training
    images are left out.

    Raises:
        SettingError: There are fewer than 5 training images.
    """
    start = time.monotonic()
    (bank, bank_labels, *_), (query, labels, *_) = features['train'], features['test']
    if len(bank_labels) < 5:
        raise SettingError(f'--protocols knn: needs 5 training images of --data at least, and there are {len(bank_labels)}')
    metrics, notes = {}, []
    for metric, ks, temperature in (('cosine', (10, 20, 100, 200), 0.07), ('l2', (5, ), None)):
        possible = [k for k in ks if k <= len(bank_labels)]
        if len(possible) < len(ks):
            notes.append(f'{metric}: only {len(bank_labels)} training images, so no k above that')
        if possible:
            scores = knn_predict(
                query[token], bank[token], bank_labels, num_classes, ks=possible, metric=metric, temperature=temperature,
                device=device
            )
            for k, votes in scores.items():
                metrics[f'{metric} k={k}'] = Metric([100 * (votes.argmax(dim=1) == labels).double().mean().item()])
    return ProtocolResult(
        'knn',
        settings=dict(token=token, temperature=0.07, votes='weighted for cosine, equal for l2', bank=len(bank_labels)),
        metrics=metrics,
        main='cosine k=20' if 'cosine k=20' in metrics else next(iter(metrics)),
        seconds=time.monotonic() - start,
        cached=features['train'].cached and features['test'].cached,
        notes=notes,
    )


def linear_protocol(
    features: Splits, num_classes: int, seeds: Sequence[int], device: str | torch.device
) -> tuple[ProtocolResult, dict[int, Tensor]]:
    """Fit a linear classifier, its weight decay and token chosen on a part of the training split; seeds draw that part.

    The fast path: no augmentation. MAE's protocol itself, LARS on augmented images, is a config; see docs/evaluation.md.
    The logits of the test images, M x K, are returned too, by seed.
    """
    start = time.monotonic()
    (train, train_labels, *_), (test, test_labels, *_) = features['train'], features['test']
    results = {
        seed: fast_linear_probe(train, train_labels, test, test_labels, num_classes, seed=seed, device=device)
        for seed in seeds
    }
    metrics = {'top1': Metric([result.top1 for result in results.values()])}
    if num_classes > 5:
        metrics['top5'] = Metric([float(result.top5 or 0) for result in results.values()])
    tokens, decays = zip(*((found.token, float(f'{found.weight_decay:.3g}')) for found in results.values()))
    result = ProtocolResult(
        'linear',
        settings=dict(
            path='fast: fixed features, no augmentation',
            seeds=list(seeds),
            token=tokens[0] if len(set(tokens)) == 1 else tokens,
            weight_decay=decays[0] if len(set(decays)) == 1 else decays,
            images=len(train_labels),
        ),
        metrics=metrics,
        main='top1',
        seconds=time.monotonic() - start,
        cached=features['train'].cached and features['test'].cached,
    )
    return result, {seed: found.logits for seed, found in results.items()}


def few_shot_protocol(features: Splits, token: str, shots: Sequence[int], draws: int) -> ProtocolResult:
    """Fit linear classifiers to a few images a class (CL-MAE, figure 5), a value for each draw."""
    start = time.monotonic()
    (train, train_labels, *_), (test, test_labels, *_) = features['train'], features['test']
    found = few_shot_probe(train[token], train_labels, test[token], test_labels, shots, draws)
    return ProtocolResult(
        'few-shot',
        settings=dict(token=token, draws=draws, seed=0, classifier='logistic regression on standardized features'),
        metrics={f'{count}-shot': Metric([draw.accuracy for draw in found[count]]) for count in shots},
        main=f'{max(shots)}-shot',
        seconds=time.monotonic() - start,
        cached=features['train'].cached and features['test'].cached,
    )
