"""Compares the classes of the data with the outputs of the head."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmlo.datasets import DataError
from mmmlo.registry import HOOKS


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Refuses data with more classes than the head has outputs, whose loss ends in an index error of PyTorch's, far away.

    It looks at ``model.downstream`` of :class:`mmmlo.MLOMAE` and at the head of mmpretrain's classifiers; segmentors and
    detectors are looked at before they are built. Fewer classes than outputs are warned of. The runtimes in
    ``configs/_base_`` have this hook.

    Raises:
        DataError: Before training, if there are more classes than outputs.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare, where the dataset names its classes."""
        model = getattr(runner.model, 'module', runner.model)
        classes = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        for name in ('downstream', 'head'):
            outputs = getattr(getattr(model, name, None), 'num_classes', None)
            if classes is None or not isinstance(outputs, int) or outputs == len(classes):
                continue
            text = (
                f'model.{name}.num_classes is {outputs}, but the images of train_dataloader have {len(classes)} classes; '
                f'set model.{name}.num_classes={len(classes)}'
            )
            if len(classes) > outputs:
                raise DataError(text)
            print_log(text, 'current', logging.WARNING)
