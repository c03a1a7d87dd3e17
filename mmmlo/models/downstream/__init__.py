"""What guides the masks: modules with ``loss(features, data_samples) -> dict``, one task a file."""

from .classification import TokenClsHead
from .closed_form import ClosedFormHead, RidgeHead, SoftNeighboursHead
from .detection import DetectionTask
from .reconstruction import ReconstructionTask
from .segmentation import SegmentationTask
from .task_mix import TaskMix

__all__ = [
    'ClosedFormHead', 'DetectionTask', 'ReconstructionTask', 'RidgeHead', 'SegmentationTask', 'SoftNeighboursHead',
    'TaskMix', 'TokenClsHead'
]
