"""Training loop that feeds every level its own data."""

import logging
import math
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmlo.datasets import DataError, check_dataset_folder, check_level_splits, read_test_dataset
from mmmlo.registry import LOOPS, MODELS
from mmmlo.utils.errors import SettingError

from ..hooks import DeferredRuntimeInfoHook, LevelParamSchedulerHook
from ..optim_wrappers import MultiLevelOptimWrapper
from ..wrappers import MultiLevelDistributedDataParallel
from .level_schedules import level_schedules
from .loader_settings import with_settings_of
from .resumable_batches import ResumableBatches, build_resumable_loader
from .resumable_train_loop import ResumableTrainLoop

_SEEDS_APART = 10_000


@LOOPS.register_module()
class MultiLevelTrainLoop(ResumableTrainLoop):
    """Epochs over the lowest level's data, with the batches of upper levels drawn when these are due.

    ``train_dataloader`` is the lowest level's ordinary loader, so everything in mmengine that reads it works as usual; the
    other levels' loaders stand in ``dataloaders``. An iteration is one batch of ``train_dataloader``. It resumes exactly, as
    :class:`ResumableTrainLoop` does, in all loaders.

    Args:
        runner (Runner): The runner. Its ``optim_wrapper`` is built here, because the levels' schedules depend on it.
        dataloader (DataLoader | dict): The lowest level's loader: ``train_dataloader``.
        dataloaders (dict): Level -> config of its loader, or the name of a level whose batch it shares. A loader's
            ``batch_size``, ``num_workers``, ``persistent_workers``, ``pin_memory``, ``prefetch_factor``, ``collate_fn``,
            ``sampler`` and ``drop_last`` default to those of ``train_dataloader``. Its seed is the run's plus
            10,000 times the level's position. With a ``data_preprocessor`` its batches are prepared by that one in place of
            the model's.
        max_epochs (int, optional): Epochs over ``train_dataloader``.
        max_iters (int, optional): Batches of ``train_dataloader``, in place of ``max_epochs``.
        **kwargs: ``val_begin``, ``val_interval`` and ``dynamic_intervals`` of mmengine's ``EpochBasedTrainLoop``.

    Attributes:
        level_datasets (dict): Level -> its dataset.

    Raises:
        ValueError: If levels and loaders do not fit, the run's length is missing or given twice, an accumulation does not
            divide it, or the run has no cycle.
        DataError: If a dataset has less than one batch.
        SplitOverlapError: If levels that the model names in ``disjoint_levels`` share images (D_tr and D_val of MLO-MAE), or
            any level reads the test split.
        RuntimeError: If the model is in a wrapper that would train one loss.
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
        self._check_not_empty(self.dataloader, 'train_dataloader')
        self._counts_iters = max_iters is not None
        if max_iters is not None:
            self._max_iters = max_iters
            self._max_epochs = math.ceil(max_iters / len(self.dataloader))

        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if not isinstance(runner.optim_wrapper, MultiLevelOptimWrapper):
            raise SettingError(
                "MultiLevelTrainLoop needs optim_wrapper.constructor='mmmlo.MultiLevelOptimWrapperConstructor', got a "
                f'{type(runner.optim_wrapper).__name__}'
            )
        self.optim_wrapper = runner.optim_wrapper
        self._check_length()
        self._build_loaders(dataloaders or {}, dataloader)
        self.total_steps = self.optim_wrapper.cadence.total_steps(self._max_iters)
        runner.param_schedulers = level_schedules(runner.param_schedulers, self.total_steps, self._max_epochs)
        self._check_scheduler_hook()

    @staticmethod
    def _check_not_empty(loader: DataLoader, key: str) -> None:
        if not len(loader):
            images = len(loader.dataset)  # type: ignore[arg-type]
            raise DataError(
                f'{key} has no batch: its dataset has {images} images, fewer than batch_size {loader.batch_size}, and '
                'drop_last leaves out the rest; use a smaller batch'
            )

    def _check_scheduler_hook(self) -> None:
        for hook in self.runner.hooks if self.runner.param_schedulers else ():
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
        for level, steps in cadence.total_steps(self._max_iters).items():
            if not steps:
                begin = (
                    ''
                    if level == cadence.base
                    else f', and it first runs in cycle {cadence.start[level] + cadence.every[level]}'
                )
                raise SettingError(
                    f'level {level!r} would never move: the run has {self._max_iters} iterations, a cycle takes '
                    f'{cadence.iterations}{begin}'
                )

    def _build_loaders(self, dataloaders: dict[str, dict | str], base_loader: DataLoader | dict) -> None:
        wrapper = self.optim_wrapper
        missing = [level for level in wrapper.levels[1:] if level not in dataloaders]
        if missing:
            raise SettingError(
                f'train_cfg.dataloaders has no {missing[0]!r}; every level above {wrapper.base!r} needs a loader, or the '
                'name of a level whose batch it shares'
            )
        unknown = [level for level in dataloaders if level not in wrapper.levels[1:]]
        if unknown:
            raise SettingError(
                f'train_cfg.dataloaders has {unknown[0]!r}; the levels above {wrapper.base!r} are {wrapper.levels[1:]} '
                f'(the data of {wrapper.base!r} is train_dataloader)'
            )
        self._batches: dict[str, ResumableBatches] = {}
        self._shared: dict[str, str] = {}
        self._preprocessors: dict[str, nn.Module] = {}
        datasets = {wrapper.base: self.dataloader.dataset}
        for position, level in enumerate(wrapper.levels):
            if level == wrapper.base:
                continue
            cfg = dataloaders[level]
            if isinstance(cfg, str):
                self._share(level, cfg)
                continue
            cfg = self._loader_cfg(level, cfg, base_loader)
            if preprocessor := cfg.pop('data_preprocessor', None):
                self._preprocessors[level] = MODELS.build(preprocessor).to(self._device)
            # Samplers add the epoch to their seed, so levels must not be neighbours.
            loader = build_resumable_loader(self.runner, cfg, self.runner.seed + _SEEDS_APART * position)
            key = f'train_cfg.dataloaders.{level}'
            self._check_not_empty(loader, key)
            self._batches[level] = ResumableBatches(loader, key)
            datasets[level] = loader.dataset
        for level, source in self._shared.items():
            datasets[level] = datasets[source]
        self.level_datasets = datasets
        model = getattr(self.runner.model, 'module', self.runner.model)
        # Problems other than masked autoencoders need not say.
        disjoint = getattr(model, 'disjoint_levels', ())
        check_level_splits(datasets, disjoint, test_dataset=read_test_dataset(self.runner))

    @property
    def level_loaders(self) -> dict[str, DataLoader]:
        """dict[str, DataLoader]: Upper level -> its loader; those that share another level's are left out."""
        return {level: batches.loader for level, batches in self._batches.items()}

    def _share(self, level: str, source: str) -> None:
        cadence = self.optim_wrapper.cadence
        earlier = self.optim_wrapper.levels[: self.optim_wrapper.levels.index(level)]
        if source not in earlier or source in self._shared:
            raise SettingError(
                f'train_cfg.dataloaders.{level} is {source!r}, which must be a level before it with a loader of its own: '
                f'{[name for name in earlier if name not in self._shared]}'
            )
        here = cadence.steps[level] * cadence.accumulation[level]
        there = 1 if source == cadence.base else cadence.steps[source] * cadence.accumulation[source]
        if here != there:
            raise SettingError(
                f'train_cfg.dataloaders.{level} shares the batches of {source!r}, of which an iteration has {there}, but '
                f'{level!r} needs {here}: make steps * accumulative_counts equal or give it a loader of its own'
            )
        if not cadence.runs_with(source, level):
            raise SettingError(
                f'train_cfg.dataloaders.{level} shares the batches of {source!r}, which does not run in each cycle in which '
                f'{level!r} does; make their start and every equal or give it a loader of its own'
            )
        self._shared[level] = source

    @staticmethod
    def _loader_cfg(level: str, cfg: dict, base_loader: DataLoader | dict) -> dict:
        if 'dataset' not in cfg:
            raise SettingError(f'train_cfg.dataloaders.{level}.dataset is missing')
        check_dataset_folder(cfg['dataset'], f'train_cfg.dataloaders.{level}.dataset')
        return with_settings_of(base_loader, cfg, more=['drop_last'])

    @property
    def _all_batches(self) -> dict[str, ResumableBatches]:
        return super()._all_batches | {batches.name: batches for batches in self._batches.values()}

    def _resume_without_state(self) -> None:
        super()._resume_without_state()
        for level, batches in self._batches.items():
            batches.go_to(self.optim_wrapper.level(level).gradient_count // len(batches.loader))

    def _begin(self) -> None:
        if isinstance(self.runner.model, MultiLevelDistributedDataParallel):
            # Once more after initialization and checkpoints: from here on the processes' copies stay equal by themselves.
            self.runner.model.broadcast_state()
        self.optim_wrapper.meter.deferred = any(isinstance(hook, DeferredRuntimeInfoHook) for hook in self.runner.hooks)
        self._warn_of_batch_size()
        print_log(self._describe(), 'current')

    @staticmethod
    def _batch_size(loader: DataLoader) -> int | None:
        """Images of a batch on this process; None if a batch sampler of unknown size makes it."""
        return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)

    def _warn_of_batch_size(self) -> None:
        """Learning rates hold for a batch size, which more processes change."""
        hub, images, count = self.runner.message_hub, self._batch_size(self.dataloader), get_world_size()
        if images is None:
            return
        batch = images * count
        before = hub.get_info('batch_size', batch)
        hub.update_info('batch_size', batch)
        what = f'{images} images on each of {count} processes'
        scaling = self.runner.cfg.get('auto_scale_lr') or {}
        base = scaling.get('base_batch_size')
        if base not in (None, batch) and not scaling.get('enable'):
            print_log(
                f'The learning rates are for a batch of {base}, and this run has {batch} ({what}); pass --auto-scale-lr to '
                f'scale them by {batch / base:g}',
                'current',
                logging.WARNING,
            )
        if before != batch:
            print_log(
                f'The resumed run had a batch of {before}, and this one has {batch} ({what}). Learning rates and schedules '
                'are those of the checkpoint, unless --resume-settings config is passed: they go on from its step and may '
                'end before or after the run',
                'current',
                logging.WARNING,
            )

    def _describe(self) -> str:
        """The schedule, as a table."""
        wrapper, cadence = self.optim_wrapper, self.optim_wrapper.cadence
        loaders = {wrapper.base: self.dataloader} | {level: batches.loader for level, batches in self._batches.items()}
        rows: list[tuple[str, ...]] = [('level', 'moves by', 'steps', 'start', 'every', 'batch', 'steps in the run')]
        for level in wrapper.levels:
            loader = loaders[self._shared.get(level, level)]
            images = self._batch_size(loader) or '?'
            batch = f'{images} x {cadence.accumulation[level]} x {get_world_size()}'
            moves = 'its loss'
            if graph := wrapper.level(level).graph:
                names = {lower: type(estimator).__name__ for lower, estimator in wrapper.level(level).estimators.items()}
                edges = ', '.join(f'{lower} > {upper} by {names[lower]}' for lower, upper in graph.edges)
                moves = f'hypergradient: {edges}'
            counts = (cadence.steps[level], cadence.start[level], cadence.every[level])
            rows.append((level, moves, *map(str, counts), batch, str(self.total_steps[level])))
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
        return (
            f'Levels {wrapper.levels}: a cycle takes {cadence.iterations} iterations, the run {self._max_iters}. Steps are '
            f'those of a cycle, start and every count cycles, a batch is images x accumulation x processes.\n{table}'
        )

    def run_iter(self, idx: int, data_batch: dict[str, list[Any]]) -> None:
        """Run the levels that are due.

        Args:
            idx (int): The iteration in its epoch.
            data_batch (dict[str, list]): Level -> its batches, as the loaders gave them.
        """
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self.optim_wrapper.update_levels(self._model, self._preprocess(data_batch))
        runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _preprocess(self, batches: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Prepare each batch once by its level's data preprocessor, else by the model's; levels may share batches."""
        prepared: dict[int, Any] = {}
        for level, of_level in batches.items():
            own = self._preprocessors.get(self._shared.get(level, level))
            preprocessor: Any = own or self._model.data_preprocessor
            for batch in of_level:
                if id(batch) not in prepared:
                    prepared[id(batch)] = preprocessor(batch, True)
        return {level: [prepared[id(batch)] for batch in of_level] for level, of_level in batches.items()}

    def _gather(self, batch: Any) -> dict[str, list[Any]]:
        """Draw the batches of the coming iteration: those of the levels that are due, no more."""
        batches: dict[str, list[Any]] = {}
        for level, count in self.optim_wrapper.due().items():
            if level == self.optim_wrapper.base:
                batches[level] = [batch]
            elif level in self._shared:
                batches[level] = batches[self._shared[level]]
            else:
                batches[level] = self._batches[level].take(count)
        return batches
