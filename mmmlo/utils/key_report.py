"""Which weights of a checkpoint arrive in a model, and which do not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

from mmmlo.utils.checkpoints import CheckpointError, conversion_advice, read_checkpoint
from mmmlo.utils.text import format_list

__all__ = [
    'KeyMismatchError', 'KeyReport', 'PretrainedTarget', 'check_whole_model', 'compare_keys', 'cut_prefix',
    'initialized_from', 'load_weights', 'pretrained_target'
]

Shape = tuple[int, ...]


class KeyMismatchError(CheckpointError):
    """A checkpoint's weights do not fit the model that is to be loaded with them."""


class PretrainedTarget(NamedTuple):
    """Keys by which a model and a checkpoint may differ, as patterns of ``fnmatch``.

    ``new`` has those that the file lacks, and the value that leaves the pretrained encoder's features as they are, as 1 for
    a layer scale and 0 for a bias, or None where the key is initialized at random; ``left`` those that have no use.
    """

    new: Mapping[str, float | None] = {}
    left: tuple[str, ...] = ()


def pretrained_target(module: nn.Module) -> PretrainedTarget:
    """Find the keys by which a module may differ from the checkpoint that it is initialized from.

    A class declares them by an attribute or property ``pretrained_target``. Of others mmpretrain's ``VisionTransformer`` is
    known. Of the rest no key may be missing, and the file may hold more.
    """
    from mmpretrain.models import VisionTransformer  # not before mmmlo.compat has been applied

    own = getattr(module, 'pretrained_target', None)
    if own is not None:
        return own
    if not isinstance(module, VisionTransformer):
        return PretrainedTarget(left=('*',))
    new: dict[str, float | None] = {'grid': None}  # of this project's encoders; a file of others has none
    left = ['grid']
    if module.out_type == 'avg_featmap':  # a norm on the mean of the patches in place of the one on every token
        new.update({'ln2.weight': 1, 'ln2.bias': 0})
    left += [] if module.final_norm else ['ln1.*']
    left += [] if module.cls_token is not None else ['cls_token']
    new['layers.*.gamma*.weight'] = 1  # layer scales, where layer_scale_init_value makes them
    return PretrainedTarget(new, tuple(left))


