"""Moves the teachers of maskers."""

from typing import Any

from mmengine.hooks import Hook

from mmmlo.models.maskers import TeacherMasker
from mmmlo.registry import HOOKS
from mmmlo.utils.modules import unwrap


@HOOKS.register_module()
class TeacherHook(Hook):
    """Moves the teacher of a :class:`mmmlo.models.TeacherMasker` towards the model after each iteration.

    A run begins with a teacher equal to the model. It is in the model's checkpoints, so a resumed run has it as it was.
    """

    # Before all that look at masks or save.
    priority = 'ABOVE_NORMAL'

    def before_train(self, runner) -> None:
        """Begin with a teacher equal to the model, unless the run is resumed."""
        for masker in _teachers(runner):
            masker.moves = True
            if not runner.iter:
                masker.move(unwrap(runner.model), momentum=1.0)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Move the teacher."""
        for masker in _teachers(runner):
            masker.move(unwrap(runner.model))


def _teachers(runner: Any) -> list[TeacherMasker]:
    return [module for module in unwrap(runner.model).masker.modules() if isinstance(module, TeacherMasker)]
