"""No step of any method waits for its device, or takes tensors from another one: all run on PyTorch's meta device.

Its tensors have no values. Reading one, as by ``.item()``, ``bool()``, ``.cpu()``, nonzero or a boolean mask, raises, and an
operation that mixes devices does too. So what passes here neither waits for a GPU nor forgets one. Fake CUDA tensors
(``FakeTensorMode``) would know a GPU's kernels too, but a PyTorch that is built without CUDA cannot differentiate them.
"""

import glob
import os.path as osp
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmmlo.engine.non_finite import FiniteSteps
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS
from mmmlo.utils.config import is_multi_level

ROOT = osp.join(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))), 'configs')
CONFIGS = [
    osp.relpath(path, ROOT)
    for pattern in ('*vit-nano*', '[mu]-mae_vit-mini*', '*conv-masker*', '*bilevel')
    for path in sorted(glob.glob(osp.join(ROOT, '*mae', f'{pattern}.py')))
]
MAE, MLO_MAE, RIDGE = (
    next(path for path in CONFIGS if path.startswith(name))
    for name in ('mae/mae_', 'mlo_mae/mlo-mae_', 'mlo_mae/mlo-mae-ridge')
)
BATCH = 16  # a head that is solved needs an image of each class


@OPTIMIZERS.register_module(name='_OnDevice')
class _OnDevice(torch.optim.Optimizer):
    """In place of AdamW, whose fused kernel has no meta version and whose others are not told by ``found_inf``."""

    def __init__(self, params, lr, weight_decay=0.0, **_):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, fused=True))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    p.mul_(1 - group['lr'] * group['weight_decay']).add_(p.grad * (1 - self.found_inf), alpha=-group['lr'])