@dataclass
class KeyReport:
    """How the keys of a checkpoint, ``source``, and of a ``model`` compare; docs/checkpoints.md has the kinds.

    Attributes:
        prefix (str): What was cut off the checkpoint's keys.
        resized, misshapen, left_out (dict[str, tuple[Shape, Shape]]): Shape in the file and in the model: it resizes the
            value; it cannot take it; it need not, in a module that may be new.
        new_by_design (dict[str, float | None]): In the model alone, as it declares; the value that each must have.
        misplaced (str): Why the model would take position embeddings to be of a wrong grid; empty if it would not.
    """

    source: str
    model: str
    prefix: str = ''
    matched: list[str] = field(default_factory=list)
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    new_by_design: dict[str, float | None] = field(default_factory=dict)
    left_by_design: list[str] = field(default_factory=list)
    left_out: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    misplaced: str = ''

    @property
    def _title(self) -> str:
        return f'{self.source} ({self.prefix}*)' if self.prefix else self.source

    def counts(self) -> dict[str, int]:
        """The number of keys of each kind."""
        return {name: len(value) for name, value in vars(self).items() if not isinstance(value, str)}

    def __str__(self) -> str:
        """Print one line with the counts, and one for each kind of difference."""
        found = {name: count for name, count in self.counts().items() if count or name == 'matched'}
        counts = ', '.join(f'{count} {name.replace("_", " ")}' for name, count in found.items())
        lines = [f'Key report of {self._title} in {self.model}: {counts}']
        for name in list(found)[1:]:
            keys = getattr(self, name)
            shown = _changes(keys) if name in ('resized', 'misshapen', 'left_out') else list(keys)
            lines.append(f'  {name.replace("_", " ")}: {format_list(shown)}')
        return '\n'.join(lines)

    def check(self) -> 'KeyReport':
        """Return itself, or raise :class:`KeyMismatchError` with what keeps the file from fitting the model."""
        more = [*self.unexpected, *self.left_by_design]
        if not self.matched and not self.misshapen:
            wrong = (
                f'has nothing for {self.model}: none of its {len(more)} keys is known, for example {format_list(more, 2)}; '
                f'expected are keys such as {format_list(self.missing or list(self.new_by_design), 2)}'
            )
        elif self.misplaced:
            wrong = f'does not fit {self.model}: {self.misplaced}'
        elif self.misshapen:
            wrong = (
                f'is of another architecture than {self.model}: {format_list(_changes(self.misshapen), 3)} '
                "(file -> model). Give the model the checkpoint's own width, depth and patch size, or take another file"
            )
        elif self.missing:
            extra = f'; the file has instead {format_list(self.unexpected, 3)}' if self.unexpected else ''
            wrong = f'lacks {len(self.missing)} of the keys of {self.model}: {format_list(self.missing, 3)}{extra}'
        elif self.unexpected:
            wrong = (
                f'is of a larger architecture than {self.model}, which has no place for {len(self.unexpected)} of its keys: '
                f'{format_list(self.unexpected, 3)}. Give the model its depth and options'
            )
        else:
            return self
        # An encoder in the file that the model did not take stands there under other names.
        raise KeyMismatchError(f'{self._title} {wrong}{conversion_advice(more, self.source)}')

    def check_values(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Check that a loaded model holds what the report promises: the file's values, and neutral ones by design.

        Raises:
            KeyMismatchError: It does not, as after an initialization that ran later.
        """
        own = module.state_dict()
        changed = [key for key in self.matched if not _same(own[key].cpu(), state[key].to(own[key].dtype))]
        if changed:
            raise KeyMismatchError(
                f'{len(changed)} weights of {self.source} were overwritten in {self.model} after they had been loaded: '
                f"{format_list(changed, 3)}. Write init_cfg=dict(type='Pretrained', ...) as a dict, not in a list, and use "
                'a backbone whose own initialization leaves loaded weights alone.'
            )
        neutral = {key: value for key, value in self.new_by_design.items() if value is not None}
        wrong = [f'{key} should be {value:g} everywhere' for key, value in neutral.items() if (own[key] != value).any()]
        if wrong:
            raise KeyMismatchError(
                f'{self.model} begins with other values than declared for what {self.source} lacks: '
                f'{format_list(wrong, 3)}. Otherwise its features are not those of the pretrained encoder.'
            )


def compare_keys(
    module: nn.Module, state: Mapping[str, Tensor], source: str, target: PretrainedTarget | None = None, prefix: str = ''
) -> KeyReport:
    """Compare the keys of the file ``source``, of which ``prefix`` was cut off, with a model's.

    The two may differ by ``target``, by default by what the model declares. A key whose shape differs counts as resized if
    the model accepts it, as position embeddings are by mmpretrain's backbones. To find out, the model loads these keys, and
    gets its own values back. A grid of another size is resized too.
    """
    target = pretrained_target(module) if target is None else target
    own = module.state_dict()
    report = KeyReport(source, type(module).__name__, prefix, misplaced=_misplaced(module, state))
    grids = {key: value for key, value in state.items() if key.split('.')[-1] == 'grid'}
    changes = {
        key.rpartition('.')[0]: (tuple(grid.tolist()), tuple(own[key].tolist()))
        for key, grid in grids.items()
        if key in own and grid.tolist() != own[key].tolist()
    }
    for key, value in own.items():
        if key not in state:
            pattern = next((pattern for pattern in target.new if fnmatchcase(key, pattern)), None)
            if pattern is not None:
                report.new_by_design[key] = target.new[pattern]
            elif not key.endswith('num_batches_tracked'):
                report.missing.append(key)
        elif state[key].shape != value.shape:
            shapes = tuple(state[key].shape), tuple(value.shape)
            resizes = _resizes(module, key, {key: state[key], **grids})
            (report.resized if resizes else report.misshapen)[key] = shapes
        elif key.endswith(('grid', 'pos_embed')) and key.rpartition('.')[0] in changes:
            report.resized[key] = changes[key.rpartition('.')[0]]
        else:
            report.matched.append(key)
    for key in state:
        if key not in own:
            left = any(fnmatchcase(key, pattern) for pattern in target.left)
            (report.left_by_design if left else report.unexpected).append(key)
    return report


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> KeyReport:
    """Load a checkpoint's weights into a model, or raise :class:`KeyMismatchError` and load nothing; log the report."""
    report = compare_keys(module, state, source).check()
    module.load_state_dict(dict(state), strict=False)
    report.check_values(module, state)
    print_log(str(report), 'current')
    return report


def initialized_from(model: nn.Module) -> list[tuple[nn.Module, dict, dict[str, Tensor], KeyReport]]:
    """Compare each part of a model, not yet initialized, with the checkpoint that its ``init_cfg`` names.

    Returns:
        list[tuple[nn.Module, dict, dict[str, Tensor], KeyReport]]: The part, its ``init_cfg`` of type 'Pretrained', the
        weights for it, and the report, unchecked.
    """
    found = []
    for module in model.modules():
        init_cfgs = getattr(module, 'init_cfg', None) or []
        for init_cfg in [init_cfgs] if isinstance(init_cfgs, Mapping) else init_cfgs:
            if init_cfg.get('type') != 'Pretrained':
                continue
            path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix') or ''
            state = read_checkpoint(path).state_dict
            if prefix:
                state = cut_prefix(state, prefix, path)
            report = compare_keys(module, state, path, prefix=prefix and f'{prefix.rstrip(".")}.')
            report.misplaced = _misplaced(module, state, of_another=True)
            found.append((module, dict(init_cfg), state, report))
    return found


def check_whole_model(model: nn.Module, path: str, only_backbone: bool) -> KeyReport:
    """Compare a checkpoint with the whole model that mmengine's ``load_from`` is about to load it into.

    With ``only_backbone`` other modules may be new, as where training goes on from another method's encoder or only features
    are used; their layers of another shape are left out. Whatever is more in the file is always left.

    Raises:
        CheckpointError: The file cannot be read, or does not fit.
    """
    state = read_checkpoint(path).state_dict
    backbone = getattr(model, 'backbone', None)
    only_backbone = only_backbone and backbone is not None
    new: dict[str, float | None] = {}
    left: tuple[str, ...] = ('*',)
    if backbone is not None:  # more blocks than the model's are no rest to leave
        if only_backbone:
            new.update({f'{name}.*': None for name, _ in model.named_children() if name != 'backbone'})
        own = pretrained_target(backbone)
        new.update({f'backbone.{pattern}': value for pattern, value in own.new.items()})
        outside = (key for key in state if not key.startswith('backbone.'))
        left = (*outside, *(f'backbone.{pattern}' for pattern in own.left))
    report = compare_keys(model, state, path, PretrainedTarget(new, left))
    if only_backbone:
        # A layer comes whole or not at all: a bias of other classes means nothing beside new weights.
        layers = {key.rpartition('.')[0] for key in report.misshapen if not key.startswith('backbone.')}
        for key, value in model.state_dict().items():
            if key in state and key.rpartition('.')[0] in layers:
                report.left_out[key] = (tuple(state[key].shape), tuple(value.shape))
        report.matched = [key for key in report.matched if key not in report.left_out]
        report.misshapen = {key: shapes for key, shapes in report.misshapen.items() if key not in report.left_out}
    print_log(str(report.check()), 'current')
    return report


def cut_prefix(state: Mapping[str, Tensor], prefix: str, path: str) -> dict[str, Tensor]:
    """Take the weights whose keys begin with a prefix, without it, or raise :class:`KeyMismatchError`."""
    prefix = prefix.rstrip('.') + '.'
    part = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
    if not part:
        raise KeyMismatchError(
            f'{path} has no key that begins with {prefix!r}, but keys such as {format_list(list(state), 3)}'
            + conversion_advice(state, path)
        )
    return part


def _misplaced(module: nn.Module, state: Mapping[str, Tensor], of_another: bool = False) -> str:
    """Why positions would be taken to be of a wrong grid; without a grid a file of another model may be of several."""
    own = module.state_dict()
    for key in own:
        place, _, name = key.rpartition('.')
        grid = getattr(module.get_submodule(place), 'patch_resolution', None) if name == 'pos_embed' else None
        if grid is None or key not in state:
            continue
        (height, width), grid_key = grid, f'{place}.grid'.lstrip('.')
        patches = state[key].shape[1] - 1
        side = math.isqrt(patches)
        if grid_key not in state:
            if of_another and height != width and side**2 == patches == height * width:
                return (
                    f'it does not tell whether its grid is {side} x {side} or {height} x {width}. Write it into the file by '
                    'tools/model_converters/convert.py --source-grid H W.'
                )
        elif grid_key not in own:  # as many patches as its own are of its own grid, others of a square
            theirs, same = tuple(state[grid_key].tolist()), height * width == patches or state[key].shape == own[key].shape
            if theirs != (height, width) and (same or theirs[0] != theirs[1]):
                return (
                    f'its grid is {theirs[0]} x {theirs[1]}, but the model would take it to be '
                    f'{f"{height} x {width}" if same else "a square"}. Resize its positions by '
                    f'tools/model_converters/convert.py --grid {height} {width}.'
                )
    return ''


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _changes(shapes: Mapping[str, tuple[Shape, Shape]]) -> list[str]:
    return [f'{key} {"x".join(map(str, old))} -> {"x".join(map(str, new))}' for key, (old, new) in shapes.items()]


def _resizes(module: nn.Module, key: str, state: Mapping[str, Tensor]) -> bool:
    value = module.state_dict()[key]
    before = value.clone()
    try:
        module.load_state_dict(dict(state), strict=False)
    except Exception:  # a hook that cannot resize raises anything
        return False
    finally:
        value.copy_(before)
    return True
