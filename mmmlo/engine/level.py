"""One level: an optimization problem with its parameters, its optimizer and its counters."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.profiler import record_function

from mmmlo.utils.errors import SettingError

from .hypergradients import HypergradientEstimator, LevelGraph, precondition
from .hypergradients.base import norm_of
from .non_finite import FiniteSteps
from .reduce import GradientReducer


@dataclass(frozen=True)
class LevelConfig:
    """What stands in ``optim_wrapper.levels.<level>`` beside the config of the level's ``OptimWrapper``."""

    steps: int = 1  # of the optimizer, a cycle
    start: int = 0  # cycles before an upper level begins
    every: int = 1  # cycles from one run of an upper level to the next
    # The level moves by its hypergradient along these paths, such as 'finetune>pretrain'; None: by its own loss's gradient.
    paths: Sequence[str] | None = None
    # The estimator, or lower level -> estimator for the edges that start there; None: ForwardMode.
    hypergradient: dict | None = None
    # Whether a level below whose pass can serve the hypergradient too (the features that MLO-MAE's head learns on) keeps its
    # graph for it: saves a forward pass, and holds its activations until then. None: yes, for a level with paths.
    share_passes: bool | None = None

    @classmethod
    def take_from(cls, level: str, cfg: dict) -> 'LevelConfig':
        """Take the level's own fields out of its config, which is changed; what is left is its ``OptimWrapper``'s.

        Raises:
            ValueError: If an option would do nothing.
        """
        key = f'optim_wrapper.levels.{level}'
        taken = cls(**{field.name: cfg.pop(field.name) for field in fields(cls) if field.name in cfg})
        for name in ('share_passes', 'hypergradient'):
            if taken.paths is None and getattr(taken, name) is not None:
                right = f"add {key}.paths, such as ['pretrain', 'finetune>pretrain'], or leave it out"
                raise SettingError(f'{key}.{name} does nothing without paths: {right}')
        return taken


