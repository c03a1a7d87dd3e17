"""Routes of a hypergradient through the levels below."""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from mmmlo.utils.errors import SettingError


class LevelGraph:
    """The edges that a hypergradient crosses, from a list of paths.

    A path names the levels through which the upper level's loss is differentiated, the first one being where its loss is
    read: ``'pretrain'`` or ``'finetune>pretrain'``. Where paths meet, their vectors are summed before the next edge, which
    is then crossed once: every edge is linear in its vector.

    Args:
        upper (str): The level that is updated by the hypergradient.
        paths (Sequence[str]): The paths.
        lower (Sequence[str]): The levels below it, the lowest first.

    Attributes:
        seeds (list[str]): Levels whose parameters the upper loss is differentiated by.
        targets (dict[str, list[str]]): Lower level -> all levels next to it on the way up to ``upper``, in crossing order.

    Raises:
        ValueError: If there is no path, a path is written twice, names an unknown level or one level twice, or the paths
            together contain one that is not listed.
    """

    def __init__(self, upper: str, paths: Sequence[str], lower: Sequence[str]) -> None:
        key = f'optim_wrapper.levels.{upper}.paths'
        if isinstance(paths, str) or not paths:
            raise SettingError(f"{key} must be a list of paths such as ['pretrain', 'finetune>pretrain'], got {paths!r}")
        self.upper = upper
        listed: set[tuple[str, ...]] = set()
        for path in paths:
            levels = tuple(name.strip() for name in path.split('>'))
            unknown = [name for name in levels if name not in lower]
            if unknown:
                raise SettingError(
                    f'{key} has the path {path!r}, but {unknown[0]!r} is no level below {upper!r}; '
                    f'those are {list(lower)}'
                )
            if len(set(levels)) < len(levels):
                raise SettingError(f'{key} has the path {path!r}, which passes a level twice')
            if levels in listed:
                raise SettingError(f'{key} lists the path {path!r} twice')
            listed.add(levels)

        self.seeds = list(dict.fromkeys(levels[0] for levels in sorted(listed)))
        targets: dict[str, list[str]] = {}
        for source, target in sorted({pair for levels in listed for pair in zip(levels, (*levels[1:], upper))}):
            targets.setdefault(source, []).append(target)
        try:
            order = list(TopologicalSorter(targets).static_order())  # a level after all those that it leads to
        except CycleError as error:
            raise SettingError(f'{key} makes a circle through {error.args[1][0]!r}') from None
        self.targets = {source: targets[source] for source in reversed(order) if source != upper}

        implied = {path for seed in self.seeds for path in self._walk(seed)}
        if implied != listed:
            extra = '>'.join(sorted(implied - listed)[0])
            raise SettingError(
                f'{key} {list(paths)} together contain the path {extra!r} too: list it or drop one of them'
            )

    @property
    def edges(self) -> list[tuple[str, str]]:
        """list[tuple[str, str]]: (lower level, a level next to it), in crossing order."""
        return [(source, target) for source, targets in self.targets.items() for target in targets]

    def _walk(self, level: str) -> list[tuple[str, ...]]:
        if level == self.upper:
            return [()]
        return [(level, *rest) for target in self.targets[level] for rest in self._walk(target)]
