"""What the command-line tools do to a config, and the runner that is built from it."""

import difflib
import logging
import os.path as osp
import re
from glob import escape, glob
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmlo import compat
from mmmlo.engine import ProgressHook
from mmmlo.engine.wrappers.sharding import SHARDING_IS_NOT_SUPPORTED
from mmmlo.utils.checkpoints import read_checkpoint, use_safe_loaders
from mmmlo.utils.config import dataloaders, is_multi_level, resolve_channels
from mmmlo.utils.errors import MissingFileError, MmmloError, SettingError, UnsupportedError
from mmmlo.utils.text import describe_error

# How the messages begin that are for the log file only: environment, config, hooks, settings of single parameters.
_FOR_FILE = ('\n' + 60 * '-', 'Config:\n', 'Hooks will be executed', 'paramwise_options -- ')


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config file, apply ``--cfg-options``, the channels of images and the fixes that the dependency stack needs.

    From here on mmengine reads checkpoints by this project's loaders, which run no code out of a file.

    Args:
        path (str): The config file, or the name of an installed one, as in ``mmmlo::mae/NAME.py``.
        options (dict, optional): Dotted keys and their values.

    Raises:
        MissingFileError: There is no such file.
        SettingError: It is no config, or the options do not fit it.
    """
    compat.apply()
    use_safe_loaders()
    try:
        file = Config._get_cfg_path(path, '')[0] if '::' in path else path
        if not osp.isfile(file):
            what = 'is a folder, not a config file' if osp.isdir(file) else 'does not exist'
            raise MissingFileError(f'config {path} {what}{_similar_configs(path)}')
        cfg = compat.fix_config(Config.fromfile(file))
        if options:
            cfg.merge_from_dict(options)
    except MmmloError:
        raise
    except Exception as error:  # a config is Python
        if 'custom modules' in str(error):  # what mmengine says is all of sys.path
            raise SettingError(
                f'{path}: custom_imports: {error.__cause__}; a module that lies beside a config is found with PYTHONPATH=. '
                'before the command'
            ) from error
        absent = re.search("""["'](.+)["']""", str(error)) if isinstance(error, FileNotFoundError) else None
        similar = _similar_configs(absent[1]) if absent else ''
        raise SettingError(f'{path} cannot be read: {describe_error(error)}{similar}') from error
    resolve_channels(cfg)
    return cfg


# Ablations, which were configs of their own in earlier versions.
_ABLATION = r'mlo_mae/ablations/|/cl-mae_.*_(constant-adversary|constant-partner|no-diversity|no-gaussian|no-kl)\.py$'


def _similar_configs(path: str) -> str:
    """Name the configs beside a path, and those of this project, whose names are spelt like its own."""
    if re.search(_ABLATION, path):
        return '. It is a variant in configs/ablations/studies.json now, which tools/analysis_tools/run_study.py trains'
    own = osp.join(osp.dirname(osp.dirname(__file__)), '.mim', 'configs')
    known = {osp.basename(file): file for file in glob(osp.join(escape(osp.dirname(path)), '*.py'))}
    known |= {osp.basename(file): f'mmmlo::{osp.relpath(file, own)}' for file in glob(osp.join(own, '*', '*.py'))}
    near = difflib.get_close_matches(osp.basename(path), known, 2)
    return f'. Is it {" or ".join(known[name] for name in near)}?' if near else ''


def set_work_dir(cfg: Config, path: str, work_dir: str | None = None) -> None:
    """Choose the work dir: the one asked for, else the config's own, else ``work_dirs/<name of the config file>``."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(path))[0])


def enable_amp(cfg: Config) -> None:
    """Train every level, or the one optimizer, under bfloat16 autocast, on GPUs and CPUs."""
    wrappers = cfg.optim_wrapper.levels.values() if is_multi_level(cfg) else [cfg.optim_wrapper]
    for wrapper in wrappers:
        wrapper['type'] = 'mmmlo.BFloat16OptimWrapper'
        # Arguments of mmengine's AmpOptimWrapper, if the config named it.
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)


def resolve_loaders(cfg: Config, pin_memory: bool = True, persistent_workers: bool = True) -> None:
    """Switch off pinned memory and persistent workers in all loaders, if they are False or where they cannot work."""
    for loader in dataloaders(cfg):
        if not (pin_memory and torch.cuda.is_available()):
            loader['pin_memory'] = False
        if not persistent_workers or loader.get('num_workers') == 0:
            loader['persistent_workers'] = False


def set_backbone(cfg: Config, checkpoint: str) -> None:
    """Initialize the backbone of a config of mmpretrain, mmseg or mmdet from a pretrained checkpoint.

    Args:
        cfg (Config): The config, changed in place.
        checkpoint (str): A checkpoint of this project, or a file that holds an encoder alone, with mmpretrain's keys.

    Raises:
        CheckpointError: The file cannot be read.
        SettingError: The config's model has no backbone.
    """
    if 'backbone' not in (cfg.get('model') or {}):
        raise SettingError('--backbone: the config has no model.backbone to initialize')
    # A dict, not an entry of a list: after a list, mmpretrain's VisionTransformer draws its position embedding anew.
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    if prefix := read_checkpoint(checkpoint).prefix:
        cfg.model.backbone.init_cfg.prefix = prefix
    if 'pretrained' in cfg.model:  # the older way of mmseg and mmdet, which may not stand beside init_cfg
        cfg.model.pretrained = None


def _is_for_console(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_FOR_FILE)


class _ConsoleRunner(Runner):
    """mmengine's runner, whose long lists go to the log file and not to the console."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_console)
        return logger

    def dump_config(self) -> None:
        super().dump_config()
        config = osp.basename(self.cfg.filename or f'{self.timestamp}.py')
        self.logger.info(f'{self.work_dir}: config in {config}; environment, hooks and parameter groups in '
                         f'{self.timestamp}/{self.timestamp}.log')


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config asks for, in the launcher's process group if there is a launcher.

    Its console shows what its log file has, without the long lists, and how far it is. Checkpoints are read as after
    :func:`load_config`.

    Raises:
        UnsupportedError: A multi-level config asks for mmengine's ``FlexibleRunner``, which splits models, or would be
            trained on several processes in mmengine's own wrapper.
    """
    if is_multi_level(cfg) and cfg.get('runner_type') == 'FlexibleRunner':
        raise UnsupportedError(
            f"runner_type='FlexibleRunner' is for models that are split over processes. {SHARDING_IS_NOT_SUPPORTED}"
        )
    wrapper = (cfg.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
    if is_multi_level(cfg) and cfg.get('launcher', 'none') != 'none' and wrapper == 'MMDistributedDataParallel':
        # On a CPU PyTorch would refuse mmengine's wrapper first, with an error about device numbers.
        raise UnsupportedError(
            'model_wrapper_cfg is that of MMDistributedDataParallel, which trains one loss in place of the levels; set '
            "model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')"
        )
    use_safe_loaders()
    compat.init_dist_on_cpu(cfg.get('launcher', 'none'), cfg.get('env_cfg', {}).get('dist_cfg', {}))
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else _ConsoleRunner.from_cfg(cfg)
    if isinstance(runner, Runner):
        runner.register_hook(ProgressHook())
    return runner
