"""Training loop that feeds every level its own data."""

import logging
import math
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from mmmlo.datasets import DataError, check_dataset_folder, check_level_splits, read_test_dataset
from mmmlo.registry import LOOPS, MODELS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.markdown import markdown_table

from ..hooks import DeferredRuntimeInfoHook, LevelParamSchedulerHook
from ..optim_wrappers import MultiLevelOptimWrapper
from ..wrappers import MultiLevelDistributedDataParallel
from .level_schedules import level_schedules
from .loader_settings import with_settings_of
from .resumable_batches import ResumableBatches, build_resumable_loader
from .resumable_train_loop import ResumableTrainLoop

_SEEDS_APART = 10_000
# The loader whose batches go along with those of a level.
_LABELLED = 'labelled'


@LOOPS.register_module()
class MultiLevelTrainLoop(ResumableTrainLoop):
    """Epochs over the lowest level's data, with the batches of upper levels drawn when these are due.

    An iteration is one batch of ``train_dataloader``, the lowest level's ordinary loader; the other levels' stand in
    ``dataloaders``. It resumes exactly, as :class:`ResumableTrainLoop` does, in all loaders.

    Args:
        runner (Runner): The runner. Its ``optim_wrapper`` is built here, because the levels' schedules depend on it.
        dataloader (DataLoader | dict): The lowest level's loader: ``train_dataloader``.
        dataloaders (dict): Level -> config of its loader, or the name of a level whose batch it shares. A loader's
            ``batch_size``, ``num_workers``, ``persistent_workers``, ``pin_memory``, ``prefetch_factor``, ``collate_fn``,
            ``sampler`` and ``drop_last`` default to those of ``train_dataloader``. Its seed is the run's plus
            10,000 times the level's position. With a ``data_preprocessor`` its batches are prepared by that one in place of
            the model's. With ``tasks``, task -> such a config, a batch of the level is task -> batch. One more,
            ``labelled``, is no level's: each batch of the lowest level, or of the one that the model names in
            ``labelled_level``, gets one of its batches as ``batch['labelled']``.
        max_epochs (int, optional): Epochs over ``train_dataloader``.
        max_iters (int, optional): Batches of ``train_dataloader``, in place of ``max_epochs``.
        **kwargs: As of :class:`ResumableTrainLoop`.

    Attributes:
        level_datasets (dict): Level -> its dataset.
        level_loaders (dict): Upper level -> its loader; those that share another level's are left out.

    Raises:
        SettingError: If levels, loaders and the run's length do not fit.
        DataError: If a dataset has less than one batch, levels that the model names in ``disjoint_levels`` share images
            (D_tr and D_val of MLO-MAE), or any level reads the test split.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        dataloaders: dict[str, dict | str] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        **kwargs,
    ) -> None:
        if (max_epochs is None) == (max_iters is None):
            raise SettingError('train_cfg needs max_epochs or max_iters, and not both')
        if isinstance(dataloader, dict):
            check_dataset_folder(dataloader['dataset'], 'train_dataloader.dataset')
        super().__init__(runner, dataloader, max_epochs or 1, **kwargs)
        _check_not_empty(self.dataloader, 'train_dataloader')
        if max_iters is not None:
            self._counts_iters = True
            self._max_iters = max_iters
            self._max_epochs = math.ceil(max_iters / len(self.dataloader))

        self.optim_wrapper = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if not isinstance(self.optim_wrapper, MultiLevelOptimWrapper):
            raise SettingError(
                "MultiLevelTrainLoop needs optim_wrapper.constructor='mmmlo.MultiLevelOptimWrapperConstructor', got a "
                f'{type(self.optim_wrapper).__name__}'
            )
        self.total_steps = self.optim_wrapper.cadence.total_steps(self._max_iters)
        self._check_length()
        self._build_loaders(dataloaders or {}, dataloader)
        runner.param_schedulers = level_schedules(runner.param_schedulers, self.total_steps, self._max_epochs)
        for hook in runner.hooks if runner.param_schedulers else ():
            if isinstance(hook, ParamSchedulerHook) and not isinstance(hook, LevelParamSchedulerHook):
                raise SettingError(
                    f'default_hooks.param_scheduler is a {type(hook).__name__}, which moves the schedules of all levels in '
                    "every iteration; set default_hooks.param_scheduler=dict(type='mmmlo.LevelParamSchedulerHook')"
                )

    def _check_length(self) -> None:
        cadence = self.optim_wrapper.cadence
        accumulation = cadence.accumulation[cadence.base]
        if self._max_iters % accumulation:
            raise SettingError(
                f'optim_wrapper.levels.{cadence.base}.accumulative_counts={accumulation} does not divide the '
                f'{self._max_iters} iterations of the run: the last gradient would be lost'
            )
        for level, steps in self.total_steps.items():
            if not steps:
                raise SettingError(
                    f'level {level!r} would never move: the run has {self._max_iters} iterations, a cycle takes '
                    f'{cadence.iterations}, and it first runs in cycle {cadence.start[level] + cadence.every[level]}'
                )

    def _build_loaders(self, dataloaders: dict[str, dict | str], base_loader: DataLoader | dict) -> None:
        wrapper = self.optim_wrapper
        base, *upper = wrapper.levels
        if set(dataloaders) - {_LABELLED} != set(upper):
            raise SettingError(
                f'train_cfg.dataloaders has {list(dataloaders)}, but the levels above {base!r}, whose data is '
                f'train_dataloader, are {upper}: each needs a loader, or the name of a level whose batch it shares; '
                f'beside them there may be {_LABELLED!r}'
            )
        self.level_loaders: dict[str, DataLoader] = {}
        self._batches: dict[str, ResumableBatches] = {}
        self._shared: dict[str, str] = {}
        self._preprocessors: dict[str, nn.Module] = {}
        self._tasks: dict[str, list[str]] = {}  # of a level whose batch is one of each
        self.level_datasets = {base: self.dataloader.dataset}
        for position, level in enumerate([*upper, _LABELLED] if _LABELLED in dataloaders else upper, start=1):
            cfg = dataloaders[level]
            if isinstance(cfg, str):
                self._check_shared(level, cfg)
                self._shared[level] = cfg
                self.level_datasets[level] = self.level_datasets[cfg]
                continue
            # Samplers add the epoch to their seed, so levels must not be neighbours.
            seed = self.runner.seed + _SEEDS_APART * position
            if 'tasks' in cfg:
                self._tasks[level] = list(cfg['tasks'])
                for number, (task, own) in enumerate(cfg['tasks'].items()):
                    self._build_loader(f'{level}.tasks.{task}', own, base_loader, seed + _SEEDS_APART // 100 * number)
                datasets = [self.level_loaders[f'{level}.tasks.{task}'].dataset for task in cfg['tasks']]
                self.level_datasets[level] = ConcatDataset(datasets)
            else:
                self._build_loader(level, cfg, base_loader, seed)
                self.level_datasets[level] = self.level_loaders[level].dataset
        # Problems other than masked autoencoders need not say which levels must not share images, or get labels.
        self._labelled_level = getattr(self._model, 'labelled_level', base)
        disjoint = getattr(self._model, 'disjoint_levels', ())
        check_level_splits(self.level_datasets, disjoint, test_dataset=read_test_dataset(self.runner))

    def _build_loader(self, name: str, cfg: dict, base_loader: DataLoader | dict, seed: int) -> None:
        """Build the loader of a level, or of one of its tasks."""
        key = f'train_cfg.dataloaders.{name}'
        if 'dataset' not in cfg:
            raise SettingError(f'{key}.dataset is missing')
        check_dataset_folder(cfg['dataset'], f'{key}.dataset')
        cfg = with_settings_of(base_loader, cfg, more=['drop_last'])
        if preprocessor := cfg.pop('data_preprocessor', None):
            self._preprocessors[name] = MODELS.build(preprocessor).to(self._device)
        loader = self.level_loaders[name] = build_resumable_loader(self.runner, cfg, seed, key)
        _check_not_empty(loader, key)
        self._batches[name] = ResumableBatches(loader, key)
        self._all_batches.append(self._batches[name])

    def _check_shared(self, level: str, source: str) -> None:
        if level == _LABELLED:
            raise SettingError(f'train_cfg.dataloaders.{level} is {source!r}, but it must have a dataset of its own')
        cadence = self.optim_wrapper.cadence
        own = [cadence.base, *self._tasks, *self._batches]
        if source not in own:
            raise SettingError(
                f'train_cfg.dataloaders.{level} is {source!r}, which must be a level before it with a loader of its own: '
                f'{own}'
            )
        here = cadence.steps[level] * cadence.accumulation[level]
        there = 1 if source == cadence.base else cadence.steps[source] * cadence.accumulation[source]
        if here != there or not cadence.runs_with(source, level):
            raise SettingError(
                f'train_cfg.dataloaders.{level} shares the batches of {source!r}, which draws {there} when it runs, but '
                f'{level!r} needs {here} in each cycle in which it runs: make steps * accumulative_counts, start and every '
                'equal or give it a loader of its own'
            )

    def run(self) -> nn.Module:
        """Launch training."""
        if isinstance(self.runner.model, MultiLevelDistributedDataParallel):
            # Once more after initialization and checkpoints: from here on the processes' copies stay equal by themselves.
            self.runner.model.broadcast_state()
        self.optim_wrapper.meter.deferred = any(isinstance(hook, DeferredRuntimeInfoHook) for hook in self.runner.hooks)
        self._warn_of_batch_size()
        print_log(self._describe(), 'current')
        return super().run()

    def _warn_of_batch_size(self) -> None:
        images, count = _batch_size(self.dataloader), get_world_size()
        scaling = self.runner.cfg.get('auto_scale_lr') or {}
        base = scaling.get('base_batch_size')
        if images is not None and base not in (None, images * count) and not scaling.get('enable'):
            print_log(
                f'The learning rates are for a batch of {base}, and this run has {images * count} ({images} images on each '
                f'of {count} processes); pass --auto-scale-lr to scale them by {images * count / base:g}',
                'current',
                logging.WARNING,
            )

    def _describe(self) -> str:
        """The schedule, as a table."""
        wrapper, cadence = self.optim_wrapper, self.optim_wrapper.cadence
        loaders = {wrapper.base: self.dataloader, **self.level_loaders}
        rows = [('level', 'moves by', 'images', 'steps', 'start', 'every', 'batch', 'steps in the run')]
        for name in wrapper.levels:
            level, moves = wrapper.level(name), 'its loss'
            if level.graph:
                edges = (f'{low} > {up} by {type(level.estimators[low]).__name__}' for low, up in level.graph.edges)
                moves = f'hypergradient: {", ".join(edges)}'
            source = self._shared.get(name, name)
            keys = [f'{source}.tasks.{task}' for task in self._tasks[source]] if source in self._tasks else [source]
            images = ' + '.join(str(_batch_size(loaders[key]) or '?') for key in keys)
            batch = f'{images} x {cadence.accumulation[name]} x {get_world_size()}'
            counts = (cadence.steps[name], cadence.start[name], cadence.every[name])
            count = ' + '.join(str(len(loaders[key].dataset)) for key in keys)  # type: ignore[arg-type]
            rows.append((name, moves, count, *map(str, counts), batch, str(self.total_steps[name])))
        return (
            f'Levels {wrapper.levels}: a cycle takes {cadence.iterations} iterations, the run {self._max_iters}. Steps are '
            'those of a cycle, start and every count cycles, a batch is images x accumulation x processes.\n'
            + markdown_table(rows, left=(0, 1), markup=True)
        )

    def run_iter(self, idx: int, data_batch: dict[str, list[Any]]) -> None:
        """Run the levels that are due, each on its batches as the loaders gave them."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self.optim_wrapper.update_levels(self._model, self._preprocess(data_batch))
        runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _preprocess(self, batches: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Prepare each batch by its level's data preprocessor, else by the model's, and one that levels share once."""
        prepared: dict[str, list[Any]] = {}
        for level, raw in batches.items():
            if level in self._shared:
                prepared[level] = prepared[self._shared[level]]
            elif level in self._tasks:
                prepared[level] = [
                    {task: self._prepare(f'{level}.tasks.{task}', own) for task, own in batch.items()} for batch in raw
                ]
            else:
                prepared[level] = [self._prepare(level, batch) for batch in raw]
        if labelled := prepared.pop(_LABELLED, None):
            level = self._labelled_level
            prepared[level] = [dict(batch, labelled=own) for batch, own in zip(prepared[level], labelled)]
        return prepared

    def _prepare(self, name: str, batch: Any) -> dict:
        preprocessor: Any = self._preprocessors.get(name, self._model.data_preprocessor)
        return preprocessor(batch, True)

    def _gather(self, batch: Any) -> dict[str, list[Any]]:
        """Draw the batches of the coming iteration: those of the levels that are due, no more."""
        batches: dict[str, list[Any]] = {}
        for level, count in self.optim_wrapper.due().items():
            if level == self.optim_wrapper.base:
                batches[level] = [batch]
            elif level in self._shared:
                batches[level] = batches[self._shared[level]]
            elif level in self._tasks:
                drawn = [self._batches[f'{level}.tasks.{task}'].take(count) for task in self._tasks[level]]
                batches[level] = [dict(zip(self._tasks[level], own)) for own in zip(*drawn)]
            else:
                batches[level] = self._batches[level].take(count)
        if _LABELLED in self._batches and self._labelled_level in batches:
            batches[_LABELLED] = self._batches[_LABELLED].take(len(batches[self._labelled_level]))
        return batches


def _check_not_empty(loader: DataLoader, key: str) -> None:
    if not len(loader):
        images = len(loader.dataset)  # type: ignore[arg-type]
        raise DataError(
            f'{key} has no batch: its dataset has {images} images, fewer than batch_size {loader.batch_size}, and '
            f'drop_last leaves out the rest; set {key}.batch_size={images} or less'
        )


def _batch_size(loader: DataLoader) -> int | None:
    """Images of a batch on this process; None if a batch sampler of unknown size makes it."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
