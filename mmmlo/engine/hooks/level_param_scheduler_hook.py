"""Moves each level's schedules with that level's own steps."""

from mmengine.hooks import ParamSchedulerHook

from mmmlo.registry import HOOKS


@HOOKS.register_module()
class LevelParamSchedulerHook(ParamSchedulerHook):
    """In place of mmengine's ``ParamSchedulerHook``, which steps every level's schedules at every iteration.

    An upper level that steps every second iteration would then end its cosine half way. Here a schedule by iterations
    moves when its level has stepped; one by epochs moves at the end of each epoch, as in mmengine. With a single
    optimizer it is mmengine's hook.
    """

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Catch up with the levels that stepped in this iteration."""
        if not isinstance(runner.param_schedulers, dict):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
            return
        for level, schedulers in runner.param_schedulers.items():
            for scheduler in schedulers:
                # A level can step more than once in an iteration, and not at all. `last_step` would not do: it stands still
                # outside of the schedule's begin and end.
                while not scheduler.by_epoch and scheduler._global_step < runner.optim_wrapper.step_counts[level]:
                    scheduler.step()
