"""Makes sure that pretrained weights are where the config wants them."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from mmmlo.registry import HOOKS
from mmmlo.utils.checkpoints import use_safe_loaders
from mmmlo.utils.key_report import check_whole_model, initialized_from


@HOOKS.register_module()
class VerifyPretrainedHook(Hook):
    """Compares a model with the checkpoints that its ``init_cfg`` names, and logs a key report for each.

    mmengine loads ``init_cfg=dict(type='Pretrained', ...)`` without being strict: a wrong prefix or width leaves the model
    at random, with a warning among a page of others. Here this is an error, before the data is read. After the
    initialization, the values are compared with the file's bit by bit, because some backbones draw parameters anew after
    they were loaded. Of a checkpoint named by ``load_from`` the backbone's keys must all be there, and the rest is reported.
    The runtimes in ``configs/_base_`` have this hook, for mmpretrain, mmseg and mmdet alike.

    Raises:
        KeyMismatchError: A checkpoint does not fit its part of the model, or its weights were overwritten.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compare the keys, before the weights are initialized."""
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a run that only tests, of a checkpoint of its own
        model = getattr(runner.model, 'module', runner.model)
        use_safe_loaders()  # which also tell the grid of older checkpoints
        self._found = initialized_from(model)
        for *_, report in self._found:
            print_log(str(report.check()), runner.logger)
        if runner._load_from is not None and not runner._resume:
            check_whole_model(model, runner._load_from, only_backbone=True)

    def before_train(self, runner: Runner) -> None:
        """Compare the values, unless ``load_from`` or a resumed run has put others in their place."""
        if runner._load_from is None and runner.iter == 0:
            for module, _, state, report in self._found:
                report.check_values(module, state)
        self._found = []
