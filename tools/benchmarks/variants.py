"""What of this project and of mmpretrain is timed: built from this project's configs, only sizes replaced."""

import argparse
import os.path as osp
from functools import partial
from typing import Any

import torch
from measure import Cycle
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.utils import to_2tuple
from mmpretrain.structures import DataSample
from options import Shape
from torch import nn
from torch.profiler import record_function

import mmmlo.engine  # noqa: F401  registers the optimizer wrappers
from mmmlo.launch.config import enable_amp, load_config
from mmmlo.models import BaseMaskedAutoencoder
from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

CONFIGS = osp.join(osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))), 'configs')
NAMES = {
    'MAE': 'mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py',
    'MLO-MAE': 'mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py',
    'CL-MAE': 'cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py',
}
MMPRETRAIN = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
CLASSES = 10
MASK_RATIO = 0.75


def config(method: str, shape: Shape) -> Config:
    """The config of a method, a key of ``NAMES``, as in its file but for the sizes."""
    cfg = load_config(osp.join(CONFIGS, NAMES[method]))
    arch = dict(embed_dims=shape.dims, num_layers=shape.depth, num_heads=shape.heads, feedforward_channels=4 * shape.dims)
    cfg.model.backbone.update(arch=arch, img_size=shape.img_size, patch_size=shape.patch_size)
    cfg.model.neck.update(
        grid=shape.grid,
        patch_size=shape.patch_size,
        embed_dim=shape.dims,
        decoder_embed_dim=shape.decoder_dims,
        decoder_depth=shape.decoder_depth,
        decoder_num_heads=shape.decoder_heads,
    )
    cfg.model.head.patch_size = shape.patch_size
    if 'masker' in cfg.model:
        cfg.model.masker.update(grid=shape.grid, embed_dims=shape.dims)
    if 'downstream' in cfg.model:
        cfg.model.downstream.update(in_channels=shape.dims, num_classes=CLASSES)
    return cfg


def mlo_mae_config(shape: Shape) -> Config:
    """Our MLO-MAE with the released code's trained positions and ReLU."""
    cfg = config('MLO-MAE', shape)
    cfg.model.backbone.learnable_pos_embed = True
    cfg.model.masker.act_cfg = dict(type='ReLU')
    return cfg


def learning_rates(cfg: Config) -> dict[str, float]:
    """Level -> learning rate of a config of several levels."""
    return {level: wrapper.optimizer.lr for level, wrapper in cfg.optim_wrapper.levels.items()}


def mmpretrain_config(shape: Shape) -> Config:
    """mmpretrain's MAE of this shape with the optimizer of mmpretrain's own config, in fp32, at our learning rate."""
    ours, theirs = config('MAE', shape), get_config(MMPRETRAIN)
    decoder = {name: value for name, value in ours.model.neck.items() if name not in ('type', 'grid', 'init_cfg')}
    backbone = {name: value for name, value in ours.model.backbone.items() if name not in ('type', 'init_cfg')}
    model = dict(
        type='mmpretrain.MAE',
        backbone=dict(type='mmpretrain.MAEViT', mask_ratio=MASK_RATIO, **backbone),
        neck=dict(type='mmpretrain.MAEPretrainDecoder', num_patches=shape.length, **decoder),
        head=dict(
            type='mmpretrain.MAEPretrainHead',
            norm_pix=True,
            patch_size=shape.patch_size,
            loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
        ),
    )
    optimizer = theirs.optim_wrapper.optimizer
    optimizer.update(lr=ours.optim_wrapper.optimizer.lr, betas=ours.optim_wrapper.optimizer.betas)
    wrapper = dict(type='OptimWrapper', optimizer=optimizer, paramwise_cfg=theirs.optim_wrapper.paramwise_cfg)
    return Config(dict(model=model, optim_wrapper=wrapper))


def build_model(cfg: Config, seed: int = 0) -> nn.Module:
    """Build and initialize a config's model; a seed always gives the same weights."""
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def make_batch(shape: Shape, device: str, seed: int = 0, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of noise, B x 3 x H x W, and their labels, B."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(shape.batch_size, 3, *to_2tuple(shape.img_size), generator=generator)
    labels = torch.randint(classes, (shape.batch_size,), generator=generator)
    return images.to(device), labels.to(device)


def our_batch(shape: Shape, device: str, seed: int = 0, classes: int = CLASSES) -> dict:
    """The same as a data preprocessor returns it."""
    images, labels = make_batch(shape, device, seed, classes)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])


def masking_config(args: argparse.Namespace) -> Config:
    """The config that a command line names, which must train a masked autoencoder of this project."""
    cfg = load_config(args.config, args.cfg_options)
    kind = MODELS.get(cfg.model.type)
    if kind is None or not issubclass(kind, BaseMaskedAutoencoder):
        raise SettingError(f'{cfg.filename} trains a {cfg.model.type}, not a masked autoencoder of this project')
    return cfg


class Training:
    """The model and optimizers of a config, and a batch of noise for each level, on the device.

    Args:
        cfg (Config): With ``model`` and ``optim_wrapper``, of ours or of mmpretrain.
        batch_size (int): Images a batch.
        device (str): 'cpu' or 'cuda'.
        amp (bool): Under bfloat16 autocast. Defaults to False.
    """

    def __init__(self, cfg: Config, batch_size: int, device: str, amp: bool = False) -> None:
        if amp:
            enable_amp(cfg)
        self.model: Any = build_model(cfg).to(device)
        self.wrapper: Any = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.multi_level = hasattr(self.wrapper, 'update_levels')
        self.iterations = self.wrapper.cadence.iterations if self.multi_level else 1
        shape = Shape(img_size=self.model.backbone.img_size, batch_size=batch_size)
        classes = getattr(getattr(self.model, 'downstream', None), 'num_classes', CLASSES)
        levels = self.wrapper.levels if self.multi_level else ['pretrain']
        self.batches = {level: our_batch(shape, device, seed, classes) for seed, level in enumerate(levels)}

    def cycle(self, iterations: int | None = None) -> None:
        """Run so many pretrain steps, by default those of a cycle, with what is due of the other levels."""
        for _ in range(iterations or self.iterations):
            if self.multi_level:
                due = self.wrapper.due()
                self.wrapper.update_levels(self.model, {name: [self.batches[name]] * count for name, count in due.items()})
                continue
            # As in mmengine's BaseModel.train_step, but for the data preprocessor.
            with record_function('level: pretrain'):
                with self.wrapper.optim_context(self.model):
                    losses = self.model.loss(**self.batches['pretrain'])
                self.wrapper.update_params(self.model.parse_losses(losses)[0])


def build_cycle(cfg: Config, batch_size: int, device: str, amp: bool = False, iterations: int = 2) -> Cycle:
    """Build a :class:`Training` and return its cycle; see :mod:`measure`."""
    return partial(Training(cfg, batch_size, device, amp).cycle, iterations)
