"""Several downstream tasks at once, each on images of its own."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class TaskMix(nn.Module):
    """The weighted sum of the losses of several downstream tasks.

    Each level of the tasks has a loader for each, ``train_cfg.dataloaders.<level>.tasks.<task>``, with a data preprocessor
    of its own where the task needs one. A batch of the level is one of each.

    Args:
        tasks (dict[str, dict]): Name -> downstream module, as :class:`TokenClsHead` or :class:`SegmentationTask`.
        weights (dict[str, float], optional): Weights of their losses; 1 where none is given.

    Raises:
        SettingError: A weight is for no task, or not positive, or a task is solved in closed form.
    """

    def __init__(self, tasks: dict[str, dict], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({name: MODELS.build(task) for name, task in tasks.items()})
        self.weights = {name: 1.0 for name in tasks} | (weights or {})
        wrong = {name: weight for name, weight in self.weights.items() if name not in tasks or weight <= 0}
        if wrong:
            raise SettingError(f'model.downstream.weights must be positive numbers for some of {[*tasks]}, got {wrong}')
        for name, task in self.tasks.items():
            if getattr(task, 'closed_form', False):
                raise SettingError(
                    f'model.downstream.tasks.{name} is a {type(task).__name__}, which a mix cannot solve: use it alone'
                )

    def loss(self, features: dict[str, Any], data_samples: dict[str, list]) -> dict[str, torch.Tensor]:
        """Compute the weighted losses of all tasks, as ``<task>_<loss>``.

        Args:
            features (dict[str, Any]): Task -> what its module reads.
            data_samples (dict[str, list]): Task -> its samples.

        Returns:
            dict[str, torch.Tensor]: Losses, weighted, and what else the tasks tell, as it is.
        """
        found = {}
        task: Any
        for name, task in self.tasks.items():
            for key, value in task.loss(features[name], data_samples[name]).items():
                found[f'{name}_{key}'] = self.weights[name] * value if 'loss' in key else value
        return found
