"""A pretrained encoder by itself, as the evaluation protocols use it."""

import ast
import copy
from collections.abc import Mapping
from dataclasses import dataclass

from mmengine.config import Config, ConfigDict
from mmengine.utils import to_2tuple
from torch import nn

from mmmlo import compat
from mmmlo.registry import MODELS
from mmmlo.utils.checkpoints import Checkpoint, CheckpointError, file_hash, read_checkpoint
from mmmlo.utils.key_report import KeyReport, load_weights
from mmmlo.utils.text import describe_error

__all__ = ['ARCHITECTURE', 'Encoder', 'checkpoint_config', 'load_encoder']

# Settings of a backbone that say which weights it has and what they are, whatever it is used for.
ARCHITECTURE = (
    'arch', 'img_size', 'patch_size', 'in_channels', 'qkv_bias', 'norm_cfg', 'pre_norm', 'patch_cfg', 'layer_cfgs'
)
# Settings of a loader of images that say what an encoder sees.
_LOADER = ('channels', 'color_type', 'max_value', 'min_value', 'to_float32', 'imdecode_backend')


@dataclass
class Encoder:
    """The encoder of the checkpoint at ``path``, with its hash and the configs of its backbone and data preprocessor.

    Attributes:
        model (nn.Module): mmpretrain's ``ImageClassifier`` without neck and head: ``data_preprocessor`` and
            ``extract_feat``, which gives B x (1 + L) x C, class token first.
        width (int): Channels C of a token.
        image_size (tuple[int, int]): Height and width in pixels that it was pretrained with.
        rgb (bool): Whether it was pretrained on channels in the order red, green, blue.
        loader (dict): The transform that loaded its images, with their channels and depth.
        method (str): The class of the algorithm that trained it.
        iteration (int | None): How long, if the checkpoint says so.
    """

    path: str
    sha256: str
    model: nn.Module
    backbone: ConfigDict
    preprocessor: ConfigDict
    width: int
    image_size: tuple[int, int]
    rgb: bool
    loader: dict
    method: str
    iteration: int | None
    report: KeyReport

    def preprocessor_for(self, bgr: bool) -> dict:
        """The config of the data preprocessor for images that come in OpenCV's order of channels or in the other."""
        return dict(self.preprocessor, to_rgb=bgr == self.rgb)


def load_encoder(path: str, config: Config | None = None) -> Encoder:
    """Build the encoder of a checkpoint, in training mode, and load its weights.

    Args:
        path (str): A checkpoint of this project, or one with the encoder alone.
        config (Config, optional): The config that it was pretrained by. Defaults to the one in the checkpoint.

    Raises:
        CheckpointError: The file is no checkpoint, has no config though none is given, or does not fit the config.
    """
    checkpoint = read_checkpoint(path)
    cfg = checkpoint_config(path, checkpoint) if config is None else config
    model_cfg = ConfigDict(cfg.get('model') or {})
    whose = f'the config in {path}' if config is None else str(config.filename or 'the config')
    if 'backbone' not in model_cfg:
        raise CheckpointError(f'{whose} has no model.backbone to evaluate')
    backbone = copy.deepcopy(model_cfg.backbone)
    backbone.pop('init_cfg', None)  # this file is the last to write its weights
    backbone.update(out_type='raw')
    if backbone.get('type') in ('MAEViT', 'mmpretrain.MAEViT'):
        backbone.type = 'mmmlo.MaskedViT'  # the same parameters, and it encodes whole images
        backbone.pop('mask_ratio', None)
    preprocessor = ConfigDict(copy.deepcopy(model_cfg.get('data_preprocessor') or cfg.get('data_preprocessor') or {}))
    preprocessor.setdefault('type', 'SelfSupDataPreprocessor')
    try:
        with MODELS.switch_scope_and_registry(cfg.get('default_scope') or 'mmpretrain'):
            model = MODELS.build(
                dict(type='mmpretrain.ImageClassifier', backbone=backbone, data_preprocessor=MODELS.build(preprocessor))
            )
    except Exception as error:  # whatever a model's own code raises
        raise CheckpointError(f'the encoder of {whose} cannot be built: {describe_error(error)}') from error
    loader = _loader(cfg)
    report = load_weights(model.backbone, checkpoint.encoder, path)
    return Encoder(
        path=path,
        sha256=file_hash(path),
        model=model,
        backbone=backbone,
        preprocessor=preprocessor,
        width=int(model.backbone.embed_dims),
        image_size=tuple(to_2tuple(backbone.get('img_size', 224))),
        rgb=bool(preprocessor.get('to_rgb', False)) == bool(loader),
        loader=loader or dict(type='mmmlo.LoadImage'),
        method=_method(checkpoint, model_cfg),
        iteration=checkpoint.meta.get('iter'),
        report=report,
    )


def _method(checkpoint: Checkpoint, model_cfg: Mapping) -> str:
    """The algorithm by the checkpoint's own config, because one config may serve several methods' checkpoints.

    That config is parsed and not run: where another config was asked for, no code out of the file needs to run.
    """
    kind = str(model_cfg.get('type'))
    for node in ast.parse(str(checkpoint.meta.get('cfg', ''))).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'model' and isinstance(node.value, ast.Call):
            kind = next((ast.literal_eval(word.value) for word in node.value.keywords if word.arg == 'type'), kind)
    return kind.split('.')[-1]


def _loader(cfg: Config) -> dict | None:
    """The transform that loads the images that the model was trained on; None where the dataset holds arrays.

    mmcv's loaders return blue, green, red; arrays, of CIFAR and the digits, are red, green, blue.
    """
    dataset = (cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}).get('dataset')
    while dataset is not None:
        if dataset.get('pipeline') is not None:
            loaders = [dict(transform) for transform in dataset['pipeline'] if 'LoadImage' in str(transform.get('type'))]
            told = {key: loaders[0][key] for key in _LOADER if key in loaders[0]} if loaders else {}
            return dict(told, type='mmmlo.LoadImage') if loaders else None
        dataset = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
    return dict(type='mmmlo.LoadImage')


def checkpoint_config(path: str, checkpoint: Checkpoint) -> Config:
    """Read the config that mmengine wrote into a checkpoint, whose ``path`` is for messages. A config is Python code.

    Raises:
        CheckpointError: It has none, or one that cannot be read.
    """
    text = checkpoint.meta.get('cfg')
    if not isinstance(text, str):
        raise CheckpointError(f"{path} holds no config (meta['cfg'] of an mmengine checkpoint)")
    compat.apply()
    try:
        return compat.fix_config(Config.fromstring(text, '.py'))
    except Exception as error:  # a config is Python
        raise CheckpointError(f'the config in {path} cannot be read: {describe_error(error)}') from error
