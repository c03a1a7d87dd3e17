"""From the config of the levels to a :class:`MultiLevelOptimWrapper`."""

import copy

from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmlo.registry import HYPERGRADIENTS, OPTIM_WRAPPER_CONSTRUCTORS

from ..hypergradients import HypergradientEstimator, LevelGraph
from .multi_level_optim_wrapper import MultiLevelOptimWrapper


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MultiLevelOptimWrapperConstructor:
    """Build a :class:`MultiLevelOptimWrapper` for a model that names the modules of its levels.

    Args:
        optim_wrapper_cfg (dict): ``levels``: level -> config of mmengine's ``OptimWrapper`` (``type``, ``optimizer``,
            ``paramwise_cfg``, ``clip_grad``, ``accumulative_counts``, ``constructor``) plus

            - ``steps`` (int): optimizer steps a cycle. Defaults to 1.
            - ``paths`` (list[str]): the level moves by its hypergradient along these paths.
            - ``hypergradient`` (dict): the estimator. Defaults to ``dict(type='mmmlo.ForwardMode')``.
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
            raise ValueError(f'optim_wrapper.{wrong[0]} belongs to a level: optim_wrapper.levels.<level>.{wrong[0]}')
        if not self.levels:
            raise ValueError(
                'optim_wrapper.levels is missing: a config for each level, such as '
                "levels=dict(pretrain=dict(optimizer=dict(type='AdamW', lr=1e-4)))"
            )

    def __call__(self, model: nn.Module) -> MultiLevelOptimWrapper:
        """Build the wrapper.

        Args:
            model (nn.Module): A model with ``level_modules``, or such a model in a wrapper.

        Returns:
            MultiLevelOptimWrapper: The wrapper of all levels.

        Raises:
            ValueError: If levels and modules do not fit: an unknown level, a module in two levels, a level without
                trainable parameters, trainable parameters in no level, an unknown path or estimator.
        """
        model = getattr(model, 'module', model)
        available: dict[str, tuple[str, ...]] = model.level_modules  # type: ignore[assignment]
        unknown = [level for level in self.levels if level not in available]
        if unknown:
            raise ValueError(
                f'optim_wrapper.levels has {unknown[0]!r}, but {type(model).__name__} has the levels {list(available)}'
            )
        order = [level for level in available if level in self.levels]
        parameters = self._assign_parameters(model, {level: available[level] for level in order})

        wrappers, steps, graphs, estimators = {}, {}, {}, {}
        for position, level in enumerate(order):
            cfg = self.levels[level]
            steps[level] = cfg.pop('steps', 1)
            paths = cfg.pop('paths', None)
            estimator = cfg.pop('hypergradient', None)
            if paths is not None:
                graphs[level] = LevelGraph(level, paths, order[:position])
                estimators[level] = self._build_estimator(level, estimator or dict(type='mmmlo.ForwardMode'))
            elif estimator is not None:
                raise ValueError(
                    f'optim_wrapper.levels.{level}.hypergradient does nothing without paths; add '
                    f"optim_wrapper.levels.{level}.paths, such as ['pretrain', 'finetune>pretrain']"
                )
            # The level's modules under their own names, so that paramwise_cfg.custom_keys match as they would in the model.
            modules = nn.ModuleDict({name: getattr(model, name) for name in available[level]})
            wrappers[level] = build_optim_wrapper(modules, cfg)
        return MultiLevelOptimWrapper(wrappers, parameters, steps, graphs, estimators)

    @staticmethod
    def _build_estimator(level: str, cfg: dict) -> HypergradientEstimator:
        if not isinstance(cfg.get('type'), str) or HYPERGRADIENTS.get(cfg['type']) is None:
            raise ValueError(
                f'optim_wrapper.levels.{level}.hypergradient.type {cfg.get("type")!r} is unknown; estimators '
                f'are {sorted("mmmlo." + name for name in HYPERGRADIENTS.module_dict)}'
            )
        return HYPERGRADIENTS.build(cfg)

    @staticmethod
    def _assign_parameters(model: nn.Module, levels: dict[str, tuple]) -> dict[str, dict[str, nn.Parameter]]:
        owner: dict[int, str] = {}
        parameters: dict[str, dict[str, nn.Parameter]] = {}
        for level, modules in levels.items():
            parameters[level] = {}
            for module in modules:
                for name, parameter in getattr(model, module).named_parameters(prefix=module):
                    if not parameter.requires_grad:
                        continue
                    if id(parameter) in owner:
                        raise ValueError(
                            f'model.{name} is in two levels, {owner[id(parameter)]!r} and {level!r}; a module '
                            'belongs to one'
                        )
                    owner[id(parameter)] = level
                    parameters[level][name] = parameter
            if not parameters[level]:
                raise ValueError(
                    f'optim_wrapper.levels.{level} has nothing to train: no parameter of model.'
                    f'{", model.".join(modules)} requires a gradient'
                )
        left = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and id(parameter) not in owner
        ]
        if left:
            raise ValueError(
                f'{len(left)} trainable parameters are in no level, such as model.{left[0]}; add their level to '
                'optim_wrapper.levels, or leave the module out of the model'
            )
        return parameters
