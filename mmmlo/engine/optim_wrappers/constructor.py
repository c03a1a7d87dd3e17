"""From the config of the levels to a :class:`MultiLevelOptimWrapper`."""

import copy
from collections.abc import Iterable

from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS

from ..hypergradients import HypergradientEstimator, LevelGraph, build_estimator, check_adam
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

            - ``steps`` (int): optimizer steps a cycle. Defaults to 1.
            - ``start`` (int): cycles before an upper level begins. Defaults to 0.
            - ``every`` (int): cycles from one run of an upper level to the next. Defaults to 1.
            - ``paths`` (list[str]): the level moves by its hypergradient along these paths.
            - ``hypergradient`` (dict): the estimator, or lower level -> estimator for the edges that start there. Defaults
              to ``dict(type='mmmlo.ForwardMode')``.
            - ``share_passes`` (bool): for a level with ``paths``, whether a level below whose pass can serve the
              hypergradient too (the features that MLO-MAE's head learns on) keeps its graph for it. Saves a forward pass,
              and holds its activations until then. Defaults to True.
            - ``max_skips`` (int): steps in a row, left out because a loss, gradient or hypergradient was not finite, after
              which the run stops. Defaults to 20. At 0 nothing is left out and no step waits for the device to see that.
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
            raise ValueError(
                f'optim_wrapper.levels has {unknown[0]!r}, but {type(model).__name__} has the levels {list(available)}'
            )
        order = [level for level in available if level in self.levels]
        parameters = self._assign_parameters(model, {level: available[level] for level in order})

        wrappers: dict[str, OptimWrapper] = {}
        graphs: dict[str, LevelGraph] = {}
        estimators: dict[str, dict[str, HypergradientEstimator]] = {}
        defaults = dict(steps=1, start=0, every=1)
        rhythm: dict[str, dict[str, int]] = {name: {} for name in defaults}
        max_skips: dict[str, int] = {}
        share_passes: dict[str, bool] = {}
        for position, level in enumerate(order):
            cfg = self.levels[level]
            for name, counts in rhythm.items():
                counts[level] = cfg.pop(name, defaults[name])
            paths, estimator = cfg.pop('paths', None), cfg.pop('hypergradient', None)
            skips, share = cfg.pop('max_skips', None), cfg.pop('share_passes', None)
            if paths is not None:
                graphs[level] = LevelGraph(level, paths, order[:position])
                estimators[level] = self._build_estimators(level, estimator, graphs[level])
                share_passes[level] = True if share is None else bool(share)
            elif share is not None:
                raise ValueError(
                    f'optim_wrapper.levels.{level}.share_passes does nothing without paths; it belongs to the level that '
                    'moves by a hypergradient'
                )
            elif estimator is not None:
                raise ValueError(
                    f'optim_wrapper.levels.{level}.hypergradient does nothing without paths; add '
                    f"optim_wrapper.levels.{level}.paths, such as ['pretrain', 'finetune>pretrain']"
                )
            max_skips[level] = self._check_max_skips(level, skips)
            # The level's modules under their own names, so that paramwise_cfg.custom_keys match as they would in the model.
            modules = nn.Module()
            for name in available[level]:
                setattr(modules, name, getattr(model, name))
            cfg.setdefault('constructor', 'mmmlo.GroupedOptimWrapperConstructor')
            wrappers[level] = build_optim_wrapper(modules, cfg)
            check_optimizer_not_sharded(level, wrappers[level].optimizer)
        accumulation = {level: wrapper._accumulative_counts for level, wrapper in wrappers.items()}
        cadence = Cadence(rhythm['steps'], accumulation, rhythm['start'], rhythm['every'])
        self._check_batches_are_fresh(cadence, graphs)
        for by_lower in estimators.values():
            for lower, built in by_lower.items():
                if built.precondition == 'adam':
                    check_adam(wrappers[lower].optimizer)
        return MultiLevelOptimWrapper(wrappers, parameters, cadence, graphs, estimators, max_skips, share_passes)

    @staticmethod
    def _build_estimators(level: str, cfg: dict | None, graph: LevelGraph) -> dict[str, HypergradientEstimator]:
        lowers = list(dict.fromkeys(lower for lower, _ in graph.edges))
        cfg = cfg or dict(type='mmmlo.ForwardMode')
        if 'type' in cfg:
            estimator = build_estimator(cfg, f'optim_wrapper.levels.{level}.hypergradient')
            return dict.fromkeys(lowers, estimator)
        if sorted(cfg) != sorted(lowers):
            raise ValueError(
                f'optim_wrapper.levels.{level}.hypergradient must be an estimator, such as '
                f"dict(type='mmmlo.ForwardMode'), or one for each of the levels {lowers}, got the keys {sorted(cfg)}"
            )
        return {
            lower: build_estimator(cfg[lower], f'optim_wrapper.levels.{level}.hypergradient.{lower}')
            for lower in lowers
        }

    @staticmethod
    def _check_max_skips(level: str, skips: int | None) -> int:
        if skips is None:
            return 20
        if not isinstance(skips, int) or skips < 0:
            raise ValueError(f'optim_wrapper.levels.{level}.max_skips must be an integer from 0, got {skips!r}')
        return skips

    @staticmethod
    def _check_batches_are_fresh(cadence: Cadence, graphs: dict[str, LevelGraph]) -> None:
        """A hypergradient through a level uses that level's latest batch, so the level must have run in the same cycle."""
        for upper, graph in graphs.items():
            for lower, _ in graph.edges:
                if not cadence.runs_with(lower, upper):
                    raise ValueError(
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


def _named_parameters(name: str, part: nn.Module | nn.Parameter) -> Iterable[tuple[str, nn.Parameter]]:
    return [(name, part)] if isinstance(part, nn.Parameter) else part.named_parameters(prefix=name)
