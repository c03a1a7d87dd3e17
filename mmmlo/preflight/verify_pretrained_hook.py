"""Makes sure that pretrained weights are where the config wants them."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from mmmlo.engine.loops import KNNTestLoop
from mmmlo.registry import HOOKS
from mmmlo.utils.checkpoints import use_safe_loaders
from mmmlo.utils.key_report import check_whole_model, initialized_from
from mmmlo.utils.modules import unwrap


@HOOKS.register_module()
class VerifyPretrainedHook(Hook):
    """Compares a model with the checkpoints that its ``init_cfg`` names, and logs a key report for each.

    mmengine loads ``init_cfg=dict(type='Pretrained', ...)`` without being strict: a wrong prefix or width leaves the model
    at random, with a warning among a page of others. Here this is an error, before the data is read. After the
    initialization, the values are compared with the file's bit by bit, because some backbones draw parameters anew after
    they were loaded. Of a checkpoint named by ``load_from`` the backbone's keys must all be there; of the rest, layers of
    another shape are left out. A test needs all keys, but on features alone, as kNN does, the backbone's.
    The runtimes in ``configs/_base_`` have this hook, for mmpretrain, mmseg and mmdet alike.

    Raises:
        KeyMismatchError: A checkpoint does not fit its part of the model, or its weights were overwritten.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compare the keys, before the weights are initialized."""
        model = unwrap(runner.model)
        use_safe_loaders()  # which also tell the grid of older checkpoints
        trains = isinstance(runner._train_loop, BaseLoop)
        self._found = initialized_from(model) if trains else []
        for *_, report in self._found:
            print_log(str(report.check()), runner.logger)
        self._left_out: list[str] = []
        if (trains or isinstance(runner._test_loop, BaseLoop)) and runner._load_from is not None and not runner._resume:
            report = check_whole_model(model, runner._load_from, trains or isinstance(runner._test_loop, KNNTestLoop))
            self._left_out = list(report.left_out)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave out what does not fit: mmengine would say so on a page, and a module that resizes its own could fail."""
        for key in self._left_out:
            checkpoint['state_dict'].pop(key, None)

    def before_train(self, runner: Runner) -> None:
        """Compare the values, unless ``load_from`` or a resumed run has put others in their place."""
        if runner._load_from is None and runner.iter == 0:
            for module, _, state, report in self._found:
                report.check_values(module, state)
        self._found = []
