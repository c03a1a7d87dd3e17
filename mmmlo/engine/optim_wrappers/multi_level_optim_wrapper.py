"""Nested optimization problems behind mmengine's optimizer wrapper interface."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import nn
from torch.func import functional_call

from mmmlo.registry import OPTIM_WRAPPERS

from ..hypergradients import HypergradientEstimator, LevelGraph
from .cadence import Cadence
from .reduce import reduce_mean


class MultiLevelProblem(Protocol):
    """What the wrapper asks of the module that it trains; :class:`mmmlo.models.BaseMaskedAutoencoder` provides it."""

    def level_loss(self, level: str, batch: Any, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of a level on a batch; those with 'loss' in their name are summed."""

    def fix_level(self, level: str, batch: Any) -> Any:
        """What every pass of one hypergradient through ``level`` shares; handed to ``level_loss`` as ``fixed``."""


class _LevelLoss(nn.Module):
    """A level's loss as a module's forward, so that ``functional_call`` can run it with other parameters."""

    problem: Any  # a MultiLevelProblem that is a module too

    def __init__(self, problem: Any) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, level: str, batch: Any, fixed: Any = None) -> dict[str, torch.Tensor]:
        return self.problem.level_loss(level, batch, fixed)


def _total(level: str, losses: dict[str, torch.Tensor]) -> torch.Tensor:
    terms = [value.mean() for name, value in losses.items() if 'loss' in name]
    if not terms:
        raise ValueError(f"level_loss('{level}') returned no key with 'loss' in it, only {list(losses)}")
    return sum(terms[1:], terms[0])


