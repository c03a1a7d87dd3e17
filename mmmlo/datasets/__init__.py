"""Datasets, splits and the guard that keeps splits disjoint."""

from importlib.util import find_spec

# First, because it applies the fixes without which mmpretrain may not import.
from mmmlo import registry  # noqa: F401
from mmmlo.datasets.cluttered_digits import ClutteredDigits
from mmmlo.datasets.digits import Digits
from mmmlo.datasets.folders import DatasetFolderError, check_dataset_folder
from mmmlo.datasets.image_folder import EXTENSIONS, ImageFolder, count_files, find_images, is_hidden
from mmmlo.datasets.in_memory_images import InMemoryImages, batch_collate
from mmmlo.datasets.labels import check_classes, read_labels
from mmmlo.datasets.seeding import ResumableBatchSampler, ResumableSampler, SampleIndex, SeededDataset
from mmmlo.datasets.sharded_images import ShardedImages
from mmmlo.datasets.sources import SourceIndex, data_fingerprint, sample_sources
from mmmlo.datasets.split_dataset import SplitDataset, stratified_parts
from mmmlo.datasets.split_guard import (
    SplitOverlapError,
    check_disjoint,
    check_level_splits,
    check_same_classes,
    class_names,
    compare_class_names,
    is_test_split,
    level_key,
    read_test_dataset,
)
from mmmlo.datasets.synthetic import SyntheticImages
from mmmlo.datasets.transforms import LoadImage, TorchRandomResizedCrop
from mmmlo.utils.errors import DataError

__all__ = [
    'ClutteredDigits', 'EXTENSIONS', 'DataError', 'DatasetFolderError', 'Digits', 'ImageFolder', 'InMemoryImages',
    'LoadImage', 'ResumableBatchSampler', 'ResumableSampler', 'SampleIndex', 'SeededDataset', 'ShardedImages', 'SourceIndex',
    'SplitDataset', 'SplitOverlapError', 'SyntheticImages', 'TorchRandomResizedCrop', 'batch_collate', 'check_classes',
    'check_dataset_folder', 'check_disjoint', 'check_level_splits', 'check_same_classes', 'class_names',
    'compare_class_names', 'count_files', 'data_fingerprint', 'find_images', 'is_hidden', 'is_test_split', 'level_key',
    'read_labels', 'read_test_dataset', 'sample_sources', 'stratified_parts'
]

if find_spec('mmseg') is not None:  # pretraining does without
    from mmmlo.datasets.camvid import CamVidDataset  # noqa: F401
    from mmmlo.datasets.object_crops import ObjectCrops  # noqa: F401

    __all__ += ['CamVidDataset', 'ObjectCrops']
