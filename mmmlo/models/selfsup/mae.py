"""Masked autoencoders with random masks."""

from mmmlo.registry import MODELS

from .base import BaseMaskedAutoencoder


@MODELS.register_module()
class MAE(BaseMaskedAutoencoder):
    """MAE (He et al., 2022) on the modules of this project: the baseline of learned masking, with one level.

    With the same noise its loss equals mmpretrain's ``MAE``; its grid need not be square.
    The arguments are those of :class:`BaseMaskedAutoencoder`; without a masker, it is a :class:`RandomMasker`.
    """

    def __init__(self, backbone: dict, neck: dict, head: dict, masker: dict | None = None, **kwargs) -> None:
        super().__init__(backbone, neck, head, masker or dict(type='mmmlo.RandomMasker'), **kwargs)
