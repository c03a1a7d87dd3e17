"""Features of a data set by an encoder, computed once and kept on disk."""

import hashlib
import json
import os
import os.path as osp
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .data import EvaluationData, EvaluationDataError
from .encoder import Encoder
from .features import extract_tokens

__all__ = ['FeatureCache', 'Features', 'check_features']

# Raised when the meaning of an entry changes, so that older ones are not used.
_FORMAT = 1


class Features(NamedTuple):
    """Features of one split.

    Attributes:
        tokens (dict[str, Tensor]): 'mean' and 'cls' -> N x C, float32.
        labels (Tensor): Class indices, N, int64.
        cached (bool): Whether they come from the disk.
    """

    tokens: dict[str, Tensor]
    labels: Tensor
    cached: bool


@dataclass
class FeatureCache:
    """Computes features of both splits, or reads those of an earlier run.

    An entry is found by the checkpoint's hash, the encoder's config, and the split's fingerprint with its pipeline. It is
    a folder with ``mean.npy``, ``cls.npy``, ``labels.npy`` and ``meta.json``, which says what it belongs to, and is written
    beside its place and renamed, so an interrupted run leaves none that is half there. Only features that pass
    :func:`check_features` are kept.

    Attributes:
        folder (str, optional): Where entries are kept. None keeps none.
        batch_size (int): Images in a batch. Defaults to 256.
        num_workers (int): Processes that read images. Defaults to 2.
        amp (bool): Whether encoders run under bfloat16 autocast. Defaults to False.
        device (str): Where encoders run. Defaults to 'cpu'.
    """

    folder: str | None
    batch_size: int = 256
    num_workers: int = 2
    amp: bool = False
    device: str = 'cpu'

    def get(self, encoder: Encoder, data: EvaluationData) -> dict[str, Features]:
        """Read or compute the features of both splits, 'train' and 'test'.

        With several processes, all must call this; each computes its share, and each gets everything.

        Args:
            encoder (Encoder): The encoder. It is moved to the device.
            data (EvaluationData): The images.

        Raises:
            EvaluationDataError: The splits share images, or a feature is not finite.
        """
        data.check_disjoint(encoder.image_size)
        features, entries = {}, {}
        for split in ('train', 'test'):
            key = dict(
                format=_FORMAT,
                checkpoint=encoder.sha256,
                backbone=encoder.backbone,
                preprocessor=encoder.preprocessor_for(data.bgr),
                amp=self.amp,
                data=data.name,
                split=split,
                images=data.fingerprint(split, encoder.image_size),
            )
            digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
            entry = osp.join(self.folder or '', f'{encoder.sha256[:12]}_{data.name}_{split}_{digest[:12]}')
            found = self._read(entry) if self.folder is not None else None
            if get_world_size() > 1:  # one process may have seen an entry before another
                everywhere = [found is not None]
                broadcast_object_list(everywhere)
                if everywhere[0] != (found is not None):
                    raise SettingError(f'processes see different files in {self.folder}: use a folder that all share')
            features[split] = found or self._extract(encoder, data, split)
            entries[split] = entry, key
        check_features(features, encoder.path, data.name)
        if self.folder is not None and is_main_process():
            for split, (entry, key) in entries.items():
                if not features[split].cached:
                    self._write(entry, key, features[split])
        return features

    def _read(self, entry: str) -> Features | None:
        if not osp.isdir(entry):
            return None
        try:
            arrays = {name: np.load(osp.join(entry, f'{name}.npy')) for name in ('mean', 'cls', 'labels')}
        except (OSError, ValueError, EOFError) as error:
            print_log(f'{entry} is broken ({error}); its features are computed again', 'current')
            return None
        labels = torch.from_numpy(arrays.pop('labels'))
        return Features({token: torch.from_numpy(rows) for token, rows in arrays.items()}, labels, cached=True)

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
        name = f'{data.name}, {split} split'
        print_log(f'{name}: features of {len(loader.dataset)} images', 'current')
        return Features(*extract_tokens(model, loader, name=name, amp=self.amp), cached=False)

    def _write(self, entry: str, key: dict[str, Any], features: Features) -> None:
        assert self.folder is not None
        os.makedirs(self.folder, exist_ok=True)
        unfinished = tempfile.mkdtemp(prefix='.unfinished-', dir=self.folder)
        try:
            for token, rows in features.tokens.items():
                np.save(osp.join(unfinished, f'{token}.npy'), rows.numpy())
            np.save(osp.join(unfinished, 'labels.npy'), features.labels.numpy())
            with open(osp.join(unfinished, 'meta.json'), 'w') as file:
                json.dump(key, file, indent=2, default=str)
            shutil.rmtree(entry, ignore_errors=True)  # a broken one
            os.replace(unfinished, entry)
        except OSError as error:
            print_log(f'the features are not kept: {error}', 'current')
            shutil.rmtree(unfinished, ignore_errors=True)


def check_features(features: dict[str, Features], checkpoint: str, data: str) -> None:
    """Check that features of 'train' and 'test' are finite, and that test images are no training images of other names.

    Raises:
        EvaluationDataError: A feature is NaN or infinite, or every test image has the very features of a training image.
    """
    for split, (tokens, *_) in features.items():
        for token, rows in tokens.items():
            wrong = int((~torch.isfinite(rows).all(dim=1)).sum())
            if wrong:
                raise EvaluationDataError(
                    f'{checkpoint} gives NaN or infinite features ({token}) for {wrong} of the {len(rows)} images of the '
                    f'{split} split of {data}: the encoder has diverged. Take an earlier checkpoint.'
                )
    # 8 bytes a row rather than the rows, which are gigabytes.
    train, test = (
        np.fromiter((hash(row.tobytes()) for row in features[split].tokens['mean'].numpy()), dtype=np.int64)
        for split in ('train', 'test')
    )
    copies = int(np.isin(test, train).sum())
    if copies == len(test):
        raise EvaluationDataError(
            f'--data {data}: each of the {len(test)} test images has the very features of a training image, so the test '
            'split is a copy. Test images must be ones that nothing was fitted to.'
        )
    if copies > len(test) // 100:
        print_log(
            f'{data}: {copies} of {len(test)} test images have the very features of a training image; are they copies?',
            'current',
            level=30,
        )
