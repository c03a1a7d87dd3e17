"""Layer-wise learning-rate decay for a vision transformer inside any model."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm, _InstanceNorm
from mmpretrain.models import VisionTransformer
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmlo.utils.errors import SettingError

_DECAY_MULTS = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
_KEYS = ('layer_decay_rate', *_DECAY_MULTS, 'custom_keys')
_CUSTOM_KEYS = ('lr_mult', 'decay_mult')
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lower learning rates for the earlier layers of the backbone of a classifier, a segmentor or a detector.

    A parameter of layer l of a backbone with N blocks has the learning rate ``lr * layer_decay_rate ** (N + 1 - l)`` (BEiT,
    Bao et al., 2022, section 2; ``util/lr_decay.py`` of MAE). Patch embedding, class token and position embedding are layer
    0, block i is layer i + 1; the final norm, and all that is not in the backbone, is layer N + 1 and has ``lr`` itself.

    For a classifier these are the values of mmpretrain's ``LearningRateDecayOptimWrapperConstructor``, which asks the model
    for the depth of a parameter; segmentors and detectors cannot tell. Here the backbone is looked for: a
    ``VisionTransformer`` anywhere, or what is called ``backbone``, or is in it, and has mmpretrain's ``get_layer_depth`` or
    a list ``layers``. Parameters with equal settings share one group, a few dozen in place of hundreds, so that fused and
    foreach optimizers have something to fuse. A group says where it comes from: ``layer_id`` and ``lr_scale``.

    Args:
        optim_wrapper_cfg (dict): Config of the wrapper, as for mmengine's default constructor.
        paramwise_cfg (dict): The settings below; the first one must be given.

            - ``layer_decay_rate`` (float): the rate, in (0, 1].
            - ``norm_decay_mult`` (float): factor of the weight decay of all parameters of norms.
            - ``bias_decay_mult`` (float): factor of the weight decay of other biases.
            - ``flat_decay_mult`` (float): factor of the weight decay of other one-dimensional parameters.
            - ``custom_keys`` (dict): part of a parameter's name -> ``lr_mult``, a factor on top of the layer's learning
              rate, and ``decay_mult``, a factor of the weight decay in place of the three above. Of several keys in a name
              the longest counts.

    Raises:
        ValueError: If a key is unknown or missing, or the rate is not in (0, 1].

    Examples:
        >>> optim_wrapper = dict(
        >>>     type='OptimWrapper',
        >>>     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        >>>     constructor='mmmlo.LayerDecayOptimWrapperConstructor',
        >>>     paramwise_cfg=dict(
        >>>         layer_decay_rate=0.65,
        >>>         flat_decay_mult=0.,
        >>>         custom_keys=dict(pos_embed=dict(decay_mult=0.))))
    """

    def _validate_cfg(self) -> None:
        where = 'optim_wrapper.paramwise_cfg'
        if isinstance(self.paramwise_cfg, dict):  # otherwise mmengine's own check has the word
            _refuse_unknown(where, self.paramwise_cfg, _KEYS)
            for key, settings in dict(self.paramwise_cfg.get('custom_keys') or {}).items():
                _refuse_unknown(f'{where}.custom_keys[{key!r}]', settings, _CUSTOM_KEYS)
            rate = self.paramwise_cfg.get('layer_decay_rate')
            if rate is None:
                raise SettingError(f'{where}.layer_decay_rate is missing: a number in (0, 1], such as 0.75')
            if not isinstance(rate, int | float) or not 0 < rate <= 1:
                raise SettingError(f'{where}.layer_decay_rate must be a number in (0, 1], got {rate!r}')
            if self.base_lr is None:
                raise SettingError('optim_wrapper.optimizer.lr is missing: layer_decay_rate scales it layer by layer')
            for name in _DECAY_MULTS:
                if name in self.paramwise_cfg and self.base_wd is None:
                    raise SettingError(f'optim_wrapper.optimizer.weight_decay is missing, but {where}.{name} scales it')
        super()._validate_cfg()

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Append one group for each layer, learning rate and weight decay.

        Args:
            params (list[dict]): Parameter groups, changed in place.
            module (nn.Module): The model.
            prefix (str): Prefix of its parameters' names. Defaults to ''.
            **kwargs: For compatibility with mmengine; not used.

        Raises:
            ValueError: If the model has no backbone with layers.
        """
        backbones = find_backbones(module, prefix)
        if not backbones:
            raise SettingError(
                f'optim_wrapper.paramwise_cfg.layer_decay_rate: {type(module).__name__} has no backbone with layers; '
                "model.backbone must be a 'VisionTransformer', or have `get_layer_depth` or a list `layers`"
            )
        rate = self.paramwise_cfg['layer_decay_rate']
        last_layer = max(num_layers(backbone) for backbone in backbones.values()) + 1
        groups = defaultdict(list)
        seen = set()  # a parameter that two modules share belongs to the first
        for owner_name, owner in module.named_modules(prefix=prefix.rstrip('.')):
            for name, parameter in owner.named_parameters(prefix=owner_name, recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                layer, scale = last_layer, 1.0
                for backbone_name, backbone in backbones.items():
                    if name.startswith(backbone_name):
                        layer, depth = layer_depth(backbone, name, backbone_name)
                        scale = rate ** (depth - 1 - layer)
                lr_mult, weight_decay = self._settings(name, parameter, isinstance(owner, _NORMS))
                groups[layer, scale * lr_mult, weight_decay].append(parameter)
        # In the order of the layers, so that the optimizer's state in a checkpoint has one order too.
        for layer, scale, weight_decay in sorted(groups, key=lambda key: (*key[:2], key[2] or 0.0)):
            group = dict(
                params=groups[layer, scale, weight_decay], lr=self.base_lr * scale, lr_scale=scale, layer_id=layer
            )
            if weight_decay is not None:
                group['weight_decay'] = weight_decay
            params.append(group)
        self._log(params, list(backbones))

    def _settings(self, name: str, parameter: nn.Parameter, in_norm: bool) -> tuple[float, float | None]:
        """Factor of the learning rate, and the weight decay; None if the optimizer has its own."""
        custom_keys = self.paramwise_cfg.get('custom_keys') or {}
        matching = sorted((key for key in custom_keys if key in name), key=lambda key: (-len(key), key))
        decay_mult = None
        if matching:
            settings = custom_keys[matching[0]]
            lr_mult, decay_mult = settings.get('lr_mult', 1.0), settings.get('decay_mult', 1.0)
        else:
            lr_mult = 1.0
            applies = (in_norm, name.rpartition('.')[2] == 'bias', parameter.ndim == 1)
            for setting, rule in zip(_DECAY_MULTS, applies):
                if rule and decay_mult is None:
                    decay_mult = self.paramwise_cfg.get(setting)
        if self.base_wd is None:
            return lr_mult, None
        return lr_mult, self.base_wd * (1.0 if decay_mult is None else decay_mult)

    def _log(self, groups: list[dict], backbones: list[str]) -> None:
        rates = [group['lr'] for group in groups]
        where = ', '.join(name.rstrip('.') or 'the model' for name in backbones)
        print_log(
            f'layer-wise learning-rate decay {self.paramwise_cfg["layer_decay_rate"]} in {where}: '
            f'lr from {min(rates):.3g} to {max(rates):.3g}, {len(groups)} parameter groups',
            'current',
        )
        for group in groups:
            print_log(
                f'layer {group["layer_id"]}: lr={group["lr"]:.3g}, weight_decay={group.get("weight_decay")}, '
                f'{sum(parameter.numel() for parameter in group["params"])} parameters',
                'current',
                logging.DEBUG,
            )


def _refuse_unknown(where: str, settings: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in settings:
        if name not in known:
            raise SettingError(f'{where} has {name!r}, which is none of {list(known)}')


def find_backbones(model: nn.Module, prefix: str = '') -> dict[str, nn.Module]:
    """Backbones whose layers can be told apart.

    Args:
        model (nn.Module): A model.
        prefix (str): Prefix of its parameters' names. Defaults to ''.

    Returns:
        dict[str, nn.Module]: Prefix of the parameters' names, such as 'backbone.' -> backbone, the outermost ones only.
    """

    # Names decide besides classes: decoders of detectors have `layers` too, and whole models a `get_layer_depth`.
    def walk(module: nn.Module, prefix: str, in_backbone: bool) -> Iterator[tuple[str, nn.Module]]:
        in_backbone = in_backbone or prefix.split('.')[-2:-1] == ['backbone']
        layered = hasattr(module, 'get_layer_depth') or isinstance(getattr(module, 'layers', None), nn.ModuleList)
        if isinstance(module, VisionTransformer) or in_backbone and layered:
            yield prefix, module
            return
        for name, child in module.named_children():
            yield from walk(child, f'{prefix}{name}.', in_backbone)

    return dict(walk(model, prefix, False))


def layer_depth(backbone: Any, name: str, prefix: str) -> tuple[int, int]:
    """Layer of a backbone's parameter.

    Args:
        backbone (nn.Module): The backbone.
        name (str): The parameter's name in the model.
        prefix (str): The part of it that stands for the backbone, such as 'backbone.'.

    Returns:
        tuple[int, int]: The layer, from 0, and the number of layers, embedding and head included.
    """
    if hasattr(backbone, 'get_layer_depth'):
        return backbone.get_layer_depth(name, prefix)
    depth = len(backbone.layers) + 2
    first, *rest = name[len(prefix):].split('.')
    if first == 'layers':
        return int(rest[0]) + 1, depth
    embeds = first in ('cls_token', 'mask_token', 'pos_embed', 'patch_embed', 'pre_norm')
    return 0 if embeds else depth - 1, depth


def num_layers(backbone: Any) -> int:
    """Blocks of a backbone: its layers without embedding and head."""
    return layer_depth(backbone, '', '')[1] - 2
