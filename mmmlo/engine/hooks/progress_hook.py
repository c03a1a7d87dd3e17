"""Says how far a run is while nothing else does."""

from typing import Any

from mmengine.hooks import Hook

from mmmlo.registry import HOOKS
from mmmlo.utils.progress import progress


@HOOKS.register_module()
class ProgressHook(Hook):
    """Writes a line every 30 seconds: iterations of all, a second, and the time that is left.

    mmengine's ``LoggerHook`` counts iterations, which may take minutes each. Of a validation or a test it says no more.
    :func:`mmmlo.launch.config.build_runner` registers it.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        """Begin to count, from where a resumed run goes on."""
        self._train = progress('training', start=runner.iter, bar=False)

    def before_val_epoch(self, runner) -> None:
        """Begin to count."""
        self._val = progress('validation', bar=False)

    def before_test_epoch(self, runner) -> None:
        """Begin to count."""
        self._test = progress('test', bar=False)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Say how far the run is."""
        self._train(runner.iter + 1, runner.max_iters)

    def after_val_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Say how far the validation is."""
        self._val(batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Say how far the test is."""
        self._test(batch_idx + 1, len(runner.test_dataloader))
