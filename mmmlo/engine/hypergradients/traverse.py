"""A hypergradient along its paths: down to the levels that an upper loss reads, and up again, edge by edge."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.profiler import record_function

from mmmlo.utils.errors import SettingError

from ..reduce import UsageCheck, reduce_mean
from .base import HypergradientEstimator, LossFunction, norm_of
from .gauss_newton import ResidualLoss
from .not_differentiable import NotDifferentiableError
from .paths import LevelGraph

Named = dict[str, torch.Tensor]
"""A vector: tensors by the names of a level's parameters; those that are left out are zero."""


class Hypergradient(NamedTuple):
    """What a :class:`Traversal` found.

    Attributes:
        gradients (list[torch.Tensor]): The hypergradient, a tensor for each of the level's parameters.
        losses (dict[str, torch.Tensor]): The level's losses.
        vector_norms (dict[str, torch.Tensor]): Lower level -> norm of the vector that was carried on from it.
    """

    gradients: list[torch.Tensor]
    losses: dict[str, torch.Tensor]
    vector_norms: dict[str, torch.Tensor]


def total_loss(level: str, losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum the terms of a level's loss: the values with 'loss' in their name."""
    terms = [value.mean() for name, value in losses.items() if 'loss' in name]
    if not terms:
        raise SettingError(f"level_loss('{level}') returned no key with 'loss' in it, only {list(losses)}")
    return sum(terms[1:], terms[0])


@contextmanager
def differentiate(parameters: Mapping[str, Mapping[str, nn.Parameter]], *levels: str) -> Iterator[None]:
    """Record graphs through the parameters of these levels only: nothing is spent on what stands still."""
    for level, own in parameters.items():
        for parameter in own.values():
            parameter.requires_grad_(level in levels)
    try:
        yield
    finally:
        for own in parameters.values():
            for parameter in own.values():
                parameter.requires_grad_(True)


@dataclass
class Traversal:
    """Differentiate an upper level's loss by its parameters, through the solutions of the levels below.

    Vectors are averaged over processes before they are used, and so must be the result: the product of two averages is not
    the average of the products.

    Attributes:
        graph (LevelGraph): The paths.
        estimators (Mapping[str, HypergradientEstimator]): Lower level -> what crosses the edges from there.
        parameters (Mapping[str, Mapping[str, nn.Parameter]]): Level -> its parameters by their name in the problem.
        context (Callable[[str], AbstractContextManager]): Level -> the context of its passes, such as autocast.
        precondition (Callable[[str, Named], list[torch.Tensor]]): Lower level and vector -> the vector times the diagonal
            that its estimator names.
    """

    graph: LevelGraph
    estimators: Mapping[str, HypergradientEstimator]
    parameters: Mapping[str, Mapping[str, nn.Parameter]]
    context: Callable[[str], AbstractContextManager]
    precondition: Callable[[str, Named], list[torch.Tensor]]

    def __post_init__(self) -> None:
        upper = self.graph.upper
        self._checks = {lower: UsageCheck(f'{upper!r}, carried on from {lower!r}') for lower in self.graph.targets}

    def __call__(
        self,
        problem: Any,
        batch: Any,
        lower_batches: Mapping[str, Any],
        scale: torch.Tensor | None = None,
        shared: dict[str, tuple[Any, Any]] | None = None,
    ) -> Hypergradient:
        """Compute the hypergradient.

        Args:
            problem (nn.Module): A module with ``level_loss(level, batch, fixed)``; perhaps ``fix_level(level, batch)``:
                what every pass through a level shares; and perhaps ``level_residuals(level, batch, fixed)``: a tensor whose
                squares sum up to the level's loss.
            batch (Any): The upper level's batch.
            lower_batches (Mapping[str, Any]): A batch of every level that the paths pass.
            scale (torch.Tensor, optional): Loss scale of the upper level's backward pass; the result is free of it.
            shared (dict[str, tuple], optional): Lower level -> the batch of its last pass and what was fixed there, with
                its graph, to be used if the batch is the same; taken out, so that nothing holds the graph.

        Returns:
            Hypergradient: On this process; not finite where fp16 overflowed.

        Raises:
            ValueError: If a loss does not depend on a level that the paths pass.
        """
        upper, seeds = self.graph.upper, self.graph.seeds
        with differentiate(self.parameters, upper, *seeds), self.context(upper):
            losses = problem.level_loss(upper, batch)
        total = total_loss(upper, losses)
        if not total.requires_grad:
            raise self._disconnected(upper, seeds[0])
        keys = [(level, name) for level in (upper, *seeds) for name in self.parameters[level]]
        gradients = torch.autograd.grad(
            total if scale is None else total * scale, [self.parameters[lev][n] for lev, n in keys], allow_unused=True
        )
        # Sparse: what the loss does not reach, such as a decoder, is left out of all further passes.
        vectors: dict[str, Named] = {level: {} for level in (upper, *seeds)}
        for (level, name), gradient in zip(keys, gradients):
            if gradient is not None:
                vectors[level][name] = gradient if scale is None else gradient / scale
        norms: dict[str, torch.Tensor] = {}
        for lower, targets in self.graph.targets.items():
            if not vectors.get(lower):
                raise self._disconnected(upper, lower)
            own = self.parameters[lower]
            # Processes must agree on what a vector consists of, before they send it to each other.
            self._checks[lower](own.values(), [name in vectors[lower] for name in own])
            with record_function('reduce'):
                vector = dict(zip(vectors[lower], reduce_mean(vectors[lower].values())))
            norms[lower] = norm_of(vector.values())
            if scale is not None and not bool(norms[lower].isfinite()):
                # No pass is worth its time: the scaler will leave this step out and lower the scale.
                overflown = [torch.full_like(p, torch.inf) for p in self.parameters[upper].values()]
                return Hypergradient(overflown, losses, norms)
            with record_function(f'edge: from {lower}'):
                pass_before = shared.pop(lower, None) if shared else None
                carried = self.cross(problem, lower, targets, lower_batches[lower], vector, pass_before)
            for target, products in carried.items():
                if all(product is None for product in products):
                    raise self._disconnected(lower, target)
                known = vectors.setdefault(target, {})
                for name, product in zip(self.parameters[target], products):
                    if product is not None:
                        known[name] = known[name] + product if name in known else product
        found = vectors[upper]
        return Hypergradient(
            [found[n] if n in found else torch.zeros_like(p) for n, p in self.parameters[upper].items()], losses, norms
        )

    def cross(
        self,
        problem: Any,
        lower: str,
        targets: Sequence[str],
        batch: Any,
        vector: Named,
        shared: tuple[Any, Any] | None = None,
    ) -> dict[str, list[torch.Tensor | None]]:
        """Carry a vector from a lower level to all parameters of the levels next to it; see :meth:`__call__`."""
        parameters = [self.parameters[lower][name] for name in vector]
        values = self.precondition(lower, vector)
        method = _Method(problem)
        buffers = {f'problem.{name}': buffer for name, buffer in problem.named_buffers()}
        # One seed for all passes, so that each draws the same dropout and drop path. Drawing it moves the generator on.
        seed = int(torch.randint(2**31, ()))
        with differentiate(self.parameters, *targets):
            if shared is not None and shared[0] is batch:
                fixed = shared[1]
            else:
                fix_level = getattr(problem, 'fix_level', None)
                with self.context(lower):
                    fixed = fix_level(lower, batch) if fix_level else None

            def call(name: str, given: Sequence[torch.Tensor]) -> Any:
                replaced = {f'problem.{name}': value for name, value in zip(vector, given)}
                # Copies: no statistics of a norm are to be those of these passes.
                replaced.update({name: buffer.clone() for name, buffer in buffers.items()})
                with _seeded(seed, parameters[0].device), self.context(lower):
                    return functional_call(method, replaced, (name, lower, batch, fixed))

            def total(given: Sequence[torch.Tensor]) -> torch.Tensor:
                return total_loss(lower, call('level_loss', given))

            loss: LossFunction = total
            if hasattr(problem, 'level_residuals'):
                loss = ResidualLoss(total, partial(call, 'level_residuals'))

            wanted = [list(self.parameters[target].values()) for target in targets]
            try:
                # Neither forward mode nor a second backward pass goes through compiled code (mmmlo.CompileHook).
                with torch.compiler.set_stance('force_eager'):
                    products = iter(self.estimators[lower].product(loss, parameters, sum(wanted, []), values, reduce_mean))
            except NotDifferentiableError as error:
                raise error.located_in(problem) from error.cause
        return {target: [next(products) for _ in own] for target, own in zip(targets, wanted)}

    def _disconnected(self, reader: str, read: str) -> ValueError:
        return ValueError(
            f'the loss of level {reader!r} does not depend on any parameter of {read!r}, through which '
            f'optim_wrapper.levels.{self.graph.upper}.paths leads'
        )


class _Method(nn.Module):
    """A problem's methods as a module's forward, so that ``functional_call`` can run them with other parameters."""

    def __init__(self, problem: Any) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, name: str, level: str, batch: Any, fixed: Any = None) -> Any:
        return getattr(self.problem, name)(level, batch, fixed)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a generator of this seed inside, and leave the global one as it was."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield
