"""This project's checkpoints: mmpretrain's names of the encoder under ``backbone.``, beside it what was trained with it."""

from .base import Format, Mapped, State, rename
from .keys import DECODER, ENCODER, KeyTable
from .layer_scale import LAYER_SCALE

_OURS = KeyTable([*ENCODER, *LAYER_SCALE, *DECODER])
_MODULES = ('neck', 'masker', 'downstream', 'head')


class MMMLOFormat(Format):
    """Checkpoints of this project and of mmpretrain, and files that hold such an encoder alone."""

    name = 'mmmlo'
    library = "this project's checkpoints, and mmpretrain's VisionTransformer"
    container = 'state_dict'
    signature = ('backbone.layers.*', 'layers.*')
    has_decoder = True

    def knows(self, key: str) -> bool:
        """Whether a key is one of this format."""
        return _own(key) is not None or any(key.startswith(f'{name}.') for name in _TASKS)

    def read(self, state: State) -> Mapped:
        """Keep the names; those of an encoder alone get their prefix."""
        drops = {f'{name}.*': reason for name, reason in _TASKS.items()}
        return rename(state, _own, drops, f'{self.name} has no such weights')

    def write(self, state: State) -> Mapped:
        """Keep the names."""
        return Mapped(dict(state), {key: key for key in state})


_TASKS = {
    'ema_backbone': "moving average of the encoder's weights, beside the weights themselves",
    'data_preprocessor': 'mean and deviation of pixels',
    **dict.fromkeys(
        ['decode_head', 'auxiliary_head', 'rpn_head', 'roi_head', 'bbox_head', 'mask_head'],
        'part of another task, not of the encoder',
    ),
}


def _own(key: str) -> str | None:
    module = key.split('.')[0]
    if module in _MODULES:
        return key
    name = key if module == 'backbone' else f'backbone.{key}'
    return name if _OURS.to_theirs(name) is not None else None
