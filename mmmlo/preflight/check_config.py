"""What is wrong with a config, found before anything is built from it.

mmengine reads the keys that it knows and leaves the others alone, so a misspelt one is as good as none.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmlo.engine.level import LevelConfig
from mmmlo.models import DeviceDataPreprocessor
from mmmlo.utils.config import named_dataloaders
from mmmlo.utils.errors import SettingError

from .config_types import accepted_fields, closest, find_type, why_not_found
from .problems import Problem, refuse

__all__ = ['ConfigError', 'check_config', 'find_config_problems']


class ConfigError(SettingError):
    """A config with problems."""


# Arguments of the Runner, and what it or the tools read besides.
_TOP_LEVEL = [name for name in inspect.signature(Runner).parameters if name != 'cfg'] + [
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'vis_backends'
]

# What OpenMMLab's frameworks read before mmengine, and nothing reads now.
_AMP = "write optim_wrapper.type='mmmlo.BFloat16OptimWrapper', or pass --amp; without it the run is in fp32"
_UNREAD = dict(
    fp16=_AMP,
    amp=_AMP,
    optimizer_config='write optim_wrapper.clip_grad and optim_wrapper.accumulative_counts',
    lr_config='write param_scheduler',
    momentum_config='write param_scheduler',
    checkpoint_config='write default_hooks.checkpoint',
    log_config='write default_hooks.logger',
    resume_from='write load_from and resume=True, or pass --resume',
    total_epochs='write train_cfg.max_epochs',
    seed='write randomness.seed',
    deterministic='write randomness.deterministic',
    cudnn_benchmark='write env_cfg.cudnn_benchmark',
    dist_params='write env_cfg.dist_cfg',
)

# mmengine's, and those of the runtimes in configs/_base_.
_DEFAULT_HOOKS = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'stop_signal', 'rank_seed',
    'verify_pretrained', 'check_classes', 'non_finite_guard', 'provenance'
)
# What mmengine's constructor and ours with the same settings ask for; they take no notice of others.
_DEFAULT_CONSTRUCTORS = ('DefaultOptimWrapperConstructor', 'mmmlo.GroupedOptimWrapperConstructor')
_PARAMWISE = (
    'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
    'flat_decay_mult', 'bypass_duplicate'
)

# Key -> mmengine's registry of what stands there; below `model` a key may mean anything.
_KINDS = {
    key: kind
    for kind, keys in dict(
        HOOKS='default_hooks custom_hooks',
        DATASETS='dataset datasets',
        TRANSFORMS='pipeline transforms',
        OPTIMIZERS='optimizer',
        OPTIM_WRAPPERS='optim_wrapper levels',
        OPTIM_WRAPPER_CONSTRUCTORS='constructor',
        PARAM_SCHEDULERS='param_scheduler',
        LOOPS='train_cfg val_cfg test_cfg',
        VISUALIZERS='visualizer',
    ).items()
    for key in keys.split()
}
# A `type` that no registry knows: mmcv's operators are called by their names.
_NO_TYPES = ('nms', 'nms_cfg', 'roi_layer', 'clip_grad')
# Fields that are taken before the constructor sees them.
_TAKEN = dict(
    HOOKS=('priority', ), LOOPS=('by_epoch', ), OPTIM_WRAPPERS=('constructor', 'paramwise_cfg'),
    PARAM_SCHEDULERS=('convert_to_iter_based', 'by_epoch', 'epoch_length')
)
# Arguments that the Runner gives, so no config does.
_GIVEN = dict(LOOPS=('runner', 'dataloader', 'evaluator'), OPTIMIZERS=('params', ), PARAM_SCHEDULERS=('optimizer', ))


def find_config_problems(cfg: Config) -> list[Problem]:
    """Find misspelt keys, fields that nothing reads, unknown types, and, as warnings, schedules that do not fit the run.

    Types are looked up as a Runner would, which imports the modules that register them; nothing is built. Variables that a
    config uses for itself may have any name that is not nearly that of a key of the Runner.
    """
    checks = (_check_top_level, _check_names, _check_types, _check_preprocessor, _check_schedules)
    return [problem for check in checks for problem in check(cfg)]


def check_config(cfg: Config) -> None:
    """Log the warnings of :func:`find_config_problems`, and stop at anything worse.

    Raises:
        ConfigError: With a line a problem.
    """
    refuse(find_config_problems(cfg), ConfigError, '\nTo train all the same, pass --no-check')


def _check_top_level(cfg: Config) -> Iterator[Problem]:
    for key, value in cfg.items():
        if key in _UNREAD and value not in (None, False):
            yield Problem(key, f'nothing reads it; {_UNREAD[key]}')
            continue
        near = closest(key, _TOP_LEVEL, 0.85)
        # Several evaluators of one run are variables such as `val_evaluator_full`.
        if near and key not in _TOP_LEVEL and not key.startswith(f'{near}_'):
            yield Problem(key, f'nothing reads it; did you mean {near!r}?')


def _check_names(cfg: Config) -> Iterator[Problem]:
    """Dicts without a type whose keys are known."""
    hooks = cfg.get('default_hooks') or {}
    for name in hooks:
        near = closest(name, _DEFAULT_HOOKS, 0.85)
        if near and name not in _DEFAULT_HOOKS:
            text = f'there is a default hook {near!r}, which may run besides; did you mean that?'
            yield Problem(f'default_hooks.{name}', text)
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        for name, default in hooks.items():
            if isinstance(hook, Mapping) and default and hook.get('type') == default.get('type'):
                text = f'it would run twice: set its fields in default_hooks.{name}, which is the same'
                yield Problem(f'custom_hooks.{i}', text)
    yield from _unknown('randomness', cfg.get('randomness'), accepted_fields(Runner.set_randomness)[0])
    yield from _unknown('auto_scale_lr', cfg.get('auto_scale_lr'), ['enable', 'base_batch_size'])
    for key, loader in named_dataloaders(cfg):
        more = ['data_preprocessor'] if '.dataloaders.' in key else []
        yield from _unknown(key, loader, [*accepted_fields(DataLoader)[0], 'num_batch_per_epoch', *more])
    wrapper = cfg.get('optim_wrapper') or {}
    levels = wrapper.get('levels') or {}
    if levels and 'constructor' not in wrapper:
        right = "optim_wrapper.constructor='mmmlo.MultiLevelOptimWrapperConstructor'"
        yield Problem('optim_wrapper.levels', f'nothing reads it; add {right}')
    for key, own in [('optim_wrapper', wrapper), *((f'optim_wrapper.levels.{name}', own) for name, own in levels.items())]:
        paramwise = own.get('paramwise_cfg') or {}
        if own.get('constructor', _DEFAULT_CONSTRUCTORS[0]) in _DEFAULT_CONSTRUCTORS:
            yield from _unknown(f'{key}.paramwise_cfg', paramwise, _PARAMWISE)
            for name, settings in (paramwise.get('custom_keys') or {}).items():
                # Others become options of the parameter group.
                yield from _unknown(f'{key}.paramwise_cfg.custom_keys.{name}', settings, ['lr_mult', 'decay_mult'], False)


def _unknown(key: str, given: Any, known: Iterable[str], complete: bool = True, who: str = '') -> Iterator[Problem]:
    """Fields that are not known; if others may be right too, those that are nearly a known one."""
    known = list(known)
    for name in given if isinstance(given, Mapping) else ():
        if name in known or name == '_scope_' or not isinstance(name, str):
            continue
        near = closest(name, known, 0.6 if complete else 0.85)
        if complete or near:
            hint = f'did you mean {near!r}?' if near else f'there are {", ".join(known)}'
            yield Problem(f'{key}.{name}', f'{who or "nothing"} {"has no such field" if who else "reads it"}; {hint}')


def _check_types(cfg: Config) -> Iterator[Problem]:
    for key in (name for name in cfg if name in _TOP_LEVEL):
        yield from _walk(cfg[key], key, _KINDS.get(key), cfg.get('default_scope') or 'mmengine', key == 'model')


def _walk(node: Any, key: str, kind: str | None, scope: str, in_model: bool) -> Iterator[Problem]:
    if isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _walk(value, f'{key}.{i}', kind, scope, in_model)
    if not isinstance(node, Mapping) or key.rpartition('.')[2] in _NO_TYPES:
        return
    if in_model and str(node.get('type', '')).islower() and find_type(node['type'], scope) is None:
        return  # a mode that the model asks for by name, such as mmdet's 'nms' and 'conv'
    scope = node.get('_scope_', scope)
    cls = node.get('type', 'OptimWrapper' if 'optimizer' in node else None)
    if isinstance(cls, str):
        yield from _check_name(cls, f'{key}.type', kind, scope)
        cls = find_type(cls, scope, kind)
    if isinstance(node.get('constructor'), str):
        yield from _check_name(node['constructor'], f'{key}.constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', scope)
    # Parts of a model may take fields apart from their constructor, as mmcv's layers do.
    if callable(cls) and (not in_model or getattr(cls, '__module__', '').startswith('mmmlo.')):
        known, complete = accepted_fields(cls)
        known = ['type', *(field for field in known if field not in _GIVEN.get(kind or '', ())), *_TAKEN.get(kind or '', ())]
        if kind == 'OPTIM_WRAPPERS' and '.levels.' in key:
            known += [field.name for field in fields(LevelConfig)]
        yield from _unknown(key, node, known, complete, cls.__name__)
    for name, value in node.items():
        inner = None if in_model else _KINDS.get(name)
        if 'type' not in node and kind in ('HOOKS', 'PARAM_SCHEDULERS') or key == 'optim_wrapper.levels':
            inner = kind  # dicts of hooks, of schedules, of levels
        yield from _walk(value, f'{key}.{name}', inner, scope, in_model)


def _check_name(name: str, key: str, kind: str | None, scope: str) -> Iterator[Problem]:
    if find_type(name, scope, kind) is None:
        other = find_type(name, scope)
        reason = f'is {other.__module__}.{other.__name__}, not one of {kind}' if other else why_not_found(name, scope)
        yield Problem(key, f'{name!r} {reason}')


def _check_preprocessor(cfg: Config) -> Iterator[Problem]:
    """Images in memory are cropped and mirrored by our preprocessor alone."""
    kind = ((cfg.get('model') or {}).get('data_preprocessor') or {}).get('type', 'SelfSupDataPreprocessor')
    cls = find_type(kind, cfg.get('default_scope') or 'mmengine') if isinstance(kind, str) else kind
    training = [(key, loader) for key, loader in named_dataloaders(cfg) if key.startswith('train')]
    in_memory = [key for key, loader in training if 'mmmlo.InMemoryImages' in str(loader)]
    if in_memory and isinstance(cls, type) and not issubclass(cls, DeviceDataPreprocessor):
        yield Problem(
            'model.data_preprocessor.type',
            f'{kind!r} does not crop and mirror the images of mmmlo.InMemoryImages in {in_memory[0]}; write '
            "'mmmlo.DeviceDataPreprocessor'",
        )


def _check_schedules(cfg: Config) -> Iterator[Problem]:
    """Schedules that do not fit the run, where its length is known in their unit."""
    loop, own = cfg.get('train_cfg') or {}, cfg.get('param_scheduler') or []
    lowest = next(iter((cfg.get('optim_wrapper') or {}).get('levels') or ['']))
    for level, schedules in own.items() if isinstance(own, Mapping) and 'type' not in own else [('', own)]:
        single = isinstance(schedules, Mapping)
        for i, schedule in enumerate([schedules] if single else schedules):
            key = '.'.join(filter(None, ('param_scheduler', level, '' if single else str(i))))
            begin, by_epoch = schedule.get('begin', 0), schedule.get('by_epoch', True)
            end = schedule.get('end') or begin + schedule.get('T_max', -begin)
            length, unit = loop.get('max_epochs' if by_epoch else 'max_iters'), 'epochs' if by_epoch else 'iterations'
            if length is None or not by_epoch and level not in ('', lowest):
                continue  # an upper level counts its own steps, of which there are fewer
            if begin >= length:
                text = f'it begins at {begin}, after the run, which has {length} {unit}'
                yield Problem(f'{key}.begin', text, warning=True)
            elif end > length:
                yield Problem(f'{key}.end', f'it ends at {end}, and the run has {length} {unit}: it stops half way', True)
