"""Averages the backbone's weights and keeps them beside the raw ones."""

import logging
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.model import BaseAveragedModel
from mmengine.optim import OptimWrapperDict
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmmlo.registry import HOOKS, MODELS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

from ..optim_wrappers import MultiLevelOptimWrapper

_PREFIX = 'ema_backbone.'


@HOOKS.register_module()
class BackboneEMAHook(EMAHook):
    """Averages ``model.backbone``, the one module that outlives pretraining.

    mmengine's ``EMAHook`` averages the whole model and puts the average in the place of the raw weights of a checkpoint.
    Here the raw weights stay ``backbone.*``, and the average stands in the same file as ``ema_backbone.*``, from where a
    config can load it::

        init_cfg=dict(type='Pretrained', checkpoint='epoch_50.pth', prefix='ema_backbone.')

    As with mmengine's hook, validation and test run on the average. Training is not affected. The average moves when the
    optimizer of the backbone, in a multi-level run the lowest level's, has stepped. A resumed run goes on with the average
    of the checkpoint; a run with ``load_from`` begins a new one at the weights it loads.

    Args:
        **kwargs: Those of mmengine's ``EMAHook``: ``ema_type``, ``strict_load``, ``begin_iter`` and ``begin_epoch``, until
            which the average equals the raw weights, and arguments of the averaged model: ``momentum`` (the weight of the
            newest weights, 0.0002 by default), ``interval`` (in optimizer steps), ``device``, ``update_buffers``.

    Raises:
        SettingError: If the model has no ``backbone``, before training.
    """

    src_model: nn.Module
    ema_model: BaseAveragedModel

    def before_run(self, runner) -> None:
        """Make the averaged copy of the backbone."""
        model = unwrap(runner.model)
        backbone = getattr(model, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise SettingError(
                f'BackboneEMAHook averages model.backbone, but a {type(model).__name__} has no such module; take the hook '
                "out of custom_hooks, or use mmengine's EMAHook, which averages the whole model"
            )
        # A Runner that trains and then tests comes here twice, and the test is of the average.
        if getattr(self, 'src_model', None) is not backbone:
            self.src_model = backbone
            self.ema_model = MODELS.build(self.ema_cfg, default_args=dict(model=backbone))
            # The runner initializes and loads the weights after this.
            self._outdated = True

    def before_train(self, runner) -> None:
        """Begin the average, unless it goes on from a checkpoint."""
        super().before_train(runner)
        if self._outdated or self.ema_model.steps == 0:
            self._start()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Move the average if the backbone's optimizer has stepped: accumulating gradients must not make it shorter."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, MultiLevelOptimWrapper):
            base = wrapper.level(wrapper.base)
            stepped = base.gradient_count % base.accumulation == 0
        else:  # what mmengine itself asks before it steps; several optimizers without levels count no steps
            stepped = isinstance(wrapper, OptimWrapperDict) or wrapper.should_update()
        if stepped:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add ``ema_backbone.*`` to the weights, and to the file how often it has moved."""
        for name, value in self.ema_model.module.state_dict().items():
            checkpoint['state_dict'][_PREFIX + name] = value.cpu()
        checkpoint['backbone_ema'] = dict(steps=self.ema_model.steps.cpu())

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take ``ema_backbone.*`` out of the weights, where the model does not expect it.

        Without ``resume`` the average is for validation and test; a training begins its own.
        """
        state = checkpoint.get('state_dict', checkpoint)
        averaged = {name[len(_PREFIX) :]: state.pop(name) for name in list(state) if name.startswith(_PREFIX)}
        self._outdated = not averaged
        if averaged:
            load_state_dict(self.ema_model.module, averaged, strict=self.strict_load, logger=runner.logger)
            if runner._resume:
                self.ema_model.steps.copy_(checkpoint['backbone_ema']['steps'])
        elif runner._resume:
            text = f'The checkpoint has no {_PREFIX}*: BackboneEMAHook begins its average at the loaded backbone'
            print_log(text, 'current', logging.WARNING)

    def _start(self) -> None:
        self.ema_model.module.load_state_dict(self.src_model.state_dict())
        self._outdated = False

    def _swap_ema_parameters(self) -> None:
        if self._outdated:  # a test without training and without an average in the checkpoint
            self._start()
        super()._swap_ema_parameters()
