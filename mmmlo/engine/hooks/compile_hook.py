"""Compile the transformer blocks of a model."""

from typing import Any

from mmengine.hooks import Hook
from torch import nn

from mmmlo.models.layers import TransformerEncoderLayer  # by way of this package, whose fixes mmpretrain needs
from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

__all__ = ['CompileHook', 'compile_blocks']

# Graphs of a block: encoder or decoder, visible patches or all, its last layer's tokens, with a gradient or without.
_VARIANTS = 64


def compile_blocks(model: nn.Module, **options: Any) -> int:
    """Compile the blocks of ``model.backbone`` and ``model.neck`` in place, each by itself.

    Names in checkpoints stay. Random numbers in the blocks, as of drop path, are others than without.

    Args:
        model (nn.Module): A model of mmpretrain's shape.
        **options: Arguments of ``torch.compile``: ``backend``, ``mode``.

    Returns:
        int: Blocks that were compiled.

    Raises:
        SettingError: There is none.
    """
    parts = [part for part in (getattr(model, 'backbone', None), getattr(model, 'neck', None)) if part is not None]
    blocks = [module for part in parts for module in part.modules() if isinstance(module, TransformerEncoderLayer)]
    if not blocks:
        raise SettingError('mmmlo.CompileHook finds no transformer block of mmpretrain in model.backbone and model.neck')
    import torch._dynamo  # here, because few compile
    import torch._functorch.config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    torch._functorch.config.donated_buffer = False  # several passes backward through one forward pass
    for block in blocks:
        block.compile(dynamic=False, **options)
    return len(blocks)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles encoder and decoder blocks for the losses of all levels, before training.

    The passes of hypergradients stay as they are: forward mode and a second backward pass cannot go through compiled code.
    The first iterations compile and take long.

    Args:
        **options: See :func:`compile_blocks`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_train(self, runner: Any) -> None:
        """Compile."""
        compile_blocks(unwrap(runner.model), **self.options)
