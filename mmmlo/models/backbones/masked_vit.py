"""Encode a given set of visible patches by a vision transformer."""

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import resize_pos_embed, to_2tuple
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..layers import SelectiveEncoderLayer, sincos_position_embedding
from .grid_vit import GridViT


@MODELS.register_module()
class MaskedViT(GridViT):
    """mmpretrain's ``VisionTransformer`` plus the encoding of chosen patches, for masked autoencoders.

    Its parameters have the names and shapes of ``VisionTransformer``, so a checkpoint's ``backbone.*`` loads there directly.
    Unlike mmpretrain's ``MAEViT`` it draws no masks: whoever calls it says which patches are visible. It takes any (H, W)
    grid, and a ``Pretrained`` ``init_cfg`` is the last to write its parameters (``MAEViT.init_weights`` overwrites
    ``pos_embed``, ``patch_embed`` and ``cls_token`` after the file was loaded).

    Args:
        arch (str | dict): Architecture, as in ``VisionTransformer``. Defaults to 'base'.
        img_size (int | tuple[int, int]): Image size in pixels, (H, W) or one number. Defaults to 224.
        patch_size (int): Patch size in pixels; it must divide the image size. Defaults to 16.
        out_type (str): What the unmasked forward returns, as in ``VisionTransformer``. Defaults to 'raw': B x (1 + L) x C.
        learnable_pos_embed (bool): Whether the sine-cosine position embedding is trained. MAE keeps it fixed; the released
            MLO-MAE trains it. Defaults to False.
        **kwargs: Other arguments of ``VisionTransformer``. The class token is always there.
    """

    layers: ModuleList

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        out_type: str = 'raw',
        learnable_pos_embed: bool = False,
        **kwargs,
    ) -> None:
        height, width = to_2tuple(img_size)
        if height % patch_size or width % patch_size:
            raise SettingError(
                f'model.backbone.img_size {(height, width)} is not a multiple of '
                f'model.backbone.patch_size {patch_size}'
            )
        super().__init__(arch=arch, img_size=(height, width), patch_size=patch_size, out_type=out_type, **kwargs)
        self.patch_size = patch_size
        self.layers = ModuleList(SelectiveEncoderLayer(layer) for layer in self.layers)
        if not learnable_pos_embed:  # frozen_stages may have frozen a learnable one
            self.pos_embed.requires_grad = False

    @property
    def returns_tokens(self) -> bool:
        """bool: Whether the unmasked forward returns the last layer's tokens, those of :meth:`encode`, and nothing else."""
        return self.out_type == 'raw' and list(self.out_indices) == [len(self.layers) - 1]

    def init_weights(self) -> None:
        """Initialize as MAE does, then apply ``init_cfg``, so that a ``Pretrained`` entry has the last word."""
        if not self.is_init:  # a second call applies no init_cfg, so it must not draw anew either
            with torch.no_grad():
                self.pos_embed.copy_(sincos_position_embedding(self.grid_size, self.embed_dims))
                nn.init.normal_(self.cls_token, std=0.02)
                # As a linear layer over flattened patches, like MAE.
                weight = self.patch_embed.projection.weight
                nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
        # Not VisionTransformer.init_weights, which draws pos_embed anew.
        BaseModule.init_weights(self)

    def _check_size(self, images: torch.Tensor) -> None:
        channels, height, width = images.shape[1:]
        if channels != (expected := self.patch_embed.projection.in_channels):
            raise SettingError(
                f'images have {channels} channels, but model.backbone.in_channels is {expected}; set that key, which '
                'loaders of files follow, or take other data'
            )
        if height % self.patch_size or width % self.patch_size:
            raise SettingError(
                f'images of {height} x {width} pixels are not a multiple of the patch size {self.patch_size}; '
                'resize or crop them in the pipeline'
            )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the features of unmasked images, B x 3 x H x W, as mmpretrain's ``VisionTransformer`` does.

        Returns:
            tuple[torch.Tensor]: One tensor for each of ``out_indices``; with the default ``out_type`` B x (1 + L) x C.

        Raises:
            SettingError: The channels are others, or a size is no multiple of the patch's, which would be padded silently.
        """
        self._check_size(x)
        return super().forward(x)

    def embed(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Embed all patches of images, B x 3 x H x W, and add their positions.

        Returns:
            tuple[torch.Tensor, tuple[int, int]]: Tokens without the class token, B x L x C, and their (H, W) grid.
        """
        self._check_size(images)
        tokens, grid = self.patch_embed(images)  # B x L x C
        position = resize_pos_embed(self.pos_embed, self.patch_resolution, grid, mode=self.interpolate_mode)
        return tokens + position[:, 1:], tuple(grid)  # B x L x C, without the class token's row

    def encode(
        self, tokens: torch.Tensor, ids_keep: torch.Tensor | None = None, outputs: slice = slice(None)
    ) -> torch.Tensor:
        """Encode embedded patches, all of them or the visible ones only.

        Args:
            tokens (torch.Tensor): Output of :meth:`embed`, B x L x C.
            ids_keep (torch.Tensor, optional): Indices of the visible patches, B x V; all without.
            outputs (slice): Which of class token and visible tokens to return; the last layer computes no others.

        Returns:
            torch.Tensor: Class token and visible tokens after the final norm, B x (1 + V) x C, or those of ``outputs``.
        """
        if ids_keep is not None:
            tokens = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))  # B x V x C
        x = self._with_class_token(tokens)  # B x (1 + V) x C
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, outputs if i == len(self.layers) else slice(None))
        return self.ln1(x) if self.final_norm else x

    def class_attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute how the class token attends to embedded patches, B x L x C, in the last layer: B x heads x L."""
        x = self._with_class_token(tokens)  # B x (1 + L) x C
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        attn = last.attn
        query, key, _ = attn.qkv(last.ln1(x)).unflatten(-1, (3, attn.num_heads, attn.head_dims)).unbind(2)
        logits = torch.einsum('bhd,blhd->bhl', query[:, 0], key) / attn.head_dims**0.5  # B x heads x (1 + L)
        return logits.softmax(dim=-1)[:, :, 1:]

    def _with_class_token(self, tokens: torch.Tensor) -> torch.Tensor:
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)  # B x 1 x C
        return self.pre_norm(self.drop_after_pos(torch.cat([cls_token, tokens], dim=1)))
