"""mmpretrain's vision transformer with a grid of patches that travels with its weights."""

import math

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed

from mmmlo.utils.checkpoints import CheckpointError

Grid = tuple[int, int]


class GridViT(VisionTransformer):
    """mmpretrain's ``VisionTransformer``, whose checkpoints tell the grid of their positions in the buffer ``grid``.

    A checkpoint of another grid loads with its positions resized from the grid that it tells. Where it tells none,
    positions that fit the model are taken to be of its own grid, and others of a square;
    :class:`mmmlo.preflight.VerifyPretrainedHook` finds where that is a guess.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('grid', torch.tensor(self.grid_size))

    @property
    def grid_size(self) -> Grid:
        """tuple[int, int]: Patches along the height and the width at the image size that the model is built for."""
        return tuple(self.patch_resolution)

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        """Resize a checkpoint's position embedding, and drop a class token's row that has no place."""
        told = state_dict.get(f'{prefix}grid')
        state_dict[f'{prefix}grid'] = self.grid.detach().clone()
        position = state_dict.get(f'{prefix}pos_embed')  # 1 x (1 + L) x C, or 1 x L x C of a model without a class token
        if position is None:
            return
        length, side = position.shape[1], math.isqrt(position.shape[1] - 1)
        for height, width in [self.grid_size, (side, side)] if told is None else [tuple(told.tolist())]:
            extra = length - height * width
            without = self.num_extra_tokens == 0 and (told is not None or (height, width) == self.grid_size)
            if extra == 1 or extra == 0 and without:
                state_dict[f'{prefix}pos_embed'] = resize_pos_embed(
                    position[:, extra - self.num_extra_tokens :],
                    (height, width),
                    self.grid_size,
                    self.interpolate_mode,
                    self.num_extra_tokens,
                )
                return
        of_what = 'no square and not the grid of the model' if told is None else f'not the {tuple(told.tolist())} it tells'
        raise CheckpointError(
            f'{prefix}pos_embed of the checkpoint has {length - 1} patches, which is {of_what}; write their grid into the '
            'file by tools/model_converters/convert.py --source-grid H W'
        )
