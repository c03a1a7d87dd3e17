"""When each level is due."""


class Cadence:
    """The rhythm of the levels: a cycle is so many steps of the lowest level, then so many of each upper one.

    An iteration is one micro-batch of the lowest level. The upper levels run inside the iteration that completes the
    lowest level's steps of a cycle; cycles run on across the ends of epochs.

    Args:
        steps (dict[str, int]): Optimizer steps a cycle, level by level, the lowest level first.
        accumulation (dict[str, int]): Micro-batches an optimizer step, level by level.

    Raises:
        ValueError: If a number is not a positive integer.
    """

    def __init__(self, steps: dict[str, int], accumulation: dict[str, int]) -> None:
        for level, count in steps.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(f'optim_wrapper.levels.{level}.steps must be a positive integer, got {count!r}')
        self.steps = dict(steps)
        self.accumulation = dict(accumulation)
        self.base, *self.upper = steps

    def due(self, iteration: int) -> dict[str, int]:
        """Micro-batches that each level needs in an iteration.

        Args:
            iteration (int): Micro-batches of the lowest level so far.

        Returns:
            dict[str, int]: Level -> micro-batches, for the levels that run, in running order.
        """
        due = {self.base: 1}
        if (iteration + 1) % (self.steps[self.base] * self.accumulation[self.base]) == 0:
            due.update({level: self.steps[level] * self.accumulation[level] for level in self.upper})
        return due

    def total_steps(self, iterations: int) -> dict[str, int]:
        """Optimizer steps of each level in a run of so many iterations."""
        base_steps = iterations // self.accumulation[self.base]
        cycles = base_steps // self.steps[self.base]
        return {self.base: base_steps, **{level: cycles * self.steps[level] for level in self.upper}}
