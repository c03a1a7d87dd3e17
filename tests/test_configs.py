"""Every pretraining config at its full size on the meta device, and shrunken through a real run."""

import glob
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.launch.config import enable_amp, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS
from mmmlo.utils.config import is_multi_level
from mmmlo.utils.errors import SettingError

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIGS = sorted(osp.relpath(path, ROOT) for path in glob.glob(osp.join(ROOT, 'configs', '*mae', '*.py')))
# D_tr and D_val of that one are scenes of a folder, which synthetic images of one kind cannot stand in for.
# Of learned_mae, those on CIFAR-10 and ImageNet run here; the others differ in their data.
RUNS = [
    path
    for path in CONFIGS
    if 'camvid' not in path and not ('learned_mae' in path and any(data in path for data in ('digits', 'folder')))
]
NANO = [path for path in RUNS if 'nano' in path]


def _once_a_method() -> list:
    """All runs, of which those are slow tests that repeat a method other than the three main ones on other data."""
    seen: set[str] = set()
    runs = []
    for path in sorted(RUNS, key=lambda path: 'nano' not in path):
        method = osp.basename(path).split('_vit')[0]
        again = method in seen and method not in ('mae', 'mlo-mae', 'cl-mae')
        runs.append(pytest.param(path, marks=pytest.mark.slow if again else ()))
        seen.add(method)
    return runs


# Encoder: patches + class token + positions + blocks + norm.
_NANO = (3 * 16 * 96 + 96) + 96 + 65 * 96 + 4 * (12 * 96 * 96 + 13 * 96) + 2 * 96
_MINI = (3 * 16 * 192 + 192) + 192 + 65 * 192 + 6 * (12 * 192 * 192 + 13 * 192) + 2 * 192
_BLOCKS = 12 * (12 * 768 * 768 + 13 * 768) + 2 * 768
_BASE_P2 = (3 * 4 * 768 + 768) + 768 + 257 * 768 + _BLOCKS
_BASE_P16 = (3 * 256 * 768 + 768) + 768 + 197 * 768 + _BLOCKS


def _encoder(width: int, depth: int, patch: int, length: int) -> int:
    blocks = depth * (12 * width * width + 13 * width) + 2 * width
    return (3 * patch**2 * width + width) + width + (length + 1) * width + blocks


def _decoder(encoder: int, width: int, depth: int, length: int, pixels: int) -> int:
    blocks = depth * (12 * width * width + 13 * width)
    return (encoder * width + width) + width + (length + 1) * width + blocks + 2 * width + (width * pixels + pixels)


def _masker(length: int, width: int) -> int:
    return (length * width * 512 + 512) + (512 * length + length)


def _vit_masker(length: int, width: int, hidden: bool) -> int:
    """Class token, five blocks, norm; from the class token to a score for each patch."""
    blocks = width + 5 * (12 * width * width + 13 * width) + 2 * width
    return blocks + hidden * (width * width + width) + width * length + length


def _head(width: int, classes: int) -> int:
    return 2 * width + width * classes + classes


def _fcos(width: int, channels: int, depth: int, levels: int) -> int:
    """Two towers with group norms, classes, boxes and centreness, and a factor a level."""
    tower = (9 * width * channels + 2 * channels) + (depth - 1) * (9 * channels * channels + 2 * channels)
    return 2 * tower + (80 + 4 + 1) * (9 * channels + 1) + levels


def _pyramid(width: int, channels: int) -> int:
    def last(wide: int) -> int:
        return wide * channels + 9 * channels * channels + 4 * channels

    half, quarter = width // 2, width // 4
    up = 4 * width * half + half
    return (up + 2 * half + 4 * half * quarter + quarter + last(quarter)) + (up + last(half)) + 2 * last(width)