class Level:
    """One optimization problem: who moves, by which optimizer, how often it has moved.

    :meth:`apply_gradient` is the one way in which a level moves. A step whose loss or gradient is not finite is left out;
    it counts as one all the same, so that schedules keep their length.

    Args:
        name (str): The level.
        wrapper (OptimWrapper): Wrapper of its optimizer. Its clipping is taken over: mmengine would read the norm in every
            step, which waits for the device, and log it over that of other levels.
        parameters (dict[str, nn.Parameter]): Its trainable parameters by their name in the model.
        graph (LevelGraph, optional): The paths of its hypergradient; None if it moves by its own loss.
        estimators (dict[str, HypergradientEstimator]): Lower level -> what crosses the edges from there.
        share_passes (bool): See :class:`LevelConfig`.

    Attributes:
        step_count (int): Optimizer steps so far.
        gradient_count (int): Gradients, one a micro-batch, so far.
        guard (FiniteSteps): Leaves out steps that are not finite.
        keeps_gradients (bool): Whether ``last_gradients`` are kept, for a hypergradient preconditioned by Adam's step.
        last_gradients (dict[str, torch.Tensor | None]): Gradients of the last step, by the parameters' names.
        held (bool): Whether it only looks at its loss and does not move, see :class:`mmmlo.LevelStartHook`.
        batch (Any): The batch of the last pass.
        random_state (dict): Where the random generators stood before the last update.
        logged (dict[str, list[torch.Tensor]]): What there is to log since the last :meth:`take_log`.
    """

    def __init__(
        self,
        name: str,
        wrapper: OptimWrapper,
        parameters: dict[str, nn.Parameter],
        graph: LevelGraph | None,
        estimators: dict[str, HypergradientEstimator],
        share_passes: bool,
    ) -> None:
        self.name, self.wrapper, self.parameters = name, wrapper, parameters
        self.graph, self.estimators, self.share_passes = graph, estimators, share_passes
        kwargs, wrapper.clip_grad_kwargs = wrapper.clip_grad_kwargs, None
        self._clip = (wrapper.clip_func, kwargs) if kwargs else None
        self._reducer = GradientReducer(list(parameters.values()), name)
        self.device = next(iter(parameters.values())).device
        self.guard = FiniteSteps(self.device)
        self.step_count = self.gradient_count = 0
        self.keeps_gradients = False
        self.last_gradients: dict[str, torch.Tensor | None] = {}
        self.held = False
        self._last_hypergradient: tuple[list[torch.Tensor], torch.Tensor] | None = None  # and its norm
        self.batch: Any = None
        self.random_state: dict[str, Any] = {}
        self.logged: dict[str, list[torch.Tensor]] = {}

    @property
    def accumulation(self) -> int:
        """int: Micro-batches a step."""
        return self.wrapper._accumulative_counts

    @property
    def scaled(self) -> bool:
        """bool: Whether a loss scaler of mmengine's ``AmpOptimWrapper`` scales its losses."""
        return isinstance(self.wrapper, AmpOptimWrapper)

    @property
    def loss_scale(self) -> torch.Tensor | None:
        """torch.Tensor | None: Its loss scale, read without waiting for the device."""
        return self.wrapper.loss_scaler.scale(torch.ones((), device=self.device)) if self.scaled else None

    def log(self, name: str, value: torch.Tensor) -> None:
        """Note something to log, on its device."""
        self.logged.setdefault(f'{self.name}/{name}', []).append(value.detach().mean())

    def take_log(self) -> dict[str, torch.Tensor]:
        """Return the means of what was noted, and forget it."""
        logged, self.logged = self.logged, {}
        return {name: torch.stack(values).mean() for name, values in logged.items()}

    def preconditioned(self, kind: str, vector: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Multiply a vector, by the names of parameters, by the derivative of the last step; see :func:`precondition`."""
        gradients = [self.last_gradients.get(name) for name in vector] if self.last_gradients else None
        parameters = [self.parameters[name] for name in vector]
        return precondition(kind, self.wrapper.optimizer, parameters, list(vector.values()), gradients)

    def pass_over(self) -> None:
        """Count a gradient, and with it perhaps a step, and stay."""
        self.gradient_count += 1
        self.step_count += self.gradient_count % self.accumulation == 0

    def log_hypergradient(self, gradients: Sequence[torch.Tensor]) -> None:
        """Log the norm of a hypergradient, and its cosine to the one before: how much of it is signal and not noise."""
        norm, last = norm_of(gradients), self._last_hypergradient
        self.log('hypergradient_norm', norm)
        self._last_hypergradient = [gradient.detach().clone() for gradient in gradients], norm
        if last is not None:
            product = torch.stack([(a * b).sum() for a, b in zip(gradients, last[0])]).sum()
            self.log('hypergradient_cosine', product / (norm * last[1]))

    def backward(self, loss: torch.Tensor) -> None:
        """Differentiate a micro-batch's loss by the level's parameters, and apply the gradient."""
        loss, scale = loss / self.accumulation, self.loss_scale
        self.guard.note(loss)
        if not loss.requires_grad:
            raise SettingError(f'the loss of level {self.name!r} does not depend on any of its parameters')
        last = (self.gradient_count + 1) % self.accumulation == 0
        with self._reducer.overlapped() if last else nullcontext():
            (loss if scale is None else loss * scale).backward(inputs=list(self.parameters.values()))
        self.apply_gradient()

    def apply_gradient(self, gradients: Sequence[torch.Tensor] | None = None) -> None:
        """Count a gradient and, when enough are accumulated, average, clip and step: the one way in which a level moves.

        Args:
            gradients (Sequence[torch.Tensor], optional): For each of the level's parameters its gradient on this process,
                free of loss scale. Defaults to None: a backward pass has added them, with the level's loss scale and
                divided by the micro-batches, to ``.grad``.
        """
        if gradients is not None:
            scale = self.loss_scale
            for parameter, gradient in zip(self.parameters.values(), gradients):
                gradient = gradient.detach() / self.accumulation if self.accumulation > 1 else gradient.detach()
                gradient = gradient if scale is None else gradient * scale
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.gradient_count += 1
        if self.gradient_count % self.accumulation:
            return
        with record_function('reduce'):
            self._reducer.finish()
        with record_function('step'):
            self._step()
        self.step_count += 1

    def _step(self) -> None:
        wrapper, optimizer = self.wrapper, self.wrapper.optimizer
        moved = [parameter for parameter in self.parameters.values() if parameter.grad is not None]
        if self.scaled:
            wrapper.loss_scaler.unscale_(optimizer)
        norm = norm_of(parameter.grad for parameter in moved)
        self.log('grad_norm', norm)
        left_out = self.guard.before_step(optimizer, norm, self.scaled, self.keeps_gradients)
        if self._clip and not left_out:
            self._clip[0](moved, **self._clip[1])
        if self.keeps_gradients and not left_out and (not self.scaled or bool(norm.isfinite())):
            # Those of a step that is left out are not the last step's.
            self.last_gradients = {name: parameter.grad for name, parameter in self.parameters.items()}
        # A loss scaler leaves the step out by itself where a gradient is not finite, and lowers its scale.
        wrapper.step()
        self.guard.after_step(optimizer)
        wrapper.zero_grad()
