"""Features of a data set by an encoder, computed once and kept on disk."""

import hashlib
import json
import logging
import os
import os.path as osp
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from mmmlo.registry import MODELS
from mmmlo.utils.checkpoints import CheckpointError, read_content
from mmmlo.utils.errors import DataError, SettingError
from mmmlo.utils.whole_file import replace_whole

from .data import EvaluationData
from .encoder import Encoder
from .features import check_finite, extract_tokens

__all__ = ['FeatureCache', 'Features', 'check_features']

# Raised when the meaning of an entry changes, so that older ones are not used.
_FORMAT = 2


class Features(NamedTuple):
    """Features of one split by token, 'mean' and 'cls', N x C, float32; class indices, N; and whether the disk had them."""

    tokens: dict[str, Tensor]
    labels: Tensor
    cached: bool


@dataclass
class FeatureCache:
    """Computes features of both splits, or reads those of an earlier run, in ``folder``; None keeps none.

    An entry is a file, found by the checkpoint's hash, the encoder's config, and the split's fingerprint with its pipeline,
    all of which it holds. It is written as a whole or not at all. Only features that pass :func:`check_features` are kept.
    ``amp`` runs encoders under bfloat16 autocast.
    """

    folder: str | None
    batch_size: int = 256
    num_workers: int = 2
    amp: bool = False
    device: str = 'cpu'

    def get(self, encoder: Encoder, data: EvaluationData) -> dict[str, Features]:
        """Read or compute the features of both splits, 'train' and 'test'; all processes must call this, and get everything.

        Raises:
            DataError: A feature is not finite, or the splits are copies.
        """
        features, entries = {}, {}
        for split in ('train', 'test'):
            of = [_FORMAT, encoder.sha256, encoder.backbone, encoder.preprocessor_for(data.bgr), self.amp, data.name, split]
            key = json.dumps([*of, data.fingerprint(split, encoder.image_size)], sort_keys=True, default=str)
            name = f'{encoder.sha256[:12]}_{data.name}_{split}_{hashlib.sha256(key.encode()).hexdigest()[:12]}.pth'
            path = osp.join(self.folder or '', name)
            found = None if self.folder is None else _read(path, key)
            everywhere = [found is not None]
            broadcast_object_list(everywhere)  # else some processes would wait for features that others have
            if everywhere[0] != (found is not None):
                raise SettingError(f'processes see different files in {self.folder}: use a folder that all share')
            features[split] = found or self._extract(encoder, data, split)
            entries[split] = path, key
        check_features(features, encoder.path, data.name)
        if self.folder is not None and is_main_process():
            for split, (path, key) in entries.items():
                if not features[split].cached:
                    _write(path, key, features[split])
        return features

    def _extract(self, encoder: Encoder, data: EvaluationData, split: str) -> Features:
        loader = Runner.build_dataloader(
            dict(
                dataset=data.build(split, encoder.image_size),
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
                pin_memory='cuda' in self.device,
            )
        )
        model = encoder.model
        model.data_preprocessor = MODELS.build(dict(encoder.preprocessor_for(data.bgr), _scope_='mmpretrain'))
        model.to(self.device)
        name = f'features of {len(loader.dataset)} images of {data.name}, {split} split'
        print_log(name, 'current')
        return Features(*extract_tokens(model, loader, name=name, amp=self.amp), cached=False)


def _read(path: str, key: str) -> Features | None:
    if not osp.isfile(path):
        return None
    try:
        content = read_content(path)
    except CheckpointError as error:
        print_log(f'{path} is broken ({error}); its features are computed again', 'current')
        return None
    return Features(content['tokens'], content['labels'], cached=True) if content['key'] == key else None


def _write(path: str, key: str, features: Features) -> None:
    try:
        os.makedirs(osp.dirname(path), exist_ok=True)
        with replace_whole(path) as temporary:
            torch.save(dict(key=key, tokens=features.tokens, labels=features.labels), temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's own of a full disk
        print_log(f'the features are not kept: {error}', 'current')


def check_features(features: dict[str, Features], checkpoint: str, data: str) -> None:
    """Check that features of 'train' and 'test' are finite, and that test images are no training images of other names.

    Raises:
        DataError: A feature is NaN or infinite, or every test image has the very features of a training image.
    """
    for split, (tokens, *_) in features.items():
        for token, rows in tokens.items():
            check_finite(rows, f'{split} {token!r}', f'{checkpoint} on {data}: ')
    # 8 bytes a row rather than the rows, which are gigabytes.
    train, test = (
        np.fromiter((hash(row.tobytes()) for row in features[split].tokens['mean'].numpy()), dtype=np.int64)
        for split in ('train', 'test')
    )
    copies = int(np.isin(test, train).sum())
    if copies == len(test):
        raise DataError(
            f'--data {data}: each of the {len(test)} test images has the very features of a training image, so the test '
            'split is a copy. Test images must be ones that nothing was fitted to.'
        )
    if copies > len(test) // 100:
        text = f'{data}: {copies} of {len(test)} test images have the very features of a training image; are they copies?'
        print_log(text, 'current', logging.WARNING)
