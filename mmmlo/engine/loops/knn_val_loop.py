"""Validation and test loops that classify by nearest neighbours."""

from collections.abc import Mapping

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner, ValLoop
from mmengine.runner.amp import autocast
from torch.utils.data import DataLoader

from mmmlo.datasets.folders import check_dataset_folder
from mmmlo.datasets.labels import has_several_labels, read_labels
from mmmlo.datasets.split_guard import (
    SplitOverlapError,
    check_disjoint,
    check_same_classes,
    class_names,
    is_test_split,
    read_test_dataset,
)
from mmmlo.evaluation.features import TOKENS, batch_features, eval_mode, extract_features
from mmmlo.evaluation.knn import knn_scores
from mmmlo.registry import LOOPS
from mmmlo.utils.errors import DataError, SettingError
from mmmlo.utils.text import format_list

from .loader_settings import with_settings_of


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

    Whoever chooses by a number may not report it: with ``query_split='test'``, nothing may be selected by the metric, and
    with ``query_split='val'`` the query images may not be test images. The features of the whole bank stay on the model's
    device during a validation: 4 x N x C bytes, 3.9 GB for ImageNet and ViT-B.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The loader of the query images.
        evaluator (Evaluator | dict | list): The metrics.
        bank_dataloader (dict): The loader of the bank. Batch size, workers, ``collate_fn`` and sampler
            default to those of the query loader.
        query_split (str): 'val' or 'test': what the query images are.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Temperature of the vote. Defaults to 0.07.
        token (str): 'mean' for the mean of the patch tokens, 'cls' for the class token. Defaults to 'mean'.
        fp16 (bool): Whether to compute features under autocast. Defaults to False.

    Raises:
        SettingError: A setting is out of range; the query images name no classes; selection by the test split.
        DataError: Bank and query have different classes, a single one or several an image, or the bank lacks one.
        SplitOverlapError: Bank and query share images, or test images stand where they must not.
    """

    # The hooks to call, and the first word of the config keys to name in errors.
    stage = 'val'

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        bank_dataloader: dict,
        query_split: str,
        k: int = 20,
        temperature: float = 0.07,
        token: str = 'mean',
        fp16: bool = False,
    ) -> None:
        cfg, query_key = f'{self.stage}_cfg', f'{self.stage}_dataloader.dataset'
        bank_key = f'{cfg}.bank_dataloader.dataset'
        if 'dataset' not in bank_dataloader:
            raise SettingError(f'`{bank_key}` is missing: the images with known classes that vote.')
        bank_dataloader = with_settings_of(dataloader, bank_dataloader)
        bank_dataloader.setdefault('sampler', dict(type='DefaultSampler', shuffle=False))
        for key, loader in ((bank_key, bank_dataloader), (query_key, dataloader)):
            if isinstance(loader, Mapping) and isinstance(loader.get('dataset'), Mapping):
                check_dataset_folder(loader['dataset'], key)

        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_dataloader = runner.build_dataloader(bank_dataloader, seed=runner.seed)
        images = len(self.bank_dataloader.dataset)
        for name, value, right, words in (
            ('query_split', query_split, query_split in ('val', 'test'), "'val' or 'test'"),
            ('token', token, token in TOKENS, "'mean' or 'cls'"),
            ('temperature', temperature, temperature > 0, 'above 0'),
            ('k', k, isinstance(k, int) and 1 <= k <= images, f'between 1 and the {images} images of the bank'),
        ):
            if not right:
                raise SettingError(f'`{cfg}.{name}` must be {words}, not {value!r}.')
        self.k, self.temperature, self.token = k, temperature, token
        self._check_data(bank_key, query_key, query_split == 'test')

    def run(self) -> dict[str, float]:
        """Compute the bank's features, classify the query images, and return the metrics."""
        # After the hooks, because one of them may put averaged weights into the model.
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        model = self.runner.model
        with eval_mode(model):
            with autocast(enabled=self.fp16):
                feats, labels = extract_features(model, self.bank_dataloader, self.token, name='kNN bank')
            device = next(model.parameters()).device
            self._bank = feats.to(device), labels.to(device)
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch)
            del self._bank
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Classify one batch of query images."""
        self.runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            feats, data_samples = batch_features(self.runner.model, data_batch, self.token)
        scores = knn_scores(feats, *self._bank, self.num_classes, self.k, self.temperature)
        for sample, score in zip(data_samples, scores):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        self.evaluator.process(data_samples=data_samples, data_batch=data_batch)
        self.runner.call_hook(f'after_{self.stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=data_samples)

    def _check_data(self, bank_key: str, query_key: str, tests: bool) -> None:
        """Compare bank, query and test images, count the classes, and refuse to select by test images."""
        query, bank, split = self.dataloader.dataset, self.bank_dataloader.dataset, f'{self.stage}_cfg.query_split'
        for hook in self.runner.hooks if tests and self.stage == 'val' else ():
            if isinstance(hook, EarlyStoppingHook) or getattr(hook, 'save_best', None):
                raise SettingError(
                    f"`{split}` is 'test', so {type(hook).__name__} would choose by test images. Leave `save_best` and "
                    "`EarlyStoppingHook` out, or validate on a part of the training split with `query_split='val'`."
                )
        classes = class_names(query)
        if not classes:
            raise SettingError(
                f'`{query_key}` does not name its classes. Give it labelled images, and `metainfo=dict(classes=[...])`.'
            )
        check_same_classes({bank_key: bank, query_key: query})
        for key, dataset in ((bank_key, bank), (query_key, query)):
            if has_several_labels(dataset):
                raise DataError(
                    f'`{key}` has images with several labels, for which nearest neighbours cannot vote; leave kNN out by '
                    f'{self.stage}_dataloader=None {self.stage}_cfg=None {self.stage}_evaluator=None'
                )
        if len(classes) < 2:
            raise DataError(
                f'`{query_key}` has the one class {classes[0]}, so accuracy is always 100; name images of more classes, or '
                f'leave kNN out by {self.stage}_dataloader=None {self.stage}_cfg=None {self.stage}_evaluator=None'
            )
        absent = set(read_labels(query).tolist()) - set(read_labels(bank).tolist())
        if absent:
            names = format_list([classes[label] for label in sorted(absent)])
            raise DataError(f'`{bank_key}` has no image of {names}, and `{query_key}` has; put some there')
        self.num_classes = len(classes)

        advice = 'Take other images of the training split with `mmmlo.SplitDataset`'
        checked = {bank_key: (bank, f'{advice}.')}
        if not tests:
            checked[query_key] = query, f"{advice}, or set `{split}='test'`."
        for key, (dataset, change) in checked.items():
            if reason := is_test_split(dataset):
                raise SplitOverlapError(f'`{key}` is {reason}, an official test split. {change}')
        check_disjoint(bank, query, (bank_key, query_key), f'An image that finds itself is no evidence. {advice}.')
        test = read_test_dataset(self.runner) if self.stage == 'val' and not tests else None
        if test is not None:
            check_disjoint(query, test, (query_key, 'test_dataloader.dataset'), checked[query_key][1])


@LOOPS.register_module()
class KNNTestLoop(KNNValLoop):
    """Tests as :class:`KNNValLoop` validates, with its arguments: the query images are those of ``test_dataloader``."""

    stage = 'test'
