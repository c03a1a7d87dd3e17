"""Fine-tuning of a pretrained encoder by a benchmark config as recipe."""

import copy
from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from mmmlo.evaluation.data import EvaluationData
from mmmlo.evaluation.encoder import ARCHITECTURE, Encoder
from mmmlo.evaluation.results import ProtocolResult
from mmmlo.launch.config import set_backbone
from mmmlo.utils.errors import SettingError

from .training_run import train_and_measure

__all__ = ['finetune', 'finetune_config', 'finetune_recipe']

# Sets of photographs with a benchmark config of their own. All have MAE's recipe, at batch 128.
_PHOTOGRAPHS = ('cub', 'cars', 'food101', 'flowers102', 'pets', 'aircraft', 'inat2019')


def finetune_recipe(encoder: Encoder, data: EvaluationData) -> str:
    """The benchmark config, in ``configs/benchmarks``, whose recipe suits an encoder and a data set.

    MLO-MAE's recipes for CIFAR and small images, MAE's recipe by the encoder's width for the rest.
    """
    width = encoder.width
    if max(encoder.image_size) <= 64:
        if data.name in ('digits', 'cluttered_digits'):
            return 'vit-nano-p4_1xb64-coslr-20e_digits.py'
        if data.name in ('cifar10', 'cifar100'):
            batch = '1xb128' if width < 768 else dict(cifar10='1xb64', cifar100='1xb256')[data.name]
            return f'vit-{"mini-p4" if width < 768 else "base-p2"}_{batch}-coslr-100e_{data.name}.py'
        return 'vit-mini-p4_1xb128-coslr-100e_image-folder.py'
    if width < 1024:
        if data.name == 'imagenet':
            return 'vit-base-p16_8xb128-coslr-100e_in1k.py'
        return f'vit-base-p16_1xb128-coslr-100e_{data.name if data.name in _PHOTOGRAPHS else "image-folder"}.py'
    return 'vit-large-p16_8xb128-coslr-50e_in1k.py' if width < 1280 else 'vit-huge-p14_8xb128-coslr-50e_in1k.py'


def finetune_config(recipe: Config, encoder: Encoder, data: EvaluationData) -> Config:
    """Put an encoder and a data set into a benchmark config: what to build a Runner from, but for its work dir and seed.

    From the recipe stay the head, the regularization, the augmentation, the batch size, the optimizer and the schedule. Its
    learning rate is scaled to the batch size of all processes, if it says for which one it was meant. All of the training
    split is trained on; the test split is looked at once, at the end.

    Raises:
        SettingError: The recipe has no classifier with a backbone and a head.
    """
    cfg = copy.deepcopy(recipe)
    if 'backbone' not in (cfg.get('model') or {}) or 'head' not in cfg.model:
        raise SettingError(f'--finetune-config {recipe.filename} has no model with a backbone and a head')
    train = data.build('train', encoder.image_size)
    num_classes = len(train.metainfo['classes'])

    model = cfg.model
    # The rest of the backbone, as drop path and what it returns, is the recipe's.
    own = {key: encoder.backbone[key] for key in ARCHITECTURE if key in encoder.backbone}
    kept = {key: value for key, value in model.backbone.items() if key not in ARCHITECTURE}
    model.backbone = ConfigDict(**kept, **own)
    set_backbone(cfg, encoder.path)
    model.head.update(num_classes=num_classes, in_channels=encoder.width)
    if (model.get('neck') or {}).get('input_features'):
        model.neck.input_features = encoder.width
    pixels = encoder.preprocessor_for(data.bgr)
    model.data_preprocessor = ConfigDict(
        num_classes=num_classes, **{key: pixels[key] for key in ('mean', 'std', 'to_rgb') if key in pixels}
    )

    loader = cfg.train_dataloader
    pipeline = _resized(loader.dataset.pipeline, data, encoder.image_size)
    loader.dataset = ConfigDict(data.splits['train'], pipeline=pipeline)
    cfg.test_dataloader.dataset = ConfigDict(data.config('test', encoder.image_size))
    # The test split is measured by Runner.test after the last epoch, and by nothing before.
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.train_cfg.pop('val_interval', None)
    cfg.test_evaluator = ConfigDict(type='Accuracy', topk=(1, 5) if num_classes > 5 else (1, ))
    if 'auto_scale_lr' in cfg:
        cfg.auto_scale_lr.enable = True
    return cfg


def _resized(pipeline: list, data: EvaluationData, image_size: tuple[int, int]) -> list:
    """The recipe's training pipeline for images of a data set at the size of an encoder."""
    height, width = image_size
    transforms = [copy.deepcopy(dict(t)) for t in pipeline if 'LoadImage' not in str(t['type']) and t['type'] != 'Resize']
    for transform in transforms:
        if transform['type'] == 'RandomResizedCrop':
            transform['scale'] = (width, height)
        elif transform['type'] == 'RandomCrop':
            transform['crop_size'] = (width, height)
    # Where the recipe crops at random scales, images come as they are; elsewhere as they do for features.
    before = data.config('train', image_size)['pipeline'][:-1]
    if any(transform['type'] == 'RandomResizedCrop' for transform in transforms):
        before = [transform for transform in before if 'LoadImage' in transform['type']]
    return [*before, *transforms]


def finetune(
    encoder: Encoder, data: EvaluationData, folder: str, recipe: Config, seeds: Sequence[int] = (0, 1, 2), **kwargs
) -> ProtocolResult:
    """Fine-tune an encoder and measure the last epoch on the test split.

    Args:
        encoder (Encoder): The encoder.
        data (EvaluationData): The images.
        folder (str): Where runs are kept.
        recipe (Config): A benchmark config; see :func:`finetune_recipe`.
        seeds (Sequence[int]): Seeds of the head, the order of images and the augmentation. Defaults to (0, 1, 2).
        **kwargs: Other arguments of :func:`mmmlo.launch.training_run.train_and_measure`, whose errors it raises.

    Returns:
        ProtocolResult: Metrics 'top1' and, with more than five classes, 'top5', in per cent.
    """
    cfg = finetune_config(recipe, encoder, data)
    images = [data.fingerprint(split, encoder.image_size) for split in ('train', 'test')]
    metrics = {f'accuracy/{name}': (name, 1.0) for name in ('top1', 'top5')}
    name = f'{encoder.sha256[:12]}_{data.name}'
    return train_and_measure('finetune', cfg, folder, name, metrics, seeds, identity=images, **kwargs)
