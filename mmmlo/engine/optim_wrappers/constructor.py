"""From the config of the levels to a :class:`MultiLevelOptimWrapper`."""

import copy
from collections.abc import Iterable

from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmlo.utils.errors import SettingError

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
            :class:`GroupedOptimWrapperConstructor`) plus
            the fields of :class:`mmmlo.engine.level.LevelConfig`.
        paramwise_cfg (dict, optional): Not for several levels: give it level by level.

    Raises:
        ValueError: If ``paramwise_cfg`` or an unknown key is given.

    Examples:
        >>> optim_wrapper = dict(
        >>>     constructor='mmmlo.MultiLevelOptimWrapperConstructor',
        >>>     levels=dict(
        >>>         pretrain=dict(optimizer=dict(type='AdamW', lr=1.5e-4), steps=2),
        >>>         finetune=dict(optimizer=dict(type='AdamW', lr=5e-4)),
        >>>         masking=dict(
        >>>             optimizer=dict(type='AdamW', lr=5e-5),
        >>>             paths=['pretrain', 'finetune>pretrain'],
        >>>             hypergradient=dict(type='mmmlo.ForwardMode'))))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        cfg = copy.deepcopy(optim_wrapper_cfg)
        self.levels = cfg.pop('levels', None)
        cfg.pop('type', None)
        if paramwise_cfg is not None or cfg:
            wrong = ['paramwise_cfg'] if paramwise_cfg is not None else sorted(cfg)
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

        Returns:
            MultiLevelOptimWrapper: The wrapper of all levels.

        Raises:
            ValueError: If levels and modules do not fit: an unknown level, a module in two levels, a level without
                trainable parameters, trainable parameters in no level, an unknown path or estimator, a cadence in which a
                hypergradient would meet an old batch.
            NotImplementedError: If the model's parameters are split over processes.
            RuntimeError: If the model is in a wrapper that would train one loss.
        """
        check_not_sharded(model)
        check_model_wrapper(model)
        model = getattr(model, 'module', model)
        available: dict[str, tuple[str, ...]] = model.level_modules  # type: ignore[assignment]
        unknown = [level for level in self.levels if level not in available]
        if unknown:
            raise SettingError(
                f'optim_wrapper.levels has {unknown[0]!r}, but {type(model).__name__} has the levels {list(available)}'
            )
        order = [level for level in available if level in self.levels]
        parameters = self._assign_parameters(model, {level: available[level] for level in order})

        configs = {level: LevelConfig.take_from(level, self.levels[level]) for level in order}
        levels = []
        for position, level in enumerate(order):
            own, graph, estimators = configs[level], None, {}
            if own.paths is not None:
                graph = LevelGraph(level, own.paths, order[:position])
                estimators = self._build_estimators(level, own.hypergradient, graph)
            # The level's modules under their own names, so that paramwise_cfg.custom_keys match as they would in the model.
            modules = nn.Module()
            for name in available[level]:
                setattr(modules, name, getattr(model, name))
            cfg = dict(constructor='mmmlo.GroupedOptimWrapperConstructor') | self.levels[level]
            wrapper = build_optim_wrapper(modules, cfg)
            check_optimizer_not_sharded(level, wrapper.optimizer)
            levels.append(Level(level, wrapper, parameters[level], graph, estimators, own.share_passes is not False))
        cadence = Cadence(
            {level.name: configs[level.name].steps for level in levels},
            {level.name: level.accumulation for level in levels},
            {level.name: configs[level.name].start for level in levels},
            {level.name: configs[level.name].every for level in levels},
        )
        self._check_batches_are_fresh(cadence, [level.graph for level in levels if level.graph])
        optimizers = {level.name: level.wrapper.optimizer for level in levels}
        for built in levels:
            for lower, estimator in built.estimators.items():
                if estimator.precondition == 'adam':
                    check_adam(optimizers[lower])
        return MultiLevelOptimWrapper(levels, cadence)

    @staticmethod
    def _build_estimators(level: str, cfg: dict | None, graph: LevelGraph) -> dict[str, HypergradientEstimator]:
        lowers = list(dict.fromkeys(lower for lower, _ in graph.edges))
        cfg = cfg or dict(type='mmmlo.ForwardMode')
        if 'type' in cfg:
            estimator = build_estimator(cfg, f'optim_wrapper.levels.{level}.hypergradient')
            return dict.fromkeys(lowers, estimator)
        if sorted(cfg) != sorted(lowers):
            raise SettingError(
                f'optim_wrapper.levels.{level}.hypergradient must be an estimator, such as '
                f"dict(type='mmmlo.ForwardMode'), or one for each of the levels {lowers}, got the keys {sorted(cfg)}"
            )
        return {
            lower: build_estimator(cfg[lower], f'optim_wrapper.levels.{level}.hypergradient.{lower}')
            for lower in lowers
        }

    @staticmethod
    def _check_batches_are_fresh(cadence: Cadence, graphs: Iterable[LevelGraph]) -> None:
        """A hypergradient through a level uses that level's latest batch, so the level must have run in the same cycle."""
        for graph in graphs:
            upper = graph.upper
            for lower, _ in graph.edges:
                if not cadence.runs_with(lower, upper):
                    raise SettingError(
                        f'optim_wrapper.levels.{upper} runs in cycles in which {lower!r}, which its paths pass, does not: '
                        f'start={cadence.start[upper]}, every={cadence.every[upper]} against start={cadence.start[lower]}, '
                        f'every={cadence.every[lower]}; let {lower!r} start no later, and its every divide that of {upper!r}'
                    )

    @staticmethod
    def _assign_parameters(model: nn.Module, levels: dict[str, tuple]) -> dict[str, dict[str, nn.Parameter]]:
        owner: dict[int, str] = {}
        parameters: dict[str, dict[str, nn.Parameter]] = {}
        for level, modules in levels.items():
            parameters[level] = {}
            for module in modules:
                for name, parameter in _named_parameters(module, getattr(model, module)):
                    if not parameter.requires_grad:
                        continue
                    if id(parameter) in owner:
                        raise SettingError(
                            f'model.{name} is in two levels, {owner[id(parameter)]!r} and {level!r}; a module '
                            'belongs to one'
                        )
                    owner[id(parameter)] = level
                    parameters[level][name] = parameter
            if not parameters[level]:
                raise SettingError(
                    f'optim_wrapper.levels.{level} has nothing to train: no parameter of model.'
                    f'{", model.".join(modules)} requires a gradient'
                )
        left = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and id(parameter) not in owner
        ]
        if left:
            raise SettingError(
                f'{len(left)} trainable parameters are in no level, such as model.{left[0]}; add their level to '
                'optim_wrapper.levels, or leave the module out of the model'
            )
        return parameters


def _named_parameters(name: str, part: nn.Module | nn.Parameter) -> Iterable[tuple[str, nn.Parameter]]:
    return [(name, part)] if isinstance(part, nn.Parameter) else part.named_parameters(prefix=name)
