"""Validation and test loops that classify by nearest neighbours."""

import time
from collections.abc import Mapping

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.runner import Runner, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor
from torch.utils.data import DataLoader

from mmmlo.datasets.folders import check_dataset_folder
from mmmlo.datasets.labels import has_several_labels
from mmmlo.datasets.split_guard import (
    SplitOverlapError,
    check_disjoint,
    check_same_classes,
    class_names,
    is_test_split,
    read_test_dataset,
)
from mmmlo.evaluation.features import batch_features, eval_mode, extract_features
from mmmlo.evaluation.knn import knn_scores
from mmmlo.registry import LOOPS
from mmmlo.utils.errors import DataError, SettingError

from .loader_settings import with_settings_of

__all__ = ['KNNTestLoop', 'KNNValLoop']


@LOOPS.register_module()
class KNNValLoop(ValLoop):
    """Validates an encoder without training anything: kNN classification of its features.

    The features of the *bank*, images with known classes, are computed first. Then each *query* image, those of
    ``val_dataloader``, is classified by its neighbours in the bank (:func:`mmmlo.evaluation.knn_scores`), and the
    evaluator gets the usual data samples with ``gt_label``, ``pred_score`` and ``pred_label``. For example::

        val_cfg = dict(
            type='mmmlo.KNNValLoop',
            bank_dataloader=dict(dataset=dict(type='mmmlo.SplitDataset', part='train', ...)),
            query_split='val')
        val_dataloader = dict(dataset=dict(type='mmmlo.SplitDataset', part='val', ...), ...)
        val_evaluator = dict(type='Accuracy', topk=(1, ), prefix='knn')

    Whoever chooses by a number may not report it: with ``query_split='test'``, nothing may be selected by the metric,
    and with ``query_split='val'`` the query images may not be test images. All this is looked at before training.

    The features of the whole bank stay on the model's device during a validation: 4 x N x C bytes, 3.9 GB for ImageNet
    and ViT-B.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The loader of the query images.
        evaluator (Evaluator | dict | list): The metrics.
        bank_dataloader (DataLoader | dict): The loader of the bank. Batch size, workers, ``collate_fn`` and sampler
            default to those of the query loader.
        query_split (str): 'val' or 'test': what the query images are.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Temperature of the vote. Defaults to 0.07.
        token (str): 'mean' for the mean of the patch tokens, 'cls' for the class token. Defaults to 'mean'.
        fp16 (bool): Whether to compute features under autocast. Defaults to False.

    Raises:
        SettingError: An unknown ``query_split`` or ``token``; ``k`` or ``temperature`` out of range; the query images
            name no classes; ``save_best`` or early stopping on the test split.
        DataError: Bank and query have different classes, or several labels an image.
        SplitOverlapError: Bank and query share images, or test images stand where they must not.
    """

    # The hooks to call, and the first word of the config keys to name in errors.
    stage = 'val'

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        bank_dataloader: DataLoader | dict,
        query_split: str,
        k: int = 20,
        temperature: float = 0.07,
        token: str = 'mean',
        fp16: bool = False,
    ) -> None:
        key = f'{self.stage}_cfg'
        for name, value, known in (('query_split', query_split, ('val', 'test')), ('token', token, ('mean', 'cls'))):
            if value not in known:
                raise SettingError(f'`{key}.{name}` must be {known[0]!r} or {known[1]!r}, not {value!r}.')
        if not temperature > 0:
            raise SettingError(f'`{key}.temperature` must be above 0, not {temperature}.')
        self.query_split = query_split
        self.k = k
        self.temperature = temperature
        self.token = token
        self._check_selection(runner)
        if not isinstance(bank_dataloader, DataLoader):
            if not isinstance(bank_dataloader, Mapping) or 'dataset' not in bank_dataloader:
                raise SettingError(
                    f'`{key}.bank_dataloader` must be a dict with a `dataset`: the images with known classes that vote.'
                )
            bank_dataloader = with_settings_of(dataloader, bank_dataloader)
            bank_dataloader.setdefault('sampler', dict(type='DefaultSampler', shuffle=False))
        for where, loader in ((f'{key}.bank_dataloader', bank_dataloader), (f'{self.stage}_dataloader', dataloader)):
            if isinstance(loader, Mapping) and isinstance(loader.get('dataset'), Mapping):
                check_dataset_folder(loader['dataset'], f'{where}.dataset')

        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_dataloader = runner.build_dataloader(bank_dataloader, seed=runner.seed)
        self._check_data()
        self._bank: tuple[Tensor, Tensor] | None = None

    def run(self) -> dict[str, float]:
        """Compute the bank's features, classify the query images, and return the metrics."""
        # After the hooks, because one of them may put averaged weights into the model.
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        with eval_mode(self.runner.model):
            self._bank = self._extract_bank()
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch)
            self._bank = None
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Classify one batch of query images."""
        self.runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        assert self._bank is not None
        with autocast(enabled=self.fp16):
            feats, data_samples = batch_features(self.runner.model, data_batch, self.token)
        scores = knn_scores(feats, *self._bank, self.num_classes, self.k, self.temperature)
        for sample, score in zip(data_samples, scores):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        self.evaluator.process(data_samples=data_samples, data_batch=data_batch)
        self.runner.call_hook(f'after_{self.stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=data_samples)

    def _extract_bank(self) -> tuple[Tensor, Tensor]:
        start = time.monotonic()
        with autocast(enabled=self.fp16):
            feats, labels = extract_features(self.runner.model, self.bank_dataloader, self.token, name='kNN bank')
        print_log(
            f'kNN: bank of {len(feats)} images ready in {time.monotonic() - start:.1f} s; classifying '
            f'{len(self.dataloader.dataset)} images of the {self.query_split} split (k {self.k}, temperature '
            f'{self.temperature}, token {self.token}).',
            'current',
        )
        device = next(self.runner.model.parameters()).device
        return feats.to(device), labels.to(device)

    def _check_selection(self, runner: Runner) -> None:
        """Refuse to select by test images."""
        if self.query_split != 'test' or self.stage != 'val':
            return
        instead = "or validate on a part of the training split with `query_split='val'`."
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best is not None:
                raise SettingError(
                    f'`default_hooks.checkpoint.save_best` is {", ".join(hook.save_best)!r}, but `val_cfg.query_split` is '
                    f"'test': the checkpoint would be chosen by test images. Leave `save_best` out, {instead}"
                )
            if isinstance(hook, EarlyStoppingHook):
                raise SettingError(
                    "`EarlyStoppingHook` in the config's hooks would end training by test images, because "
                    f"`val_cfg.query_split` is 'test'. Leave it out, {instead}"
                )

    def _check_data(self) -> None:
        """Compare bank, query and test images, and count the classes."""
        query, bank, cfg = self.dataloader.dataset, self.bank_dataloader.dataset, f'{self.stage}_cfg'
        query_key, bank_key = f'{self.stage}_dataloader.dataset', f'{cfg}.bank_dataloader.dataset'
        if not isinstance(self.k, int) or not 1 <= self.k <= len(bank):
            raise SettingError(f'`{cfg}.k` must lie between 1 and the {len(bank)} images of the bank, not {self.k}.')
        classes = class_names(query)
        if not classes:
            raise SettingError(f'`{query_key}` does not name its classes. Give it `metainfo=dict(classes=[...])`.')
        check_same_classes({bank_key: bank, query_key: query})
        for key, dataset in ((bank_key, bank), (query_key, query)):
            if has_several_labels(dataset):
                raise DataError(
                    f'`{key}` has images with several labels, for which nearest neighbours cannot vote; leave kNN out by '
                    f'{self.stage}_dataloader=None {self.stage}_cfg=None {self.stage}_evaluator=None'
                )
        self.num_classes = len(classes)

        if reason := is_test_split(bank):
            raise SplitOverlapError(f'`{bank_key}` is {reason}, an official test split. Use training images.')
        advice = (
            'An image that finds itself is no evidence: cut both from one dataset with `mmmlo.SplitDataset`, or use another '
            'split for one of them.'
        )
        check_disjoint(bank, query, (bank_key, query_key), advice)
        if self.query_split == 'test':
            return
        advice = f"Set `{cfg}.query_split='test'`, or take images of the training split with `mmmlo.SplitDataset`."
        if reason := is_test_split(query):
            raise SplitOverlapError(
                f"`{query_key}` is {reason}, an official test split, but `{cfg}.query_split` is 'val'. {advice}"
            )
        test = read_test_dataset(self.runner) if self.stage == 'val' else None
        if test is not None:
            check_disjoint(query, test, (query_key, 'test_dataloader.dataset'), advice)


@LOOPS.register_module()
class KNNTestLoop(KNNValLoop):
    """The same as a test loop: the query images are those of ``test_dataloader``.

    For ``test_cfg=dict(type='mmmlo.KNNTestLoop', ...)``; the arguments are those of :class:`KNNValLoop`.
    """

    stage = 'test'
