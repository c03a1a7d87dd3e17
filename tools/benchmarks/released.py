"""The released MLO-MAE and CL-MAE as they stand in a user's checkouts, to be timed and compared.

Nothing of theirs is edited or repeated here. What they need beside a current PyTorch is handed to them from outside; the
list is in ``compare_released.py``.
"""

import argparse
import ast
import importlib
import itertools
import math
import os
import os.path as osp
import sys
import types
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import Cycle
from options import Shape
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision import transforms
from variants import CLASSES, MASK_RATIO, make_batch

# The defaults of CL-MAE's training script.
RELEASED_WEIGHTS = dict(lambda_gauss=1.0, lambda_kl=0.1, lambda_diversity=2.0)


def import_released(checkout: str, name: str) -> types.ModuleType:
    """Import a module of a checkout, and leave no trace of it: the released projects have modules of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, checkout)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(checkout)
        root = osp.abspath(checkout) + '/'
        for module in set(sys.modules) - before:
            if osp.abspath(getattr(sys.modules[module], '__file__', None) or '').startswith(root):
                del sys.modules[module]


def use_betty(checkout: str) -> None:
    """Make ``import betty`` find a checkout, whose packaging refuses Python 3.11 and newer, and silence its log."""
    if checkout not in sys.path:
        sys.path.insert(0, checkout)
    from betty.logging.logger_base import get_logger

    get_logger().setLevel('WARNING')


class AdamW(torch.optim.AdamW):
    """PyTorch's, which takes the ``decoupled_weight_decay`` that it has itself put among its ``defaults``.

    Betty 0.2.1 builds every optimizer anew from its ``defaults``.
    """

    def __init__(self, params: Any, *args: Any, decoupled_weight_decay: bool = True, **kwargs: Any) -> None:
        super().__init__(params, *args, **kwargs)


class Overlay:
    """A module, some of whose names stand for something else."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _silent(*args: Any, **kwargs: Any) -> None:
    """In place of ``print`` and of logging to the net."""


def definitions(path: str, names: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    """Take functions and classes out of a script, without running the rest of it: name -> function or class.

    ``given`` is what the script's own imports would have defined for them.
    """
    with open(path) as file:
        tree = ast.parse(file.read(), path)
    wanted = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names]
    absent = set(names) - {node.name for node in wanted}
    if absent:
        raise RuntimeError(f'{path} does not define {sorted(absent)}; is it another version of the released code?')
    space = dict(given, __name__='released', __file__=path)
    exec(compile(ast.Module(wanted, []), path, 'exec'), space)
    return {name: space[name] for name in names}