_SIZES = {
    'vit-nano-p4': (_NANO + _decoder(96, 64, 2, 64, 48), 96, 64),
    'vit-nano-p8': (_encoder(96, 4, 8, 64) + _decoder(96, 64, 2, 64, 192), 96, 64),
    'vit-mini-p4': (_MINI + _decoder(192, 96, 2, 64, 48), 192, 64),
    'vit-mini-p16': (_encoder(192, 6, 16, 100) + _decoder(192, 96, 2, 100, 768), 192, 100),
    'vit-base-p2': (_BASE_P2 + _decoder(768, 512, 8, 256, 12), 768, 256),
    'vit-base-p16': (_BASE_P16 + _decoder(768, 512, 8, 196, 768), 768, 196),
    'vit-large-p16': (_encoder(1024, 24, 16, 196) + _decoder(1024, 512, 8, 196, 768), 1024, 196),
    'vit-huge-p14': (_encoder(1280, 32, 14, 256) + _decoder(1280, 512, 8, 256, 588), 1280, 256),
}


def expected_parameters(path: str, masker: str | None, head: str | None) -> int:
    count, width, length = next(sizes for name, sizes in _SIZES.items() if name in path)
    classes = 1000 if 'in1k' in path else 100 if 'cifar100' in path else 10
    if masker == 'mmmlo.ClassAttentionMasker':  # a copy of the encoder
        count = 2 * count - _decoder(width, *{96: (64, 2, 64, 48), 192: (96, 2, 64, 48), 768: (512, 8, 196, 768)}[width])
    elif masker == 'mmmlo.TeacherLossMasker':  # a copy of encoder and decoder
        count *= 2
    elif masker == 'mmmlo.PredictedLossMasker':  # a second decoder, and copies of that one and the encoder
        sizes = {96: (64, 2, length, 48), 192: (96, 2, length, 48), 768: (512, 8, length, 768)}
        count = 2 * count + _decoder(width, *sizes[width])
    elif masker == 'mmmlo.AttentionMapMasker':  # a copy of the encoder, two convolutions, and the discriminator
        heads = 12 if width == 768 else 3
        count += next(encoder for name, encoder in (('nano', _NANO), ('mini', _MINI), ('base', _BASE_P16)) if name in path)
        count += (9 * heads + 1) * (heads // 2) + 9 * (heads // 2) + 1 + 16 * 16 + 16 * 32 * 16 + 9 * 32
    elif masker == 'mmmlo.UNetMasker':
        patch = 16 if width == 768 else 4
        count += (3 * patch**2 * 64 + 64) + 5 * (9 * 64 * 64 + 64 + 2 * 64) + 2 * (64 * 64 + 64) + (4 * 64 + 4)
    if 'supmae' in path:
        count += _head(width, classes)
    if masker == 'mmmlo.MLPMasker':
        count += _masker(length, width)
        count += 0 if '-guided' in path and 'mix' not in path else _head(width, classes)
        # A linear layer on each patch.
        count += 150 * (width + 1) if 'ade20k' in path else 11 * (width + 1) if 'camvid' in path or 'mix' in path else 0
        if 'coco' in path:
            count += _fcos(192, 96, 2, 1) if 'mini' in path else _pyramid(768, 256) + _fcos(256, 256, 4, 5)
        if 'reconstruction' in path:
            count += _decoder(width, 96, 1, length, 48)
    elif masker == 'mmmlo.ViTMasker' and head == 'token':  # one block, and from each patch a score
        count += width + (12 * width * width + 13 * width) + 2 * width + width + 1
    elif masker == 'mmmlo.ViTMasker':
        count += _vit_masker(length, width, hidden=head != 'linear')
    elif masker == 'mmmlo.ConvMasker':
        count += (3 * 16 * 128 + 128) + 2 * (256 + 9 * 128 * 128 + 128) + 256 + 129
        count += 0 if 'ridge' in path else _head(width, classes)
    elif masker == 'mmmlo.AttentionMasker':
        blocks = 2 * (2 * 96 + (96 * 192 + 192) + (192 * 96 + 96)) + 2 * 96
        side = 32 if 'p16' in path else 8  # a patch with half a patch around it
        count += (3 * side**2 * 96 + 96) + blocks + 97 + _head(96, classes)
    return count


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('mae/benchmarks/vit-nano-p4_1xb64-coslr-20e_digits.py', 'Is it mmmlo::benchmarks/vit-nano-p4_1xb64'),
        ('mlo_mae/ablations/mlo-mae_conv-masker.py', 'It is a variant in configs/ablations/studies.json now, which'),
        ('cl_mae/cl-mae_vit-mini-p4_cifar10_no-kl.py', 'It is a variant in configs/ablations/studies.json now, which'),
    ],
)
def test_an_old_path_names_the_new_one(old, new):
    with pytest.raises(FileNotFoundError, match=f'{old} does not exist. {new}'):
        load_config(osp.join(ROOT, 'configs', old))


