"""Routes of a hypergradient through the levels below."""

from collections.abc import Sequence

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
        edges (list[tuple[str, str]]): (lower level, a level next to it on the way up to ``upper``), in crossing order.
        targets (dict[str, list[str]]): Lower level -> all levels next to it, in crossing order.

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
        pairs = {pair for levels in listed for pair in zip(levels, (*levels[1:], upper))}
        successors: dict[str, list[str]] = {}
        for source, target in sorted(pairs):
            successors.setdefault(source, []).append(target)
        order = self._topological_order(key, successors)
        self.targets = {source: successors[source] for source in order}
        self.edges = [(source, target) for source in order for target in successors[source]]

        implied = {path for seed in self.seeds for path in self._walk(seed, successors)}
        if implied != listed:
            extra = '>'.join(sorted(implied - listed)[0])
            raise SettingError(
                f'{key} {list(paths)} together contain the path {extra!r} too: list it or drop one of them'
            )

    def _topological_order(self, key: str, successors: dict[str, list[str]]) -> list[str]:
        order: list[str] = []
        visiting: set[str] = set()

        def visit(level: str) -> None:
            if level in visiting:
                raise SettingError(f'{key} makes a circle through {level!r}')
            if level in order or level == self.upper:
                return
            visiting.add(level)
            for target in successors[level]:
                visit(target)
            visiting.remove(level)
            order.insert(0, level)

        for level in sorted(successors):
            visit(level)
        return order

    def _walk(self, level: str, successors: dict[str, list[str]]) -> list[tuple[str, ...]]:
        if level == self.upper:
            return [()]
        return [(level, *rest) for target in successors[level] for rest in self._walk(target, successors)]
