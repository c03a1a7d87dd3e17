"""When each level is due."""

from collections.abc import Mapping

from mmmlo.utils.errors import SettingError


class Cadence:
    """The rhythm of the levels: a cycle is so many steps of the lowest level, then so many of each upper one.

    An iteration is one micro-batch of the lowest level. The upper levels run inside the iteration that completes the
    lowest level's steps of a cycle; cycles run on across the ends of epochs. An upper level may sit out the first ``start``
    cycles, and run in every ``every``-th cycle only.

    Args:
        steps (Mapping[str, int]): Optimizer steps a cycle, level by level, the lowest level first.
        accumulation (Mapping[str, int]): Micro-batches an optimizer step, level by level.
        start (Mapping[str, int], optional): Cycles before a level begins, 0 for those left out.
        every (Mapping[str, int], optional): Cycles from one run of a level to the next, 1 for those left out.

    Raises:
        ValueError: If a number is not a whole number in its range, or the lowest level, which sets the rhythm, has a
            ``start`` or an ``every``.
    """

    def __init__(
        self,
        steps: Mapping[str, int],
        accumulation: Mapping[str, int],
        start: Mapping[str, int] | None = None,
        every: Mapping[str, int] | None = None,
    ) -> None:
        self.steps, self.accumulation = dict(steps), dict(accumulation)
        self.base, *self.upper = steps
        self.start = {**dict.fromkeys(steps, 0), **(start or {})}
        self.every = {**dict.fromkeys(steps, 1), **(every or {})}
        for name, counts, least in (('steps', self.steps, 1), ('start', self.start, 0), ('every', self.every, 1)):
            for level, count in counts.items():
                if not isinstance(count, int) or count < least:
                    kind = 'a positive integer' if least else 'an integer from 0'
                    raise SettingError(f'optim_wrapper.levels.{level}.{name} must be {kind}, got {count!r}')
            if name != 'steps' and counts[self.base] != least:
                raise SettingError(
                    f'optim_wrapper.levels.{self.base}.{name} is {counts[self.base]}, but the lowest level runs in every '
                    f'cycle; {name} belongs to a level above it'
                )

    @property
    def iterations(self) -> int:
        """int: Iterations a cycle."""
        return self.steps[self.base] * self.accumulation[self.base]

    def runs_with(self, level: str, upper: str) -> bool:
        """Whether a level runs in each cycle in which a level above it does."""
        offset = self.start[upper] + self.every[upper] - self.start[level] - self.every[level]
        return offset >= 0 and offset % self.every[level] == 0 and self.every[upper] % self.every[level] == 0

    def due(self, iteration: int) -> dict[str, int]:
        """Micro-batches that each level needs after so many of the lowest one: of those that run, in running order."""
        due = {self.base: 1}
        cycles, rest = divmod(iteration + 1, self.iterations)
        if rest == 0:
            for level in self.upper:
                since = cycles - self.start[level]
                if since > 0 and since % self.every[level] == 0:
                    due[level] = self.steps[level] * self.accumulation[level]
        return due

    def total_steps(self, iterations: int) -> dict[str, int]:
        """Optimizer steps of each level in a run of so many iterations."""
        cycles = iterations // self.iterations
        steps = {level: max(cycles - self.start[level], 0) // self.every[level] * self.steps[level] for level in self.upper}
        return {self.base: iterations // self.accumulation[self.base]} | steps
