"""Transfer of a pretrained encoder to segmentation and detection, by a config of mmseg or mmdet as recipe."""

import copy
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmmlo.evaluation.encoder import Encoder
from mmmlo.evaluation.results import ProtocolResult
from mmmlo.launch.config import set_backbone
from mmmlo.preflight.check_data import check_transfer
from mmmlo.utils.errors import SettingError

from .training_run import train_and_measure

__all__ = ['TRANSFER_TASKS', 'TransferTask', 'transfer', 'transfer_config', 'transfer_recipe']


class TransferTask(NamedTuple):
    """A task that encoders are transferred to.

    Attributes:
        name (str): Name of the protocol, and of the data.
        evaluator (str): The framework's metric class that measures it.
        metrics (Mapping[str, tuple[str, float]]): Name that the framework gives a metric -> name in the results, and the
            factor that makes per cent of it. The first is the main one.
        recipes (Mapping[tuple[int, int], str]): Width and patch size of an encoder -> the config, below ``configs``.
    """

    name: str
    evaluator: str
    metrics: Mapping[str, tuple[str, float]]
    recipes: Mapping[tuple[int, int], str]


_SEGMENTATION = {'mIoU': ('mIoU', 1.0), 'mAcc': ('mean accuracy', 1.0), 'aAcc': ('pixel accuracy', 1.0)}
_DETECTION = {'coco/bbox_mAP': ('box AP', 100.0), 'coco/segm_mAP': ('mask AP', 100.0)}
_ADE20K = 'segmentation/upernet_vit-{}-p16_8xb2-amp-160k_ade20k-512x512.py'
_COCO = 'detection/mask-rcnn_vit-{}-p16_8xb8-amp-lsj-184k_coco.py'
_SIZES = {(768, 16): 'base', (1024, 16): 'large'}
TRANSFER_TASKS = {task.name: task for task in (
    TransferTask('ade20k', 'IoUMetric', _SEGMENTATION, {size: _ADE20K.format(name) for size, name in _SIZES.items()}),
    TransferTask('camvid', 'IoUMetric', _SEGMENTATION, {(192, 16): 'segmentation/upernet_vit-mini-p16_camvid.py'}),
    TransferTask('coco', 'CocoMetric', _DETECTION, {size: _COCO.format(name) for size, name in _SIZES.items()}),
)}


def transfer_recipe(task: TransferTask, encoder: Encoder) -> str:
    """Find the config, below ``configs``, by which an encoder is transferred.

    Raises:
        SettingError: There is none for an encoder of this size.
    """
    size = encoder.width, int(encoder.backbone.get('patch_size', 16))
    if size not in task.recipes:
        known = ', '.join(f'width {width} and patch {patch}' for width, patch in task.recipes)
        raise SettingError(
            f'{encoder.path} has an encoder of width {size[0]} and patch {size[1]}, and for {task.name} there are configs '
            f'for {known}. Name one of your own by --{task.name}-config.'
        )
    return task.recipes[size]


def transfer_config(recipe: Config, encoder: Encoder) -> Config:
    """Put an encoder into a config of mmseg or mmdet: what to build a Runner from, but for its work dir and seed.

    Pixels are normalized as the encoder's were, and learning rates scaled to the batch size of all processes, if the recipe
    says for which one they were meant. All else is the recipe's, also the backbone, which the encoder fits or not.
    """
    cfg = copy.deepcopy(recipe)
    set_backbone(cfg, encoder.path)
    pixels = encoder.preprocessor_for(bgr=True)
    preprocessor = cfg.model.data_preprocessor
    preprocessor.update({key: list(pixels[key]) for key in ('mean', 'std') if pixels.get(key) is not None})
    preprocessor.update(bgr_to_rgb=bool(pixels['to_rgb']))
    preprocessor.pop('rgb_to_bgr', None)
    if 'auto_scale_lr' in cfg:
        cfg.auto_scale_lr.enable = True
    return cfg


def transfer(
    task: TransferTask, encoder: Encoder, folder: str, recipe: Config, seeds: Sequence[int] = (0, ), **kwargs
) -> ProtocolResult:
    """Train by a recipe and measure the last iteration on the recipe's test data.

    Args:
        task (TransferTask): The task.
        encoder (Encoder): The encoder.
        folder (str): Where runs are kept.
        recipe (Config): A config of mmseg or mmdet; see :func:`transfer_recipe`.
        seeds (Sequence[int]): A run for each. Defaults to (0, ).
        **kwargs: Other arguments of :func:`mmmlo.launch.training_run.train_and_measure`, whose errors it raises.

    Returns:
        ProtocolResult: For segmentation 'mIoU' and accuracies, for detection 'box AP' and 'mask AP', in per cent.

    Raises:
        MmmloError: The data is not as the recipe says, or the recipe does not measure this task's metrics.
    """
    evaluators = recipe.get('test_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
    if not any(task.evaluator in str(evaluator.get('type')) for evaluator in evaluators):
        raise SettingError(f'{recipe.filename} has no {task.evaluator} as test_evaluator, by which {task.name} is measured')
    cfg = transfer_config(recipe, encoder)
    check_transfer(cfg)
    name = f'{encoder.sha256[:12]}_{task.name}'
    try:
        return train_and_measure(task.name, cfg, folder, name, task.metrics, seeds, **kwargs)
    finally:
        # The run has made its framework's scope the current one, and what comes next may be mmpretrain's.
        DefaultScope.get_instance(f'after_{task.name}_{time.monotonic_ns()}', scope_name='mmpretrain')
