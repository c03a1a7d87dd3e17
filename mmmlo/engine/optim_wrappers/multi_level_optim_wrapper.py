"""Nested optimization problems behind mmengine's optimizer wrapper interface."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import nn
from torch.profiler import record_function

from mmmlo.registry import OPTIM_WRAPPERS
from mmmlo.utils.errors import SettingError

from ..hypergradients import LevelGraph
from ..hypergradients.traverse import Hypergradient, Named, Traversal, differentiate, total_loss
from ..level import Level
from ..non_finite import random_state
from .cadence import Cadence
from .measurements import LevelMeter


@OPTIM_WRAPPERS.register_module()
class MultiLevelOptimWrapper(OptimWrapperDict):
    """The levels, when each is due, and their state in checkpoints.

    A level moves either by the gradient of its own loss or, if it has paths, by its hypergradient: the gradient of its loss
    through the solutions of the levels below. :meth:`update_levels` runs what is due in an iteration; a :class:`Level` moves
    by :meth:`Level.apply_gradient` alone. Nothing here knows images.

    Over several processes every gradient is averaged, and every vector of a hypergradient before it is used. Levels in
    fp16 have a loss scale each, by mmengine's ``AmpOptimWrapper``; vectors are free of it. A profile by ``torch.profiler``
    has the ranges ``level: <level>``, and in them ``edge: from <lower>``, ``reduce`` and ``step``.

    Build it from a config with :class:`MultiLevelOptimWrapperConstructor`.

    Args:
        levels (Sequence[Level]): The levels, the lowest first.
        cadence (Cadence): When each is due. The gradients of the lowest level are the position in the cycle.
    """

    def __init__(self, levels: Sequence[Level], cadence: Cadence) -> None:
        super().__init__(**{level.name: level.wrapper for level in levels})
        self._levels = {level.name: level for level in levels}
        self._parameters = {level.name: level.parameters for level in levels}
        self.cadence = cadence
        self.meter = LevelMeter(levels[0].device)
        self._traversals = {level.name: self._traversal(level, level.graph) for level in levels if level.graph}
        # Level -> the batch of its last pass and what was fixed there, with the graph to the levels that are named.
        self._shared: dict[str, tuple[Any, Any]] = {}
        for level in levels:
            for lower, estimator in level.estimators.items():
                self._levels[lower].keeps_gradients |= estimator.precondition == 'adam'

    def _traversal(self, level: Level, graph: LevelGraph) -> Traversal:
        def context(name: str) -> AbstractContextManager:
            if name != level.name and self._needs_full_precision(name, level):
                return torch.autocast(level.device.type, enabled=False)
            return self[name].optim_context(None)

        def preconditioned(lower: str, vector: Named) -> list[torch.Tensor]:
            return self._levels[lower].preconditioned(level.estimators[lower].precondition, vector)

        return Traversal(graph, level.estimators, self._parameters, context, preconditioned)

    def _needs_full_precision(self, lower: str, upper: Level) -> bool:
        # The products of small vectors would vanish in fp16, and there is no loss here that could be scaled for them.
        return upper.estimators[lower].full_precision or self._levels[lower].scaled

    @property
    def levels(self) -> list[str]:
        """list[str]: Names of the levels, the lowest first."""
        return list(self._levels)

    def level(self, name: str) -> Level:
        """Return the level of this name."""
        return self._levels[name]

    @property
    def base(self) -> str:
        """str: The lowest level, whose batches count as iterations."""
        return self.cadence.base

    @property
    def step_counts(self) -> dict[str, int]:
        """dict[str, int]: Optimizer steps of each level so far."""
        return {name: level.step_count for name, level in self._levels.items()}

    def due(self) -> dict[str, int]:
        """Count the micro-batches that each level needs in the coming iteration, in running order."""
        return self.cadence.due(self._levels[self.base].gradient_count)

    def update_levels(self, problem: Any, batches: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Run every level that is due in this iteration.

        Args:
            problem (nn.Module): A module with ``level_loss(level, batch, fixed)``, and perhaps ``fix_level(level, batch)``
                and ``fixed_by_others``; :class:`mmmlo.models.BaseMaskedAutoencoder` is one.
            batches (Mapping[str, Sequence]): Level -> as many batches as :meth:`due` says.

        Returns:
            dict[str, Any]: What to log, tensors on their device: ``<level>/<name>`` -> losses, means over the level's
            batches; ``grad_norm``; for a level with paths ``hypergradient_norm``, ``hypergradient_cosine`` from the second
            one on, and ``vector_norm/<lower>``; and what :class:`LevelMeter` measures.

        Raises:
            ValueError: If the batches are not those that are due.
        """
        due = self.due()
        given = {level: len(level_batches) for level, level_batches in batches.items()}
        if given != due:
            raise SettingError(f'this iteration needs batches {due} (level: number), got {given}')
        logged: dict[str, Any] = {}
        for name in due:
            level = self._levels[name]
            level.random_state = random_state(level.device)
            with self.meter.measure(name) as costs, record_function(f'level: {name}'):
                for position, batch in enumerate(batches[name], start=1):
                    level.batch = batch
                    if level.held:
                        losses = self._look(problem, level)
                    elif level.graph:
                        losses = self._hypergradient_update(problem, level)
                    else:
                        losses = self._loss_update(problem, level, due if position == due[name] else {})
                    # Of several terms the sum is the level's loss.
                    for key, value in (dict(loss=total_loss(name, losses)) | losses).items():
                        level.log(key, value)
            logged |= level.take_log() | {f'{name}/{key}': cost for key, cost in costs.items()}
        self._shared.clear()
        return logged

    def _look(self, problem: Any, level: Level) -> dict[str, torch.Tensor]:
        """The losses of a level that is held."""
        with torch.no_grad(), level.wrapper.optim_context(problem):
            losses = problem.level_loss(level.name, level.batch)
        level.pass_over()
        return losses

    def _loss_update(self, problem: Any, level: Level, due: dict[str, int]) -> dict[str, torch.Tensor]:
        recorded = self._recorded(problem, level, due)
        with differentiate(self._parameters, level.name, *recorded):
            with level.wrapper.optim_context(problem):
                fixed = None
                if recorded:
                    fixed = problem.fix_level(level.name, level.batch)
                    self._shared[level.name] = level.batch, fixed
                losses = problem.level_loss(level.name, level.batch, fixed)
            level.backward(total_loss(level.name, losses))
        return losses

    def _recorded(self, problem: Any, level: Level, due: dict[str, int]) -> Sequence[str]:
        """Levels whose parameters a level's last pass of this iteration records, because a hypergradient can then do without
        a pass of its own: none of them moves in between, and what the pass fixes depends on no parameter that does."""
        if level.name not in getattr(problem, 'fixed_by_others', ()):
            return ()
        order = self.levels
        for upper in self._levels.values():
            if due.get(upper.name) != 1 or not upper.graph or upper.held:
                continue
            if level.name in upper.graph.targets and upper.share_passes:
                targets = upper.graph.targets[level.name]
                between = order[order.index(level.name) + 1 : order.index(upper.name)]
                if not set(between) & set(targets) and not self._needs_full_precision(level.name, upper):
                    return targets
        return ()

    def _hypergradient_update(self, problem: Any, level: Level) -> dict[str, torch.Tensor]:
        lower_batches = {name: below.batch for name, below in self._levels.items()}
        found = self._traversals[level.name](problem, level.batch, lower_batches, level.loss_scale, self._shared)
        for lower, norm in found.vector_norms.items():
            level.log(f'vector_norm/{lower}', norm)
        level.guard.note(total_loss(level.name, found.losses))
        level.log_hypergradient(found.gradients)
        level.apply_gradient(found.gradients)
        return found.losses

    def hypergradient(self, problem: Any, level: str, batch: Any, lower_batches: dict[str, Any]) -> Hypergradient:
        """Compute a level's hypergradient on given batches, and move nothing; see :meth:`Traversal.__call__`."""
        return self._traversals[level](problem, batch, lower_batches, self._levels[level].loss_scale)

    def optim_context(self, model: nn.Module) -> None:
        """Refuse a single loss, with a ValueError: there is one for each level."""
        raise SettingError(
            f"this optim_wrapper has the levels {self.levels} and takes no single loss; set "
            "train_cfg.type='mmmlo.MultiLevelTrainLoop'"
        )

    def state_dict(self) -> dict:
        """Return the state of every level's optimizer, the counters of steps, of gradients (the lowest level's are the
        position in the cycle) and of steps left out, and the last steps' gradients where a hypergradient needs them."""
        levels = self._levels.items()
        skips = {name: level.guard.read() for name, level in levels}
        return dict(
            levels=super().state_dict(),
            step_counts=self.step_counts,
            gradient_counts={name: level.gradient_count for name, level in levels},
            skip_counts={name: count for name, (count, _) in skips.items()},
            skips_in_a_row={name: in_a_row for name, (_, in_a_row) in skips.items()},
            last_gradients={name: dict(level.last_gradients) for name, level in levels if level.keeps_gradients},
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state is of other levels.
        """
        saved = list(state_dict.get('step_counts', state_dict))
        if saved != self.levels:
            raise SettingError(
                f'the checkpoint holds the optimizer state of {saved}, but optim_wrapper.levels are '
                f'{self.levels}; resume with the config that wrote it, or use load_from to start anew'
            )
        super().load_state_dict(state_dict['levels'])
        for name, level in self._levels.items():
            level.step_count = state_dict['step_counts'][name]
            level.gradient_count = state_dict['gradient_counts'][name]
            level.guard.load(state_dict['skip_counts'][name], state_dict['skips_in_a_row'][name])
            if level.keeps_gradients:  # none where the run that was saved did not keep them
                gradients = state_dict['last_gradients'].get(name, {})
                level.last_gradients = {k: None if g is None else g.to(level.device) for k, g in gradients.items()}
