"""From the config of the levels to a :class:`MultiLevelOptimWrapper`."""

import copy

from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

from ..hypergradients import HypergradientEstimator, LevelGraph, build_estimator, check_adam
from ..level import Level, LevelConfig
from ..wrappers import check_model_wrapper
from ..wrappers.sharding import check_not_sharded, check_optimizer_not_sharded
from .cadence import Cadence
from .multi_level_optim_wrapper import MultiLevelOptimWrapper


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MultiLevelOptimWrapperConstructor:
    """Build a :class:`MultiLevelOptimWrapper` for a model that names the modules of its levels.

    Args:
        optim_wrapper_cfg (dict): ``levels``: level -> config of mmengine's ``OptimWrapper`` (``type``, ``optimizer``,
            ``paramwise_cfg``, ``clip_grad``, ``accumulative_counts``, ``constructor``, by default
            :class:`GroupedOptimWrapperConstructor`) plus the fields of :class:`mmmlo.engine.level.LevelConfig`.
        paramwise_cfg (dict, optional): Not for several levels: give it level by level.

    Raises:
        ValueError: If ``paramwise_cfg`` or an unknown key is given.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        cfg = copy.deepcopy(optim_wrapper_cfg)
        self.levels = cfg.pop('levels', None)
        cfg.pop('type', None)
        wrong = ['paramwise_cfg'] if paramwise_cfg is not None else sorted(cfg)
        if wrong:
            raise SettingError(f'optim_wrapper.{wrong[0]} belongs to a level: optim_wrapper.levels.<level>.{wrong[0]}')
        if not self.levels:
            raise SettingError(
                'optim_wrapper.levels is missing: a config for each level, such as '
                "levels=dict(pretrain=dict(optimizer=dict(type='AdamW', lr=1e-4)))"
            )

    def __call__(self, model: nn.Module) -> MultiLevelOptimWrapper:
        """Build the wrapper.

        Args:
            model (nn.Module): A model with ``level_modules``, level -> names of its modules or parameters, or such a model
                in a wrapper.

        Raises:
            ValueError: If levels, modules, paths, estimators or the cadence do not fit.
            NotImplementedError: If the model's parameters are split over processes, or its wrapper would train one loss.
        """
        check_not_sharded(model)
        check_model_wrapper(model)
        model = unwrap(model)
        available: dict[str, tuple[str, ...]] = model.level_modules  # type: ignore[assignment]
        if unknown := [level for level in self.levels if level not in available]:
            raise SettingError(
                f'optim_wrapper.levels has {unknown[0]!r}, but {type(model).__name__} has the levels {list(available)}'
            )
        order = [level for level in available if level in self.levels]
        parameters = _assign_parameters(model, {level: available[level] for level in order})

        configs = {level: LevelConfig.take_from(level, self.levels[level]) for level in order}
        levels: dict[str, Level] = {}
        for name in order:
            own, graph, estimators = configs[name], None, {}
            if own.paths is not None:
                graph = LevelGraph(name, own.paths, list(levels))
                estimators = _build_estimators(name, own.hypergradient or dict(type='mmmlo.ForwardMode'), graph)
            # The level's modules under their own names, so that paramwise_cfg.custom_keys match as they would in the model.
            modules = nn.Module()
            for module in available[name]:
                setattr(modules, module, getattr(model, module))
            cfg = dict(constructor='mmmlo.GroupedOptimWrapperConstructor') | self.levels[name]
            wrapper = build_optim_wrapper(modules, cfg)
            check_optimizer_not_sharded(name, wrapper.optimizer)
            for lower, estimator in estimators.items():
                if estimator.precondition == 'adam':
                    check_adam(levels[lower].wrapper.optimizer)
            levels[name] = Level(name, wrapper, parameters[name], graph, estimators, own.share_passes is not False)
        cadence = Cadence(
            {name: configs[name].steps for name in order},
            {name: level.accumulation for name, level in levels.items()},
            {name: configs[name].start for name in order},
            {name: configs[name].every for name in order},
        )
        for level in levels.values():
            if level.graph:
                _check_batches_are_fresh(cadence, level.graph)
        return MultiLevelOptimWrapper(list(levels.values()), cadence)


def _build_estimators(level: str, cfg: dict, graph: LevelGraph) -> dict[str, HypergradientEstimator]:
    key, lowers = f'optim_wrapper.levels.{level}.hypergradient', list(graph.targets)
    if 'type' in cfg:
        return dict.fromkeys(lowers, build_estimator(cfg, key))
    if sorted(cfg) != sorted(lowers):
        raise SettingError(
            f"{key} must be an estimator, such as dict(type='mmmlo.ForwardMode'), or one for each of the levels {lowers}, "
            f'got the keys {sorted(cfg)}'
        )
    return {lower: build_estimator(cfg[lower], f'{key}.{lower}') for lower in lowers}


def _check_batches_are_fresh(cadence: Cadence, graph: LevelGraph) -> None:
    """A hypergradient through a level uses that level's latest batch, so the level must have run in the same cycle."""
    upper = graph.upper
    for lower in graph.targets:
        if not cadence.runs_with(lower, upper):
            raise SettingError(
                f'optim_wrapper.levels.{upper} runs in cycles in which {lower!r}, which its paths pass, does not: '
                f'start={cadence.start[upper]}, every={cadence.every[upper]} against start={cadence.start[lower]}, '
                f'every={cadence.every[lower]}; let {lower!r} start no later, and its every divide that of {upper!r}'
            )


def _assign_parameters(model: nn.Module, levels: dict[str, tuple]) -> dict[str, dict[str, nn.Parameter]]:
    """Level -> its trainable parameters by name, of which each has one level."""
    owner: dict[int, str] = {}
    parameters: dict[str, dict[str, nn.Parameter]] = {}
    for level, modules in levels.items():
        parameters[level] = {}
        for module in modules:
            part = getattr(model, module)
            own = [(module, part)] if isinstance(part, nn.Parameter) else part.named_parameters(prefix=module)
            for name, parameter in own:
                if not parameter.requires_grad:
                    continue
                if id(parameter) in owner:
                    raise SettingError(
                        f'model.{name} is in two levels, {owner[id(parameter)]!r} and {level!r}; a module belongs to one'
                    )
                owner[id(parameter)] = level
                parameters[level][name] = parameter
        if not parameters[level]:
            raise SettingError(
                f'optim_wrapper.levels.{level} has nothing to train: no parameter of model.'
                f'{", model.".join(modules)} requires a gradient'
            )
    left = [name for name, own in model.named_parameters() if own.requires_grad and id(own) not in owner]
    if left:
        raise SettingError(
            f'{len(left)} trainable parameters are in no level, such as model.{left[0]}; add their level to '
            'optim_wrapper.levels, or leave the module out of the model'
        )
    return parameters