@OPTIM_WRAPPERS.register_module()
class MultiLevelOptimWrapper(OptimWrapperDict):
    """One optimizer wrapper a level, the cadence of the levels, and hypergradients.

    A level moves either by the gradient of its own loss or, if paths are given for it, by its hypergradient: the gradient
    of its loss through the solutions of the levels below. :meth:`update_levels` runs what is due in an iteration;
    :meth:`apply_gradient` is the one way in which a level moves. It knows no images.

    Build it from a config with :class:`MultiLevelOptimWrapperConstructor`.

    Args:
        wrappers (dict[str, OptimWrapper]): Level -> wrapper of its optimizer, the lowest level first.
        parameters (dict[str, dict[str, nn.Parameter]]): Level -> its trainable parameters by their name in the model.
        steps (dict[str, int]): Optimizer steps of each level a cycle.
        graphs (dict[str, LevelGraph]): The paths of each level that moves by a hypergradient.
        estimators (dict[str, HypergradientEstimator]): The estimator of each of those levels.

    Attributes:
        step_counts (dict[str, int]): Optimizer steps of each level so far; kept in checkpoints.
        gradient_counts (dict[str, int]): Gradients, one a micro-batch, of each level so far; kept in checkpoints. The
            lowest level's is the position in the cycle.

    Raises:
        ValueError: If a level uses loss scaling, which would end up in the hypergradients.
    """

    def __init__(
        self,
        wrappers: dict[str, OptimWrapper],
        parameters: dict[str, dict[str, nn.Parameter]],
        steps: dict[str, int],
        graphs: dict[str, LevelGraph],
        estimators: dict[str, HypergradientEstimator],
    ) -> None:
        super().__init__(**wrappers)
        for level, wrapper in wrappers.items():
            if isinstance(wrapper, AmpOptimWrapper):
                raise ValueError(
                    f'optim_wrapper.levels.{level}.type is {type(wrapper).__name__}, whose loss scale is not '
                    "supported in multi-level training; use type='mmmlo.BFloat16OptimWrapper'"
                )
            if wrapper.clip_grad_kwargs:
                # Levels would otherwise log over each other.
                wrapper.grad_name = f'{level}/{wrapper.grad_name}'
        self.cadence = Cadence(steps, {level: wrapper._accumulative_counts for level, wrapper in wrappers.items()})
        self.graphs = graphs
        self.estimators = estimators
        self.step_counts = {level: 0 for level in wrappers}
        self._parameters = parameters
        self.gradient_counts = {level: 0 for level in wrappers}
        self._last_batches: dict[str, Any] = {}

    @property
    def levels(self) -> list[str]:
        """list[str]: Names of the levels, the lowest first."""
        return list(self.optim_wrappers)

    @property
    def base(self) -> str:
        """str: The lowest level, whose batches count as iterations."""
        return self.cadence.base

    def level_parameters(self, level: str) -> list[nn.Parameter]:
        """Trainable parameters of a level."""
        return list(self._parameters[level].values())

    def due(self) -> dict[str, int]:
        """Micro-batches that each level needs in the coming iteration, in running order."""
        return self.cadence.due(self.gradient_counts[self.base])

    def update_levels(self, problem: Any, batches: dict[str, Sequence[Any]]) -> dict[str, torch.Tensor]:
        """Run every level that is due in this iteration.

        Args:
            problem (nn.Module): A module that is a :class:`MultiLevelProblem`.
            batches (dict[str, Sequence]): Level -> as many batches as :meth:`due` says.

        Returns:
            dict[str, torch.Tensor]: ``<level>/<name>`` -> loss, detached, the mean over a level's batches.

        Raises:
            ValueError: If the batches are not those that are due.
        """
        due = self.due()
        given = {level: len(level_batches) for level, level_batches in batches.items()}
        if given != due:
            raise ValueError(f'this iteration needs batches {due} (level: number), got {given}')
        logged: dict[str, list[torch.Tensor]] = {}
        for level in due:
            for batch in batches[level]:
                self._last_batches[level] = batch
                update = self._hypergradient_update if level in self.graphs else self._loss_update
                for name, value in update(problem, level, batch).items():
                    logged.setdefault(f'{level}/{name}', []).append(value.detach().mean())
        return {name: torch.stack(values).mean() for name, values in logged.items()}

    def apply_gradient(self, level: str, gradients: Sequence[torch.Tensor | None]) -> bool:
        """Count a gradient and, when enough are accumulated, average, clip and step: the one way in which a level moves.

        Args:
            level (str): The level.
            gradients (Sequence[torch.Tensor | None]): For each of the level's parameters its unscaled gradient on this
                process; ``None`` leaves the parameter out of the step.

        Returns:
            bool: Whether the optimizer stepped.
        """
        wrapper, parameters = self[level], self.level_parameters(level)
        accumulation = self.cadence.accumulation[level]
        for parameter, gradient in zip(parameters, gradients):
            if gradient is not None:
                gradient = gradient.detach() / accumulation if accumulation > 1 else gradient.detach()
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.gradient_counts[level] += 1
        if self.gradient_counts[level] % accumulation:
            return False
        moved = [parameter for parameter in parameters if parameter.grad is not None]
        averaged = reduce_mean([parameter.grad for parameter in moved if parameter.grad is not None])
        for parameter, gradient in zip(moved, averaged):
            parameter.grad = gradient
        wrapper.step()
        wrapper.zero_grad()
        self.step_counts[level] += 1
        return True

    def hypergradient(
        self, problem: Any, level: str, batch: Any, lower_batches: dict[str, Any]
    ) -> 'tuple[list[torch.Tensor], dict[str, torch.Tensor]]':
        """Gradient of an upper level's loss with respect to its parameters, through the solutions of the levels below.

        Vectors are averaged over processes before they are used and so must be the result: the product of two averages is
        not the average of the products.

        Args:
            problem (nn.Module): A module that is a :class:`MultiLevelProblem`.
            level (str): A level with paths.
            batch (Any): Its batch.
            lower_batches (dict[str, Any]): A batch of every level that the paths pass.

        Returns:
            tuple[list[torch.Tensor], dict[str, torch.Tensor]]: The hypergradient on this process, a tensor for each of the
            level's parameters; and the level's losses.

        Raises:
            ValueError: If the loss does not depend on a level that the paths pass.
        """
        graph = self.graphs[level]
        with self._differentiate(level, *graph.seeds), self[level].optim_context(problem):
            losses = problem.level_loss(level, batch)
        keys = [(name, key) for name in (level, *graph.seeds) for key in self._parameters[name]]
        gradients = torch.autograd.grad(
            _total(level, losses), [self._parameters[name][key] for name, key in keys], allow_unused=True
        )
        # Sparse: what the loss does not reach, such as a decoder, is left out of all further passes.
        vectors: dict[str, dict[str, torch.Tensor]] = {name: {} for name in (level, *graph.seeds)}
        for (name, key), gradient in zip(keys, gradients):
            if gradient is not None:
                vectors[name][key] = gradient
        for lower, upper in graph.edges:
            if not vectors[lower]:
                raise ValueError(
                    f'the loss of level {level!r} does not depend on any parameter of {lower!r}, through which '
                    f'optim_wrapper.levels.{level}.paths leads'
                )
            vector = dict(zip(vectors[lower], reduce_mean(vectors[lower].values())))
            carried = self._cross_edge(problem, lower, upper, lower_batches[lower], vector, self.estimators[level])
            known = vectors.setdefault(upper, {})
            for key, product in zip(self._parameters[upper], carried):
                if product is not None:
                    known[key] = known[key] + product if key in known else product
        found = vectors[level]
        return [
            found[key] if key in found else torch.zeros_like(parameter) for key, parameter in self._parameters[level].items()
        ], losses

    def _cross_edge(
        self,
        problem: Any,
        lower: str,
        upper: str,
        batch: Any,
        vector: Mapping[str, torch.Tensor],
        estimator: HypergradientEstimator,
    ) -> list[torch.Tensor | None]:
        """Carry a vector, a tensor for each named parameter of one level, to all parameters of a level above it."""
        parameters = [self._parameters[lower][name] for name in vector]
        level_loss = _LevelLoss(problem)
        device = parameters[0].device

        def precision() -> AbstractContextManager:
            if estimator.full_precision:
                return torch.autocast(device.type, enabled=False)
            return self[lower].optim_context(problem)

        # One seed for all passes, so that each draws the same dropout and drop path. Drawing it moves the generator on.
        seed = int(torch.randint(2**31, ()))
        with self._differentiate(upper):
            with precision():
                fixed = problem.fix_level(lower, batch)

            def loss(values: Sequence[torch.Tensor]) -> torch.Tensor:
                replaced = {f'problem.{name}': value for name, value in zip(vector, values)}
                with _seeded(seed, device), precision():
                    return _total(lower, functional_call(level_loss, replaced, (lower, batch, fixed)))

            return estimator.product(loss, parameters, self.level_parameters(upper), list(vector.values()))

    def _loss_update(self, problem: Any, level: str, batch: Any) -> dict[str, torch.Tensor]:
        with self._differentiate(level):
            with self[level].optim_context(problem):
                losses = problem.level_loss(level, batch)
            gradients = torch.autograd.grad(_total(level, losses), self.level_parameters(level), allow_unused=True)
        self.apply_gradient(level, gradients)
        return losses

    def _hypergradient_update(self, problem: Any, level: str, batch: Any) -> dict[str, torch.Tensor]:
        gradients, losses = self.hypergradient(problem, level, batch, self._last_batches)
        self.apply_gradient(level, gradients)
        return losses

    @contextmanager
    def _differentiate(self, *levels: str) -> Iterator[None]:
        """Record graphs through the parameters of these levels only: nothing is spent on what stands still."""
        for level, parameters in self._parameters.items():
            for parameter in parameters.values():
                parameter.requires_grad_(level in levels)
        try:
            yield
        finally:
            for parameters in self._parameters.values():
                for parameter in parameters.values():
                    parameter.requires_grad_(True)

    def update_params(self, *args, **kwargs) -> None:
        """Refuse a single loss: there is one for each level.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            'this optim_wrapper has the levels '
            f"{self.levels} and takes no single loss; set train_cfg.type='mmmlo.MultiLevelTrainLoop'"
        )

    def state_dict(self) -> dict:
        """State of every level's optimizer and the counters of steps and of the position in the cycle."""
        return dict(
            levels=super().state_dict(), step_counts=dict(self.step_counts), gradient_counts=dict(self.gradient_counts)
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state is of other levels.
        """
        saved = list(state_dict.get('step_counts', state_dict))
        if saved != self.levels:
            raise ValueError(
                f'the checkpoint holds the optimizer state of {saved}, but optim_wrapper.levels are '
                f'{self.levels}; resume with the config that wrote it, or use load_from to start anew'
            )
        super().load_state_dict(state_dict['levels'])
        self.step_counts = dict(state_dict['step_counts'])
        self.gradient_counts = dict(state_dict['gradient_counts'])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a generator of this seed inside, and leave the global one as it was."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield
