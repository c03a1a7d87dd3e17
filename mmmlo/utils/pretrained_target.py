"""What a model may do without when it loads a pretrained encoder."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

__all__ = ['PretrainedTarget', 'pretrained_target']


class PretrainedTarget(NamedTuple):
    """Keys by which a model and a checkpoint may differ, as patterns of ``fnmatch``.

    Attributes:
        new (Mapping[str, float | None]): Keys that the model has and the file lacks, and the value that leaves the
            pretrained encoder's features as they are: 1 for a norm's weight or a layer scale, 0 for a bias or a relative
            position. None where the key is initialized at random, as a head's.
        left (tuple[str, ...]): Keys of the file that the model has no use for.
    """

    new: Mapping[str, float | None] = {}
    left: tuple[str, ...] = ()


def pretrained_target(module: nn.Module) -> PretrainedTarget:
    """Find the keys by which a module may differ from the checkpoint that it is initialized from.

    A class of this project declares them by an attribute or property ``pretrained_target``. Of others mmpretrain's
    ``VisionTransformer`` is known. Of the rest no key may be missing, and the file may hold more.

    Args:
        module (nn.Module): The module that has the ``init_cfg``.
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
    if not module.final_norm:
        left.append('ln1.*')
    if module.cls_token is None:
        left.append('cls_token')
    new['layers.*.gamma*.weight'] = 1  # layer scales, where layer_scale_init_value makes them
    return PretrainedTarget(new, tuple(left))