class NoWaits(TorchDispatchMode):
    """Refuses what waits for a GPU beside reading values, on which the meta device raises by itself."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name != '_linalg_check_errors', 'a check of a factorization reads its result'
        if name in ('_to_copy', 'copy_'):
            devices = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            target = kwargs.get('device')
            devices |= {target.type} if target is not None else set()
            assert len(devices) == 1 or kwargs.get('non_blocking'), f'{name} copies between {devices}, which waits'
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_autocast_of_meta_tensors(monkeypatch):
    """There is none, and nothing to switch off: everything is fp32."""
    of_others = torch.autocast
    monkeypatch.setattr(
        torch,
        'autocast',
        lambda kind, *args, **kwargs: nullcontext() if kind == 'meta' else of_others(kind, *args, **kwargs),
    )
    made = torch.tensor

    def tensor(*args, device=None, **kwargs):
        assert torch.device(device or 'cpu').type == 'cpu', 'torch.tensor(..., device) copies from the host, and waits'
        return made(*args, device=device, **kwargs)

    monkeypatch.setattr(torch, 'tensor', tensor)


def batch_of(model):
    height, width = model.backbone.img_size
    channels = model.backbone.patch_embed.projection.in_channels
    samples = [DataSample().set_gt_label(torch.zeros(1, dtype=torch.long, device='meta')) for _ in range(BATCH)]
    for sample in samples:
        sample.set_field(torch.zeros(height, width, device='meta'), 'worth', field_type='metainfo')
    return dict(inputs=torch.zeros(BATCH, channels, height, width, device='meta'), data_samples=samples)


def run_cycles(cfg: Config, cycles: int = 2) -> dict:
    """Build on the host, move to the meta device, and run; what is logged last."""
    if not is_multi_level(cfg):
        cfg.optim_wrapper = dict(
            constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=dict(pretrain=cfg.optim_wrapper)
        )
    for level in cfg.optim_wrapper.levels.values():
        level.optimizer.type = '_OnDevice'
    model = MODELS.build(cfg.model)
    model.init_weights()
    model = model.to('meta').train()
    model.masker.moves = True  # as mmmlo.TeacherHook says
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    labelled = None
    if 'labelled' in (cfg.train_cfg.get('dataloaders') or {}):
        labelled = getattr(model, 'labelled_level', wrapper.base)
    logged: dict = {}
    for _ in range(cycles * wrapper.cadence.iterations):
        batches = {level: [batch_of(model) for _ in range(count)] for level, count in wrapper.due().items()}
        for batch in batches.get(labelled, ()):
            batch['labelled'] = batch_of(model)
        with NoWaits():
            logged |= wrapper.update_levels(model, batches)
            if hasattr(model.masker, 'move'):
                model.masker.move(model)
    for level in wrapper.levels:
        assert logged[f'{level}/loss'].is_meta and wrapper.step_counts[level] > 0
    return logged


def config(path: str, **model) -> Config:
    cfg = shrink(load_config(osp.join(ROOT, path)))
    cfg.model.update(model)
    return cfg


@pytest.mark.parametrize('path', CONFIGS)
def test_no_config_waits(path):
    run_cycles(config(path))


@pytest.mark.parametrize(
    'masker',
    [
        dict(type='mmmlo.BlockMasker'),
        dict(type='mmmlo.GridMasker'),
        dict(type='mmmlo.ColorMasker'),
        dict(type='mmmlo.PermutedMasker', masker=dict(type='mmmlo.ContrastMasker', patch_size=4)),
        dict(type='mmmlo.FrozenMasker', masker=dict(type='mmmlo.ViTMasker', embed_dims=48, depth=1, head='token')),
    ],
    ids=lambda masker: masker['type'],
)
def test_no_masker_waits(masker):
    for weighting in (None, 'SoftWeights', 'TopWeights'):
        run_with(masker, weighting and dict(type=f'mmmlo.{weighting}'))


def run_with(masker, weighting):
    cfg = config(MAE)
    weighted = MODELS.get(masker['type']).weighted
    cfg.model.update(masker=masker, weighting=weighting if weighted else None, temperature=0.5, guided_share=0.5)
    if masker['type'] != 'mmmlo.GridMasker':
        cfg.model.mask_ratio_range = (0.5, 0.75)
    run_cycles(cfg, cycles=1)


@pytest.mark.parametrize(
    'estimator',
    [
        dict(type='mmmlo.DoubleBackward', precondition='lr'),
        dict(type='mmmlo.FiniteDifference'),
        dict(type='mmmlo.Neumann', terms=2),
    ],
    ids=lambda estimator: estimator['type'],
)
def test_no_estimator_waits(estimator):
    cfg = config(MLO_MAE)
    cfg.optim_wrapper.levels.masking.hypergradient = estimator
    for level in cfg.optim_wrapper.levels.values():
        level.update(clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    run_cycles(cfg, cycles=1)


def test_no_closed_form_or_extra_loss_waits():
    for head in ('Ridge', 'SoftNeighbours'):
        cfg = config(RIDGE)
        cfg.model.downstream = dict(type=f'mmmlo.{head}Head', num_classes=10, in_channels=48, bank=20)
        run_cycles(cfg)
    run_cycles(config(MAE, extra_losses=dict(a=dict(type='mmmlo.UniformityLoss'), b=dict(type='mmmlo.LogDetLoss'))))


class _Done(Exception):
    pass


class _Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            raise _Done


@pytest.mark.parametrize('name', ['mae/anatomask_', 'cl_mae/cl-mae_', 'mlo_mae/mlo-mae_'])
def test_no_run_waits_before_it_logs(name, tmp_path, monkeypatch):
    """The runner with its loop, loaders, data preprocessor and hooks, but for those that measure masks before the start."""
    cfg = config(next(path for path in CONFIGS if path.startswith(f'{name}vit-nano')))
    for level in cfg.optim_wrapper.levels.values() if is_multi_level(cfg) else [cfg.optim_wrapper]:
        level.optimizer.type = '_OnDevice'
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None, work_dir=str(tmp_path), log_level='ERROR')
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if 'Statistics' not in hook.type]
    cfg.experiment_name = tmp_path.name
    if is_multi_level(cfg):
        cfg.train_cfg.max_iters = 8
    else:
        cfg.train_dataloader.num_batch_per_epoch = 8
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'meta')
    # Before the first step, and when something is logged.
    monkeypatch.setattr(FiniteSteps, 'read', lambda self: (0, 0))
    monkeypatch.setattr(FiniteSteps, 'load', lambda self, *counts: None)
    runner = Runner.from_cfg(cfg)
    monkeypatch.setattr(runner, '_init_model_weights', lambda: None)
    runner.register_hook(_Stop(), priority='LOWEST')
    with pytest.raises(_Done), NoWaits():
        runner.train()


@pytest.mark.parametrize(
    'read',
    [
        torch.Tensor.item,
        torch.Tensor.cpu,
        torch.Tensor.tolist,
        bool,
        float,
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3).to(x.device),
        lambda x: torch.linalg.inv(x * x.new_ones(3, 3)),
    ],
)
def test_what_waits_or_mixes_devices_is_found(read):
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), NoWaits():
        read(torch.zeros((), device='meta') if read in (bool, float, torch.Tensor.item) else torch.zeros(3, device='meta'))
