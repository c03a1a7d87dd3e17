"""Layer-wise learning-rate decay for a vision transformer inside any model."""

from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.models import VisionTransformer
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmlo.utils.errors import SettingError

from .grouped_constructor import merge_groups

_DECAY_MULTS = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
_KEYS = ('layer_decay_rate', *_DECAY_MULTS, 'custom_keys')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """Lower learning rates for the earlier layers of the backbone of a classifier, a segmentor or a detector.

    A parameter of layer l of a backbone with N blocks has the learning rate ``lr * layer_decay_rate ** (N + 1 - l)`` (BEiT,
    Bao et al., 2022, section 2; ``util/lr_decay.py`` of MAE). Patch embedding, class token and position embedding are layer
    0, block i is layer i + 1; the final norm, and all that is not in the backbone, is layer N + 1 and has ``lr`` itself.

    mmpretrain's constructor asks the model for the depth of a parameter, which segmentors and detectors cannot tell. Here
    the backbone is looked for: a ``VisionTransformer`` anywhere, or what is called ``backbone``, or is in it, and has
    mmpretrain's ``get_layer_depth``. Parameters with equal settings share one group, so that fused and foreach optimizers
    have something to fuse. A group says where it comes from: ``layer_id`` and ``lr_scale``.

    Args:
        optim_wrapper_cfg (dict): Config of the wrapper, as for mmengine's default constructor.
        paramwise_cfg (dict): mmpretrain's settings: ``layer_decay_rate``, in (0, 1], which must be given;
            ``norm_decay_mult``, ``bias_decay_mult`` and ``flat_decay_mult``; and ``custom_keys``, part of a parameter's name
            -> ``decay_mult`` and, here, ``lr_mult``, a factor on top of the layer's learning rate.

    Raises:
        SettingError: If a key is unknown or missing, or the rate is not in (0, 1].

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
        where, settings = 'optim_wrapper.paramwise_cfg', self.paramwise_cfg
        custom = {f'{where}.custom_keys[{key!r}]': own for key, own in settings.get('custom_keys', {}).items()}
        for place, own in {where: settings, **custom}.items():
            known = _KEYS if own is settings else ('lr_mult', 'decay_mult')
            for name in own:
                if name not in known:
                    raise SettingError(f'{place} has {name!r}, which is none of {list(known)}')
        rate = settings.get('layer_decay_rate')
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise SettingError(f'{where}.layer_decay_rate must be a number in (0, 1], such as 0.75, got {rate!r}')
        if self.base_lr is None:
            raise SettingError('optim_wrapper.optimizer.lr is missing: layer_decay_rate scales it layer by layer')
        scaling = [name for name in _DECAY_MULTS if name in settings]
        if scaling and self.base_wd is None:
            raise SettingError(f'optim_wrapper.optimizer.weight_decay is missing, but {where}.{scaling[0]} scales it')
        super()._validate_cfg()

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', get_layer_depth: Any = None, **kwargs
    ) -> None:
        """Append one group for each layer, learning rate and weight decay; an error if no backbone has layers."""
        if get_layer_depth is not None:  # mmpretrain's constructor calls this for a child
            super().add_params(params, module, prefix, get_layer_depth)
            return
        backbones = dict(_find_backbones(module))
        if not backbones:
            raise SettingError(
                f'optim_wrapper.paramwise_cfg.layer_decay_rate: {type(module).__name__} has no backbone with layers; '
                "model.backbone must be a 'VisionTransformer' of mmpretrain, or have its `get_layer_depth`"
            )
        depth = max(backbone.get_layer_depth('', '')[1] for backbone in backbones.values())

        def find_depth(name: str) -> tuple[int, int]:
            for start, backbone in backbones.items():
                if name.startswith(start):
                    return backbone.get_layer_depth(name, start)
            return depth - 1, depth

        own_decay: float | None = self.base_wd  # type: ignore[has-type]
        self.base_wd = own_decay or 0.0  # mmpretrain's log needs a number
        singles: list[dict] = []
        super().add_params(singles, module, prefix, find_depth)
        self.base_wd = own_decay  # type: ignore[assignment]
        for single in singles:
            single['lr_scale'] *= single.pop('lr_mult', 1.0)
            single['lr'] = self.base_lr * single['lr_scale']
            del single['param_name']
            if own_decay is None:
                del single['weight_decay']
        # In the order of the layers, so that the optimizer's state in a checkpoint has one order too.
        params += sorted(
            merge_groups(singles), key=lambda group: (group['layer_id'], group['lr_scale'], group.get('weight_decay', 0))
        )
        rates = [group['lr'] for group in params]
        where = ', '.join(name.rstrip('.') or 'the model' for name in backbones)
        print_log(
            f'layer-wise learning-rate decay {self.paramwise_cfg["layer_decay_rate"]} in {where}: '
            f'lr from {min(rates):.3g} to {max(rates):.3g}, {len(params)} parameter groups',
            'current',
        )


def _find_backbones(module: nn.Module, prefix: str = '', in_backbone: bool = False) -> Iterator[tuple[str, Any]]:
    """Prefix of the parameters' names, such as 'backbone.', and backbone, the outermost ones only.

    Names decide besides classes: whole models have a `get_layer_depth` too.
    """
    in_backbone = in_backbone or prefix.split('.')[-2:-1] == ['backbone']
    if isinstance(module, VisionTransformer) or in_backbone and hasattr(module, 'get_layer_depth'):
        yield prefix, module
        return
    for name, child in module.named_children():
        yield from _find_backbones(child, f'{prefix}{name}.', in_backbone)
