"""What the types of a config are, and which fields they take. Nothing is built."""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# The Runner imports whatever registers mmengine's own types.
import mmengine.runner  # noqa: F401
from mmengine import registry as root
from mmengine.registry import Registry

from mmmlo import registry as own

__all__ = ['accepted_fields', 'closest', 'find_type', 'kind_of', 'why_not_found']

_FRAMEWORKS = ('mmmlo', 'mmengine', 'mmpretrain', 'mmseg', 'mmdet')
_KINDS = [name for name, value in vars(root).items() if isinstance(value, Registry)]


def find_type(name: str, scope: str, kinds: Iterable[str] = ()) -> Any:
    """Find what a ``type`` stands for, as a Runner with this scope would.

    Args:
        name (str): The type, with a scope of its own or without.
        scope (str): The config's ``default_scope``.
        kinds (Iterable[str]): Names of mmengine's registries to ask first, such as 'HOOKS'; then come all others.

    Returns:
        Any: The class or function; None if nothing has registered it.
    """
    kinds = [*(kind for kind in kinds if kind in _KINDS), *_KINDS]
    registries = [_registry(kind, scope) for kind in kinds] + _rootless(scope)
    if name.startswith('mmmlo.'):
        registries += _rootless('mmmlo')
    return next(filter(callable, (registry.get(name) for registry in registries)), None)


def kind_of(found: Any) -> list[str]:
    """The registries that hold a class, by their names in mmengine."""
    kinds = [kind for kind in _KINDS if any(found in r.module_dict.values() for r in _with_children(getattr(root, kind)))]
    return [*kinds, *(['HYPERGRADIENTS'] if found in own.HYPERGRADIENTS.module_dict.values() else [])]


def why_not_found(name: str, scope: str) -> str:
    """Say what would be right in place of a type that nothing has registered: the rest of a sentence about it."""
    package, _, bare = name.rpartition('.')
    if package and '.' not in package and find_spec(package) is None:
        return f'is not registered: there is no package {package!r} here'
    for framework in _FRAMEWORKS:
        if framework not in (package, scope) and bare in _names(framework):
            return f'is not registered in the scope {package or scope!r}; write {framework + "." + bare!r}'
    home = package or scope
    own_names = [f'mmmlo.{known}' for known in _names('mmmlo')]
    candidates = [f'{home}.{known}' for known in _names(home)] if package else [*_names(home), *_names('mmengine')]
    guess = closest(name, [*candidates, *own_names], 0.75) or closest(f'mmmlo.{bare}', own_names, 0.85)
    if guess:
        return f'is not registered; did you mean {guess!r}?'
    return "is not registered. A class of your own is registered by an import: custom_imports=dict(imports=['its.module'])"


def accepted_fields(cls: Any) -> tuple[list[str], bool]:
    """Find the fields that a config may give a class or function, its parents' too where a constructor has ``**kwargs``.

    Returns:
        tuple[list[str], bool]: Their names, and whether these are all: not so where ``**kwargs`` go elsewhere.
    """
    constructors = [cls] if not inspect.isclass(cls) else [vars(c)['__init__'] for c in cls.__mro__ if '__init__' in vars(c)]
    names: list[str] = []
    for constructor in constructors:
        try:
            parameters = list(inspect.signature(constructor).parameters.values())
        except (TypeError, ValueError):  # written in C
            return names, False
        if inspect.isclass(cls):
            parameters = parameters[1:]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            return names, True
    return names, False


def closest(name: str, candidates: Iterable[str], least: float = 0.6) -> str | None:
    """The candidate that a misspelt name most likely means, if one is near enough."""
    return next(iter(difflib.get_close_matches(name, list(candidates), 1, least)), None)


@lru_cache
def _registry_module(scope: str) -> ModuleType | None:
    """The module that makes a framework's registries; None if there is none of this name."""
    if find_spec(scope) is None or find_spec(f'{scope}.registry') is None:
        return None
    return import_module(f'{scope}.registry')


def _registry(kind: str, scope: str) -> Registry:
    """mmengine's registry of a kind, or its child of the scope."""
    _registry_module(scope)
    registry = getattr(root, kind)
    return registry.children.get(scope, registry)


def _rootless(scope: str) -> list[Registry]:
    """A framework's registries that have no counterpart in mmengine, as mmpretrain's of batch augmentations."""
    values = vars(_registry_module(scope) or root).values()
    return [value for value in values if isinstance(value, Registry) and value.parent is None and value.scope == scope]


def _with_children(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _with_children(child)


def _names(framework: str) -> set[str]:
    """All names that a framework registers; none if it is not installed or does not work."""
    if _registry_module(framework) is None:
        return set()
    names: set[str] = set()
    for registry in [*(_registry(kind, framework) for kind in _KINDS), *_rootless(framework)]:
        if registry.scope == framework:
            try:
                registry.import_from_location()
            except Exception:  # mmdet without mmcv's operators; it is only looked at for a suggestion
                continue
            names.update(registry.module_dict)
    return names
