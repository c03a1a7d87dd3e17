"""What guides the masks: modules with ``loss(features, data_samples) -> dict``, one task a file."""

from .classification import TokenClsHead
from .closed_form import ClosedFormHead, RidgeHead, SoftNeighboursHead

__all__ = ['ClosedFormHead', 'RidgeHead', 'SoftNeighboursHead', 'TokenClsHead']