def _sizes(shape: Shape) -> dict[str, Any]:
    """What both released autoencoders take, under the names of MAE's own."""
    return dict(
        img_size=shape.img_size,
        patch_size=shape.patch_size,
        embed_dim=shape.dims,
        depth=shape.depth,
        num_heads=shape.heads,
        decoder_embed_dim=shape.decoder_dims,
        decoder_depth=shape.decoder_depth,
        decoder_num_heads=shape.decoder_heads,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def mlo_mae(checkout: str, betty: str, shape: Shape, rates: dict[str, float], device: str) -> Any:
    """Run the released script's own ``main`` up to where its engine would start training.

    Args:
        checkout (str): Of the released MLO-MAE.
        betty (str): Of Betty.
        shape (Shape): The sizes.
        rates (dict[str, float]): Level -> learning rate.
        device (str): 'cpu' or 'cuda'.

    Returns:
        Engine: Betty's, with the problems ``pretrain``, ``finetune`` and ``mask``, each with one batch from memory.
    """
    use_betty(betty)
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    script = osp.join(checkout, 'main_cifar10.py')
    models = import_released(checkout, 'cifar_mae_model')
    heads = import_released(checkout, 'cifar_vit_mlo')
    held: list[Any] = []

    class Held(Engine):
        def run(self) -> None:
            held.append(self)

    autoencoder = partial(models.MaskedAutoencoderViT, **_sizes(shape))
    masker = partial(models.MLOPatchMasking, in_features=shape.length * shape.dims, out_features=shape.length)
    given = dict(
        argparse=argparse,
        os=os,
        np=np,
        F=F,
        transforms=transforms,
        CosineAnnealingLR=CosineAnnealingLR,
        cudnn=torch.backends.cudnn,
        torch=Overlay(torch, optim=Overlay(torch.optim, AdamW=AdamW)),
        optim_factory=types.SimpleNamespace(param_groups_weight_decay=param_groups_weight_decay),
        models_mae_mlo_ddp=types.SimpleNamespace(cifar10_mae_vit_base_patch16=autoencoder, MLOPatchMasking=masker),
        models_vit_mlo_ddp=types.SimpleNamespace(
            FinetuneVisionTransformer=partial(heads.FinetuneVisionTransformer, num_classes=CLASSES, embed_dim=shape.dims)
        ),
        # As many images as CIFAR-10 has, by which the script counts its iterations; none of them is loaded.
        datasets=types.SimpleNamespace(CIFAR10=lambda *_, train, **__: range(50_000 if train else 10_000)),
        misc=types.SimpleNamespace(get_rank=lambda: 0),
        wandb=types.SimpleNamespace(init=_silent, log=_silent),
        print=_silent,
        Engine=Held,
        ImplicitProblem=ImplicitProblem,
        Config=Config,
        EngineConfig=partial(EngineConfig, strategy='gpu' if device.startswith('cuda') else 'cpu'),
    )
    found = definitions(script, ('get_args_parser', 'main'), given)
    options = dict(
        batch_size=shape.batch_size,
        finetune_batchsize=shape.batch_size,
        masking_batchsize=shape.batch_size,
        mask_ratio=MASK_RATIO,
        num_workers=0,
        device=device,
        lr=rates['pretrain'],
        finetune_lr=rates['finetune'],
        masking_lr=rates['masking'],
    )
    arguments = [f'--{name}={value}' for name, value in options.items()]
    found['main'](found['get_args_parser']().parse_args([*arguments, '--no_pin_mem']))
    (engine,) = held
    for seed, problem in enumerate(engine.problems):
        problem.train_data_iterator = [itertools.repeat(make_batch(shape, device, seed))]
    engine.run = partial(Engine.run, engine)
    engine.train_iters = 2  # a cycle: Betty calls the upper levels when they are due
    return engine


def mlo_mae_cycle(checkout: str, betty: str, shape: Shape, rates: dict[str, float], device: str) -> Cycle:
    """Build the released MLO-MAE, whose cycle has two pretrain steps, a finetune and a masking step."""
    return mlo_mae(checkout, betty, shape, rates, device).run


def cl_mae(checkout: str, shape: Shape, device: str, double: bool = False, norm_pix: bool = False) -> nn.Module:
    """Build the released model of CL-MAE, with the weights of the losses that its script has by default.

    ``double``: in float64, also where the released code casts to float32. ``norm_pix``: with normalized pixels.
    """
    models = import_released(checkout, 'models_mae')
    if double:
        models.torch = Overlay(torch, float32=torch.float64)
    model = models.MaskedAutoencoderViT(**_sizes(shape), **RELEASED_WEIGHTS, norm_pix_loss=norm_pix)
    return model.to(device, torch.float64 if double else torch.float32)


def cl_mae_cycle(checkout: str, shape: Shape, rate: float, device: str) -> Cycle:
    """Build the released CL-MAE, whose own loop runs epochs of one iteration: an MAE step and a masking step on a batch."""
    sys.modules['torch._six'] = types.SimpleNamespace(inf=math.inf)  # type: ignore[assignment]  # gone since PyTorch 2.0
    loop = import_released(checkout, 'engine_pretrain')
    loop.print = loop.misc.print = _silent
    if not device.startswith('cuda'):
        loop.torch = Overlay(torch, cuda=Overlay(torch.cuda, synchronize=_silent))
    model = cl_mae(checkout, shape, device)
    # In place of DistributedDataParallel, without which the loop does not run. Not registered: it would contain itself.
    model.__dict__['module'] = model
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=rate, betas=(0.9, 0.95))
    scalers = [loop.misc.NativeScalerWithGradNormCount() for _ in range(2)]
    # A schedule without warm-up begins at the full rate.
    args = types.SimpleNamespace(accum_iter=1, mask_ratio=MASK_RATIO, lr=rate, min_lr=0.0, warmup_epochs=0, epochs=200)
    loader = [make_batch(shape, device)]
    place = torch.device(device)
    return partial(loop.train_one_epoch, model, loader, optimizer, place, 0, 1.0, *scalers, None, args)
