"""Nested optimization problems behind mmengine's optimizer wrapper interface."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import nn
from torch.func import functional_call
from torch.profiler import record_function

from mmmlo.registry import OPTIM_WRAPPERS

from ..hypergradients import HypergradientEstimator, LevelGraph, NotDifferentiableError, precondition
from ..non_finite import NonFiniteError, random_state
from ..reduce import GradientReducer, UsageCheck, reduce_mean
from .cadence import Cadence
from .measurements import LevelMeter


class MultiLevelProblem(Protocol):
    """What the wrapper asks of the module that it trains; :class:`mmmlo.models.BaseMaskedAutoencoder` provides it.

    A problem may also have ``fix_level(level, batch)``: what every pass of one hypergradient through ``level`` shares. It
    is handed to ``level_loss`` as ``fixed``; without it, that is None. In ``fixed_by_others`` it may name levels for which
    this reads no parameter of their own. The level's own loss then uses the same, and it is computed once.
    """

    def level_loss(self, level: str, batch: Any, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of a level on a batch; those with 'loss' in their name are summed."""


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


def _norm(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    # One kernel for all tensors, as in PyTorch's own clipping.
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([t for t in tensors if t is not None])))


@OPTIM_WRAPPERS.register_module()
class MultiLevelOptimWrapper(OptimWrapperDict):
    """One optimizer wrapper a level, the cadence of the levels, and hypergradients.

    A level moves either by the gradient of its own loss or, if paths are given for it, by its hypergradient: the gradient
    of its loss through the solutions of the levels below. :meth:`update_levels` runs what is due in an iteration;
    :meth:`apply_gradient` is the one way in which a level moves. It knows no images.

    Over several processes every gradient is averaged, and every vector of a hypergradient before it is used. Levels in
    fp16 have a loss scale each, by mmengine's ``AmpOptimWrapper``; vectors are free of it.

    Where a loss, a gradient or a hypergradient is not finite, the level does not move in that step, which counts as one all
    the same, so that schedules keep their length. To see that, each step of a level waits for the device once, unless
    ``max_skips`` is 0. :class:`mmmlo.engine.NonFiniteGuardHook` names the images.

    A profile by ``torch.profiler`` has the ranges ``level: <level>``, and in them ``edge: from <lower>``, ``reduce`` and
    ``step``; ``tools/benchmarks/profile_cycle.py`` makes a table of one.

    Build it from a config with :class:`MultiLevelOptimWrapperConstructor`.

    Args:
        wrappers (dict[str, OptimWrapper]): Level -> wrapper of its optimizer, the lowest level first.
        parameters (dict[str, dict[str, nn.Parameter]]): Level -> its trainable parameters by their name in the model.
        cadence (Cadence): When each level is due.
        graphs (dict[str, LevelGraph]): The paths of each level that moves by a hypergradient.
        estimators (dict[str, dict[str, HypergradientEstimator]]): For each of those levels, the estimator that crosses the
            edges from each lower level.
        max_skips (dict[str, int], optional): For each level, steps left out in a row after which the run stops; at 0
            nothing is left out, except by a loss scaler. Defaults to 20.
        share_passes (dict[str, bool], optional): For each level that moves by a hypergradient, whether the passes of levels
            below keep their graphs for it where they can. Defaults to True.

    Attributes:
        step_counts (dict[str, int]): Optimizer steps of each level so far; kept in checkpoints.
        gradient_counts (dict[str, int]): Gradients, one a micro-batch, of each level so far; kept in checkpoints. The
            lowest level's is the position in the cycle.
        skip_counts (dict[str, int]): Those of the steps that were left out; kept in checkpoints.
        skips_in_a_row (dict[str, int]): Those of them since the level last moved; kept in checkpoints.
        raises (bool): Whether to stop after ``max_skips``, as nobody else does. Defaults to True.
        random_states (dict[str, dict]): Where the random generators stood when each level last ran.
        meter (LevelMeter): What the levels' updates cost.
    """

    def __init__(
        self,
        wrappers: dict[str, OptimWrapper],
        parameters: dict[str, dict[str, nn.Parameter]],
        cadence: Cadence,
        graphs: dict[str, LevelGraph],
        estimators: dict[str, dict[str, HypergradientEstimator]],
        max_skips: dict[str, int] | None = None,
        share_passes: dict[str, bool] | None = None,
    ) -> None:
        super().__init__(**wrappers)
        self.cadence = cadence
        self.graphs = graphs
        self.estimators = estimators
        self.max_skips = {level: (max_skips or {}).get(level, 20) for level in wrappers}
        self.share_passes = {level: (share_passes or {}).get(level, True) for level in graphs}
        self.step_counts = dict.fromkeys(wrappers, 0)
        self.gradient_counts = dict.fromkeys(wrappers, 0)
        self.skip_counts = dict.fromkeys(wrappers, 0)
        self.skips_in_a_row = dict.fromkeys(wrappers, 0)
        self.raises = True
        self.random_states: dict[str, dict[str, torch.Tensor]] = {}
        # Level -> the batch of its last pass and what was fixed there, with the graph to the levels that are named.
        self._shared: dict[str, tuple[Any, Any]] = {}
        self._finite: dict[str, torch.Tensor] = {}  # of the losses since a level's last step
        self._checks: dict[tuple[str, str], UsageCheck] = {}
        self._parameters = parameters
        self._last_batches: dict[str, Any] = {}
        self._logged: dict[str, list[torch.Tensor]] = {}
        self._clips = {level: self._take_clip(wrapper) for level, wrapper in wrappers.items()}
        self._reducers = {level: GradientReducer(self.level_parameters(level), level) for level in wrappers}
        self._last_gradients: dict[str, dict[str, torch.Tensor | None]] = {
            lower: {}
            for by_lower in estimators.values()
            for lower, estimator in by_lower.items()
            if estimator.precondition == 'adam'
        }
        self.meter = LevelMeter(self.level_parameters(self.base)[0].device)

    @staticmethod
    def _take_clip(wrapper: OptimWrapper) -> tuple[Any, dict] | None:
        """Levels are clipped here: mmengine would read the norm in every step, which waits for the device, and log it over
        that of other levels."""
        kwargs, wrapper.clip_grad_kwargs = wrapper.clip_grad_kwargs, None
        return (wrapper.clip_func, kwargs) if kwargs else None

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

    def update_levels(self, problem: Any, batches: dict[str, Sequence[Any]]) -> dict[str, Any]:
        """Run every level that is due in this iteration.

        Args:
            problem (nn.Module): A module that is a :class:`MultiLevelProblem`.
            batches (dict[str, Sequence]): Level -> as many batches as :meth:`due` says.

        Returns:
            dict[str, Any]: What to log, tensors on their device. ``<level>/<name>``: the losses, the mean over the level's
            batches. ``<level>/grad_norm``: the norm of what its optimizer was given, averaged over processes, before
            clipping. For a level with paths ``<level>/hypergradient_norm``, and ``<level>/vector_norm/<lower>``: the norm
            of the vector that was carried on from each lower level. ``<level>/skips``: steps left out so far, in one
            that adds to them. ``<level>/seconds`` and ``<level>/memory``: see :class:`LevelMeter`.

        Raises:
            ValueError: If the batches are not those that are due.
            NonFiniteError: After ``max_skips`` steps left out in a row.
        """
        due = self.due()
        given = {level: len(level_batches) for level, level_batches in batches.items()}
        if given != due:
            raise ValueError(f'this iteration needs batches {due} (level: number), got {given}')
        self._logged = {}
        costs: dict[str, Any] = {}
        for level in due:
            self.random_states[level] = random_state(self.level_parameters(level)[0].device)
            with self.meter.measure(level) as cost, record_function(f'level: {level}'):
                for position, batch in enumerate(batches[level], start=1):
                    self._last_batches[level] = batch
                    if level in self.graphs:
                        losses = self._hypergradient_update(problem, level, batch)
                    else:
                        recorded = self._recorded(problem, level, due) if position == due[level] else ()
                        losses = self._loss_update(problem, level, batch, recorded)
                    if 'loss' not in losses:  # several terms: their sum is the level's loss
                        losses = losses | dict(loss=_total(level, losses).detach())
                    for name, value in losses.items():
                        self._log(f'{level}/{name}', value)
            costs.update({f'{level}/{name}': value for name, value in cost.items()})
        self._shared.clear()
        return {name: torch.stack(values).mean() for name, values in self._logged.items()} | costs

    def _recorded(self, problem: Any, level: str, due: dict[str, int]) -> Sequence[str]:
        """Levels whose parameters a level's last pass of this iteration records, because a hypergradient can then do without
        a pass of its own: none of them moves in between, and what the pass fixes depends on no parameter that does."""
        if level not in getattr(problem, 'fixed_by_others', ()):
            return ()
        order = self.levels
        for upper, graph in self.graphs.items():
            if due.get(upper) == 1 and level in graph.targets and self.share_passes[upper]:
                between = order[order.index(level) + 1 : order.index(upper)]
                moves = set(between) & set(graph.targets[level])
                if not moves and not self._needs_full_precision(level, self.estimators[upper][level]):
                    return graph.targets[level]
        return ()

    def _needs_full_precision(self, lower: str, estimator: HypergradientEstimator) -> bool:
        # The products of small vectors would vanish in fp16, and there is no loss here that could be scaled for them.
        return estimator.full_precision or isinstance(self[lower], AmpOptimWrapper)

    def _note_loss(self, level: str, loss: torch.Tensor) -> None:
        """Remember, on the device, whether the losses of the coming step are finite."""
        if self.max_skips[level]:
            finite = loss.detach().isfinite()
            self._finite[level] = finite if level not in self._finite else self._finite[level] & finite

    def _log(self, name: str, value: torch.Tensor) -> None:
        self._logged.setdefault(name, []).append(value.detach().mean())

    def apply_gradient(self, level: str, gradients: Sequence[torch.Tensor | None] | None = None) -> bool:
        """Count a gradient and, when enough are accumulated, average, clip and step: the one way in which a level moves.

        Args:
            level (str): The level.
            gradients (Sequence[torch.Tensor | None], optional): For each of the level's parameters its gradient on this
                process, free of loss scale; ``None`` leaves the parameter out of the step. Defaults to None: a backward
                pass has added them, with the level's loss scale and divided by the micro-batches, to ``.grad``.

        Returns:
            bool: Whether the optimizer was due to step, be it that a non-finite gradient was left out.
        """
        accumulation = self.cadence.accumulation[level]
        if gradients is not None:
            scale = self._loss_scale(level)
            for parameter, gradient in zip(self.level_parameters(level), gradients):
                if gradient is not None:
                    gradient = gradient.detach() / accumulation if accumulation > 1 else gradient.detach()
                    gradient = gradient if scale is None else gradient * scale
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.gradient_counts[level] += 1
        if self.gradient_counts[level] % accumulation:
            return False
        with record_function('reduce'):
            self._reducers[level].finish()
        with record_function('step'):
            self._step(level)
        self.step_counts[level] += 1
        return True

    def _step(self, level: str) -> None:
        wrapper = self[level]
        moved = [parameter for parameter in self.level_parameters(level) if parameter.grad is not None]
        if isinstance(wrapper, AmpOptimWrapper):
            wrapper.loss_scaler.unscale_(wrapper.optimizer)
        if moved:
            norm = _norm(parameter.grad for parameter in moved)
            self._log(f'{level}/grad_norm', norm)
            if self.max_skips[level] and self._skip(level, norm) and not isinstance(wrapper, AmpOptimWrapper):
                wrapper.zero_grad()
                return
            if clip := self._clips[level]:
                clip[0](moved, **clip[1])
        if level in self._last_gradients and (not isinstance(wrapper, AmpOptimWrapper) or bool(norm.isfinite())):
            # Those of a step that a loss scaler leaves out are not the last step's.
            self._last_gradients[level] = {name: p.grad for name, p in self._parameters[level].items()}
        # A loss scaler leaves the step out by itself where a gradient is not finite, and lowers its scale.
        wrapper.step()
        wrapper.zero_grad()

    def _skip(self, level: str, norm: torch.Tensor) -> bool:
        """Whether a step is to be left out. Reading this waits for the device, once a step of this level."""
        finite = norm.isfinite()
        noted = self._finite.pop(level, None)
        if noted is not None and not isinstance(self[level], AmpOptimWrapper):  # a scaled loss may overflow
            # A gradient is averaged and so the same on each process; a loss is each one's own.
            finite = finite & (reduce_mean([noted.float()])[0] == 1)
        if bool(finite):
            self.skips_in_a_row[level] = 0
            return False
        self.skip_counts[level] += 1
        self.skips_in_a_row[level] += 1
        self._log(f'{level}/skips', torch.tensor(float(self.skip_counts[level])))
        what = 'hypergradient' if level in self.graphs else 'gradient'
        if self.skip_counts[level] == 1:
            print_log(
                f'A loss or {what} of level {level!r} is not finite, and the step is left out, for the first time in this '
                f'run; {level}/skips counts them, and {self.max_skips[level]} in a row end the run',
                'current',
                logging.WARNING,
            )
        if self.raises and self.skips_in_a_row[level] >= self.max_skips[level]:
            raise NonFiniteError(
                f'losses or {what}s of level {level!r} were not finite in {self.skips_in_a_row[level]} steps in a row (the '
                f'last is step {self.step_counts[level]}), {self.skip_counts[level]} in the whole run; the limit is '
                f'optim_wrapper.levels.{level}.max_skips={self.max_skips[level]}. Lower the learning rates, clip the '
                'gradients of this level and of those below, or train without fp16'
            )
        return True

    def _loss_scale(self, level: str) -> torch.Tensor | None:
        """A level's loss scale, read without waiting for the device."""
        wrapper = self[level]
        if not isinstance(wrapper, AmpOptimWrapper):
            return None
        return wrapper.loss_scaler.scale(torch.ones((), device=self.level_parameters(level)[0].device))

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
            tuple[list[torch.Tensor], dict[str, torch.Tensor]]: The hypergradient on this process, free of loss scale, a
            tensor for each of the level's parameters, not finite where fp16 overflowed; and the level's losses.

        Raises:
            ValueError: If a loss does not depend on a level that the paths pass.
            NotDifferentiableError: If an estimator cannot differentiate a module.
        """
        graph = self.graphs[level]
        with self._differentiate(level, *graph.seeds), self[level].optim_context(problem):
            losses = problem.level_loss(level, batch)
        keys = [(name, key) for name in (level, *graph.seeds) for key in self._parameters[name]]
        scale = self._loss_scale(level)
        total = _total(level, losses)
        if not total.requires_grad:
            raise self._disconnected(level, level, graph.seeds[0])
        gradients = torch.autograd.grad(
            total if scale is None else total * scale, [self._parameters[name][key] for name, key in keys], allow_unused=True
        )
        # Sparse: what the loss does not reach, such as a decoder, is left out of all further passes.
        vectors: dict[str, dict[str, torch.Tensor]] = {name: {} for name in (level, *graph.seeds)}
        for (name, key), gradient in zip(keys, gradients):
            if gradient is not None:
                vectors[name][key] = gradient if scale is None else gradient / scale
        for lower, uppers in graph.targets.items():
            if not vectors.get(lower):
                raise self._disconnected(level, level, lower)
            self._check_keys(level, lower, vectors[lower])
            with record_function('reduce'):
                vector = dict(zip(vectors[lower], reduce_mean(vectors[lower].values())))
            norm = _norm(vector.values())
            self._log(f'{level}/vector_norm/{lower}', norm)
            if scale is not None and not bool(norm.isfinite()):
                # No pass is worth its time: the scaler will leave this step out and lower the scale.
                return [torch.full_like(p, torch.inf) for p in self.level_parameters(level)], losses
            with record_function(f'edge: from {lower}'):
                carried = self._cross_edges(problem, level, lower, uppers, lower_batches[lower], vector)
            for upper, products in carried.items():
                if all(product is None for product in products):
                    raise self._disconnected(level, lower, upper)
                known = vectors.setdefault(upper, {})
                for key, product in zip(self._parameters[upper], products):
                    if product is not None:
                        known[key] = known[key] + product if key in known else product
        found = vectors[level]
        return [
            found[key] if key in found else torch.zeros_like(parameter) for key, parameter in self._parameters[level].items()
        ], losses

    @staticmethod
    def _disconnected(level: str, reader: str, read: str) -> ValueError:
        return ValueError(
            f'the loss of level {reader!r} does not depend on any parameter of {read!r}, through which '
            f'optim_wrapper.levels.{level}.paths leads'
        )

    def _check_keys(self, level: str, lower: str, vector: Mapping[str, torch.Tensor]) -> None:
        """Check that processes agree on what a vector consists of, before they send it to each other."""
        check = self._checks.setdefault((level, lower), UsageCheck(f'{level!r}, carried on from {lower!r}'))
        check(self._parameters[lower].values(), [key in vector for key in self._parameters[lower]])

    def _cross_edges(
        self, problem: Any, level: str, lower: str, uppers: Sequence[str], batch: Any, vector: Mapping[str, torch.Tensor]
    ) -> dict[str, list[torch.Tensor | None]]:
        """Carry a vector, a tensor for each named parameter of one level, to all parameters of levels above it."""
        estimator = self.estimators[level][lower]
        parameters = [self._parameters[lower][name] for name in vector]
        values = list(vector.values())
        if estimator.precondition != 'identity':
            last = self._last_gradients.get(lower)
            gradients = [last.get(name) for name in vector] if last else None
            values = precondition(estimator.precondition, self[lower].optimizer, parameters, values, gradients)
        level_loss = _LevelLoss(problem)
        buffers = {f'problem.{name}': buffer for name, buffer in problem.named_buffers()}
        device = parameters[0].device

        def precision() -> AbstractContextManager:
            if self._needs_full_precision(lower, estimator):
                return torch.autocast(device.type, enabled=False)
            return self[lower].optim_context(problem)

        # One seed for all passes, so that each draws the same dropout and drop path. Drawing it moves the generator on.
        seed = int(torch.randint(2**31, ()))
        fix_level = getattr(problem, 'fix_level', None)
        shared_batch, fixed = self._shared.pop(lower, (None, None))
        with self._differentiate(*uppers):
            if shared_batch is not batch:
                with precision():
                    fixed = fix_level(lower, batch) if fix_level else None

            def loss(given: Sequence[torch.Tensor]) -> torch.Tensor:
                replaced = {f'problem.{name}': value for name, value in zip(vector, given)}
                # Copies: no statistics of a norm are to be those of these passes.
                replaced.update({name: buffer.clone() for name, buffer in buffers.items()})
                with _seeded(seed, device), precision():
                    return _total(lower, functional_call(level_loss, replaced, (lower, batch, fixed)))

            targets = [self.level_parameters(upper) for upper in uppers]
            try:
                products = iter(estimator.product(loss, parameters, sum(targets, []), values, reduce_mean))
            except NotDifferentiableError as error:
                raise error.located_in(problem) from error.cause
        return {upper: [next(products) for _ in target] for upper, target in zip(uppers, targets)}

    def _loss_update(
        self, problem: Any, level: str, batch: Any, recorded: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        accumulation = self.cadence.accumulation[level]
        last = (self.gradient_counts[level] + 1) % accumulation == 0
        with self._differentiate(level, *recorded):
            with self[level].optim_context(problem):
                if recorded:
                    fixed = problem.fix_level(level, batch)
                    self._shared[level] = batch, fixed
                    losses = problem.level_loss(level, batch, fixed)
                else:
                    losses = problem.level_loss(level, batch)
            loss, scale = _total(level, losses) / accumulation, self._loss_scale(level)
            self._note_loss(level, loss)
            if not loss.requires_grad:
                raise ValueError(f'the loss of level {level!r} does not depend on any of its parameters')
            with self._reducers[level].overlapped() if last else nullcontext():
                (loss if scale is None else loss * scale).backward(inputs=self.level_parameters(level))
        self.apply_gradient(level)
        return losses

    def _hypergradient_update(self, problem: Any, level: str, batch: Any) -> dict[str, torch.Tensor]:
        gradients, losses = self.hypergradient(problem, level, batch, self._last_batches)
        self._note_loss(level, _total(level, losses))
        self._log(f'{level}/hypergradient_norm', _norm(gradients))
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
        """State of every level's optimizer, the counters of steps and of the position in the cycle, and the gradients of
        the last steps where a hypergradient needs them."""
        return dict(
            levels=super().state_dict(),
            step_counts=dict(self.step_counts),
            gradient_counts=dict(self.gradient_counts),
            skip_counts=dict(self.skip_counts),
            skips_in_a_row=dict(self.skips_in_a_row),
            last_gradients={level: dict(gradients) for level, gradients in self._last_gradients.items()},
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
        self.skip_counts.update(state_dict.get('skip_counts', {}))
        self.skips_in_a_row.update(state_dict.get('skips_in_a_row', {}))
        for level, gradients in state_dict.get('last_gradients', {}).items():
            if level in self._last_gradients:
                device = self.level_parameters(level)[0].device
                self._last_gradients[level] = {
                    name: value if value is None else value.to(device) for name, value in gradients.items()
                }


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a generator of this seed inside, and leave the global one as it was."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield
