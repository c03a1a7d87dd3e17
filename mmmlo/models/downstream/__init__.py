"""What guides the masks: modules with ``loss(features, data_samples) -> dict``, one task a file."""

from .classification import TokenClsHead

__all__ = ['TokenClsHead']
