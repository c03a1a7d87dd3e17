"""What the types of a config are, and which fields they take. Nothing is built."""

import difflib
import inspect
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# The Runner imports whatever registers mmengine's own types.
import mmengine.runner  # noqa: F401
from mmengine import registry as root
from mmengine.registry import Registry

__all__ = ['accepted_fields', 'closest', 'find_type', 'why_not_found']

_FRAMEWORKS = ('mmmlo', 'mmengine', 'mmpretrain', 'mmseg', 'mmdet')
_KINDS = [name for name, value in vars(root).items() if isinstance(value, Registry)]


def find_type(name: str, scope: str, kind: str | None = None) -> Any:
    """Find what a ``type`` stands for in mmengine's registry of a kind, such as 'HOOKS', or in any; None if in none."""
    kinds = [kind] if kind else _KINDS
    known = [*_registries(scope, kinds), *(_registries('mmmlo', ()) if name.startswith('mmmlo.') else ())]
    return next(filter(callable, (registry.get(name) for registry in known)), None)


def why_not_found(name: str, scope: str) -> str:
    """Say what would be right in place of a type that nothing has registered: the rest of a sentence about it."""
    package, _, bare = name.rpartition('.')
    if package and '.' not in package and find_spec(package) is None:
        return f'is not registered: there is no package {package!r} here'
    for framework in _FRAMEWORKS:
        if framework not in (package, scope) and bare in _names(framework):
            return f'is not registered in the scope {package or scope!r}; write {framework + "." + bare!r}'
    own_names = [f'mmmlo.{known}' for known in _names('mmmlo')]
    theirs = [f'{package}.{known}' for known in _names(package)] if package else [*_names(scope), *_names('mmengine')]
    guess = closest(name, [*theirs, *own_names], 0.75) or closest(f'mmmlo.{bare}', own_names, 0.85)
    if guess:
        return f'is not registered; did you mean {guess!r}?'
    return "is not registered. A class of your own is registered by an import: custom_imports=dict(imports=['its.module'])"


def accepted_fields(cls: Any) -> tuple[list[str], bool]:
    """Find the fields that a config may give a class or function, and whether these are all.

    Where a constructor has ``**kwargs`` they are its parents' too; where these go elsewhere, there may be others.
    """
    constructors = [cls] if not inspect.isclass(cls) else [vars(c)['__init__'] for c in cls.__mro__ if '__init__' in vars(c)]
    names: list[str] = []
    for constructor in constructors:
        try:
            parameters = list(inspect.signature(constructor).parameters.values())
        except (TypeError, ValueError):  # written in C
            return names, False
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names += [name for name in named if name != 'self']
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            return names, True
    return names, False


def closest(name: str, candidates: Iterable[str], least: float = 0.6) -> str | None:
    """The candidate that a misspelt name most likely means, if one is near enough."""
    return next(iter(difflib.get_close_matches(name, list(candidates), 1, least)), None)


@lru_cache
def _module(scope: str) -> Any:
    """The module that makes a framework's registries; mmengine's if there is none of this name."""
    if find_spec(scope) is None or find_spec(f'{scope}.registry') is None:
        return root
    return import_module(f'{scope}.registry')


def _registries(scope: str, kinds: Iterable[str]) -> list[Registry]:
    """mmengine's registries of some kinds, or their children of the scope, and those that only the scope has."""
    values = [value for value in vars(_module(scope)).values() if isinstance(value, Registry)]
    theirs = [getattr(root, kind).children.get(scope, getattr(root, kind)) for kind in kinds]
    return theirs + [value for value in values if value.parent is None and value.scope == scope != 'mmengine']


@lru_cache
def _names(framework: str) -> frozenset[str]:
    """All names that a framework registers; none if it is not installed or does not work."""
    names: set[str] = set()
    for registry in _registries(framework, _KINDS):
        if registry.scope == framework:
            try:
                registry.import_from_location()
            except Exception:  # mmdet without mmcv's operators; it is only looked at for a suggestion
                continue
            names.update(registry.module_dict)
    return frozenset(names)
