"""Registries of mmmlo: children of mmengine's root registries, scope ``mmmlo``.

In a config, a type of this project is written with its scope, ``mmmlo.MLOMAE``, whatever the config's
``default_scope``. mmengine then imports this module by itself, and each registry imports the modules in its
``locations`` the first time that something is looked up in it, so no ``custom_imports`` are needed.
"""

from mmengine import registry as root
from mmengine.registry import Registry

from mmmlo import compat

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'EVALUATORS', 'FUNCTIONS', 'HOOKS', 'HYPERGRADIENTS', 'LOOPS', 'METRICS', 'MODELS',
    'MODEL_WRAPPERS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'TRANSFORMS', 'VISBACKENDS',
    'VISUALIZERS'
]

compat.apply()

_SCOPE = 'mmmlo'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope=_SCOPE, locations=list(locations))


MODELS = _child('model', root.MODELS, 'mmmlo.models')
MODEL_WRAPPERS = _child('model wrapper', root.MODEL_WRAPPERS, 'mmmlo.engine')
HOOKS = _child('hook', root.HOOKS, 'mmmlo.engine', 'mmmlo.preflight', 'mmmlo.visualization')
LOOPS = _child('loop', root.LOOPS, 'mmmlo.engine')
OPTIM_WRAPPERS = _child('optim wrapper', root.OPTIM_WRAPPERS, 'mmmlo.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optim wrapper constructor', root.OPTIM_WRAPPER_CONSTRUCTORS, 'mmmlo.engine')
DATASETS = _child('dataset', root.DATASETS, 'mmmlo.datasets')
DATA_SAMPLERS = _child('data sampler', root.DATA_SAMPLERS, 'mmmlo.datasets')
FUNCTIONS = _child('function', root.FUNCTIONS, 'mmmlo.datasets')
TRANSFORMS = _child('transform', root.TRANSFORMS, 'mmmlo.datasets')
METRICS = _child('metric', root.METRICS, 'mmmlo.evaluation')
EVALUATORS = _child('evaluator', root.EVALUATOR, 'mmmlo.evaluation')
VISUALIZERS = _child('visualizer', root.VISUALIZERS, 'mmmlo.visualization')
VISBACKENDS = _child('visualizer backend', root.VISBACKENDS, 'mmmlo.visualization')

# Hypergradient estimators have no counterpart in mmengine, so this registry is a root of its own.
HYPERGRADIENTS = Registry('hypergradient', scope=_SCOPE, locations=['mmmlo.engine'])
