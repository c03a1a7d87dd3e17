"""Compares the classes of the datasets with each other, and with the outputs of the head."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import BaseSelfSupervisor, MultiLabelClsHead

from mmmlo.datasets import DataError, check_same_classes, class_names, compare_class_names, level_key, read_test_dataset
from mmmlo.datasets.labels import has_several_labels
from mmmlo.engine import MultiLevelTrainLoop
from mmmlo.models import MLOMAE, TokenClsHead
from mmmlo.registry import HOOKS
from mmmlo.utils.modules import unwrap


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Refuses datasets whose labels do not mean the same, and data with more classes than the head has outputs.

    Labels are numbers: where a folder of one class is missing from the test data, those of the later classes shift, and
    accuracies are wrong without a word. So names and order of the classes are compared for every dataset whose labels a head
    learns or is measured by; in :class:`mmmlo.MLOMAE` those of its labelled levels, not D_u. A run that only tests compares
    with the classes that the checkpoint names. Datasets that name no classes are left alone; segmentors and detectors are
    looked at before they are built. Fewer classes than outputs are warned of. The runtimes in ``configs/_base_`` have this
    hook; :class:`mmmlo.KNNValLoop` compares its bank and query itself.

    Raises:
        DataError: Before training or testing, if classes differ, there are more than outputs, or images have no labels, or
            several and the loss is for one.
    """

    _trained = None

    def before_train(self, runner: Runner) -> None:
        """Compare the datasets that the head learns from and those that it is measured by."""
        model = unwrap(runner.model)
        datasets = {}
        if not isinstance(model, BaseSelfSupervisor):
            datasets['train_dataloader.dataset'] = runner.train_dataloader.dataset
            if _uses_head(runner.val_loop):
                datasets['val_dataloader.dataset'] = runner.val_dataloader.dataset
            loaders = runner._test_dataloader, runner._val_dataloader
            same = all(isinstance(loader, dict) for loader in loaders) and loaders[0]['dataset'] == loaders[1]['dataset']
            if _uses_head(runner._test_loop) and not same:
                datasets['test_dataloader.dataset'] = read_test_dataset(runner)
        elif _reads_labels(model) and isinstance(runner.train_loop, MultiLevelTrainLoop):
            found = runner.train_loop.level_datasets
            datasets = {level_key(level): found[level] for level in model.disjoint_levels[0] if level in found}
        check_labels(model, datasets)
        for name, extra in getattr(model, 'extra_losses', {}).items():
            if extra.reads_labels:
                found = getattr(runner.train_loop, 'level_datasets', dict(pretrain=runner.train_dataloader.dataset))
                level = 'labelled' if 'labelled' in found else 'pretrain'
                _check_outputs(extra, level_key(level), found[level], f'model.extra_losses.{name}')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the classes that the checkpoint was trained on."""
        self._trained = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')

    def before_test(self, runner: Runner) -> None:
        """Compare the test data with the classes that the checkpoint was trained on."""
        model = unwrap(runner.model)
        if isinstance(model, BaseSelfSupervisor) or not _uses_head(runner.test_loop):
            return
        key, dataset = 'test_dataloader.dataset', runner.test_dataloader.dataset
        if self._trained is not None and not isinstance(runner._train_loop, BaseLoop):  # else it only began from there
            compare_class_names({'load_from': list(map(str, self._trained)), key: class_names(dataset)})
        _check_outputs(model, key, dataset)


def _reads_labels(model: Any) -> bool:
    return isinstance(model, MLOMAE) and model.downstream and getattr(model.downstream, 'reads_labels', True)


def _uses_head(loop: Any) -> bool:
    """Whether a loop, or the config of one, measures predictions of the head and not of nearest neighbours."""
    return loop is not None and 'bank_dataloader' not in (loop if isinstance(loop, dict) else vars(loop))


def check_labels(model: Any, datasets: Mapping[str, Any]) -> None:
    """Compare the classes of data sets, config key -> data set, with each other and with a model's head."""
    for key, dataset in datasets.items():
        while hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        if not getattr(dataset, 'with_label', True):
            raise DataError(
                f'`{key}` holds images without labels (`with_label=False`), and a head learns from it or is measured by it; '
                'name a folder with a folder for each class'
            )
    check_same_classes(datasets)
    if datasets:
        _check_outputs(model, *next(iter(datasets.items())))


def _check_outputs(model: Any, key: str, dataset: Any, where: str = 'model') -> None:
    classes = class_names(dataset)
    for name in ('downstream', 'head'):
        head: Any = getattr(model, name, None)
        outputs = getattr(head, 'num_classes', None)
        ours = isinstance(head, TokenClsHead)
        sigmoid = getattr(getattr(head, 'loss_module', None), 'use_sigmoid', False)
        fits = ours and sigmoid or isinstance(head, MultiLabelClsHead)
        if isinstance(outputs, int) and not fits and has_several_labels(dataset):
            loss, kind = "loss=dict(type='CrossEntropyLoss', use_sigmoid=True)", "type='mmpretrain.MultiLabelLinearClsHead'"
            raise DataError(
                f'the images of {key} have several labels, and the loss of {where}.{name} is for one: set '
                f"{where}.{name}.{loss if ours else kind}, and dict(type='AveragePrecision') for evaluators"
            )
        if classes is None or not isinstance(outputs, int) or outputs == len(classes):
            continue
        inner = next((f'.{inner}' for inner in ('head', 'decode_head') if hasattr(head, inner)), '')  # of mmdet and mmseg
        own = f'{where}.{name}{inner}.num_classes'
        text = (
            f'{own} is {outputs}, but the images of {key.removesuffix(".dataset")} have {len(classes)} classes; set '
            f'{own}={len(classes)}'
        )
        if len(classes) > outputs:
            raise DataError(text)
        print_log(text, 'current', logging.WARNING)