def test_a_module_that_is_not_found_says_how_it_would_be(tmp_path):
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports=['my_maskers'])")
    with pytest.raises(SettingError, match="mine.py: custom_imports: .*'?my_maskers'?.*PYTHONPATH=. before the command$"):
        load_config(str(tmp_path / 'mine.py'))


@pytest.mark.parametrize('runtime', ['default_runtime', 'segmentation/runtime', 'detection/runtime'])
def test_every_runtime_has_the_hooks_that_guard_a_run(runtime):
    hooks = load_config(osp.join(ROOT, f'configs/_base_/{runtime}.py')).default_hooks
    for name in ('verify_pretrained', 'check_classes', 'non_finite_guard', 'provenance'):
        assert hooks[name] == dict(type=f'mmmlo.{name.title().replace("_", "")}Hook')


@pytest.mark.parametrize('path', CONFIGS)
def test_full_size(path):
    cfg = load_config(osp.join(ROOT, path))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    masker = cfg.model.get('masker', {})
    expected = expected_parameters(path, masker.get('type'), masker.get('head'))
    assert sum(p.numel() for p in model.parameters()) == expected


def run(cfg: Config, work_dir) -> Runner:
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.name}_{id(cfg)}'
    cfg.log_level = 'WARNING'
    cfg.launcher = 'none'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('path', _once_a_method())
def test_shrunken_run(path, tmp_path):
    # A cycle of a step: the upper level, where there is one, moves in each and not in every second one.
    every_step = any(name in path for name in ('cl_mae', 'guided_mae', 'supmae_vit-nano', '/automae', '/adios'))
    cfg = shrink(load_config(osp.join(ROOT, path)), cycles=4 if every_step else 2)
    runner = run(cfg, tmp_path)
    assert runner.iter == 4
    scalars = runner.message_hub.log_scalars
    levels = list(cfg.optim_wrapper.levels) if is_multi_level(cfg) else []
    for prefix in [f'{level}/' for level in levels] or ['']:
        assert torch.isfinite(torch.tensor(scalars[f'train/{prefix}loss'].current()))
    if levels:
        often = {level for level in levels if level == 'pretrain' or every_step}
        steps = {level: 1 if level == 'pretrain' else cfg.optim_wrapper.levels[level].get('steps', 1) for level in levels}
        assert runner.optim_wrapper.step_counts == {level: (4 if level in often else 2) * steps[level] for level in levels}
    assert 0 < scalars['train/masks/overlap'].current() <= 1
    if cfg.val_cfg is None:
        return  # no labels, nothing to validate
    assert 0 <= scalars['val/knn/top1'].current() <= 100
    assert runner.test_dataloader is not None
    assert 0 <= runner.test()['knn/top1'] <= 100


@pytest.mark.parametrize('path', NANO)
def test_amp_reaches_every_level(path, tmp_path):
    cfg = shrink(load_config(osp.join(ROOT, path)))
    enable_amp(cfg)
    wrapper = run(cfg, tmp_path).optim_wrapper
    kinds = {type(w).__name__ for w in (wrapper.values() if is_multi_level(cfg) else [wrapper])}
    assert kinds == {'BFloat16OptimWrapper'}


@pytest.mark.parametrize('path', NANO)
def test_learning_rates_scale_on_every_level(path, tmp_path):
    cfg = shrink(load_config(osp.join(ROOT, path)))
    cfg.param_scheduler = None
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=2)
    wrapper = run(cfg, tmp_path).optim_wrapper
    configured = {'': cfg.optim_wrapper.get('optimizer')} if not is_multi_level(cfg) else {
        f'{level}.': c.optimizer for level, c in cfg.optim_wrapper.levels.items()
    }
    for prefix, optimizer in configured.items():
        assert wrapper.get_lr()[f'{prefix}lr'][0] == pytest.approx(4 * optimizer.lr)
