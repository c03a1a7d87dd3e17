"""Benchmark configs: the recipes from what is built, and one of each kind, shrunken, through a real run."""

import glob
import math
import os.path as osp

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner

from mmmlo.evaluation.data import find_data
from mmmlo.launch.config import enable_amp, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import DATASETS, MODELS

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
# Width, depth, side of a patch, patches.
SIZES = {
    'vit-base-p16': (768, 12, 16, 196),
    'vit-large-p16': (1024, 24, 16, 196),
    'vit-huge-p14': (1280, 32, 14, 256),
    'vit-base-p2': (768, 12, 2, 256),
    'vit-mini-p4': (192, 6, 4, 64),
    'vit-nano-p4': (96, 4, 4, 64),
}
# Classes and training images of the sets that have MAE's recipe with fewer images than ImageNet.
FINE_GRAINED = dict(
    aircraft=(100, 6667),
    cars=(196, 8144),
    cub=(200, 5994),
    flowers102=(102, 2040),
    food101=(101, 75750),
    inat2019=(1010, 265213),
    pets=(37, 3680),
)
CLASSES = dict(in1k=1000, cifar10=10, cifar100=100, digits=10, **{data: n for data, (n, _) in FINE_GRAINED.items()})
# Epochs, warm-up epochs, learning rate at the config's batch, that batch, last learning rate over the first.
SCHEDULES = {
    'vit-base-p16_8xb128-coslr-100e_in1k': (100, 5, 2e-3, 1024, 5e-4),
    'vit-large-p16_8xb128-coslr-50e_in1k': (50, 5, 4e-3, 1024, 2.5e-4),
    'vit-huge-p14_8xb128-coslr-50e_in1k': (50, 5, 4e-3, 1024, 2.5e-4),
    'vit-base-p16_8xb2048-linear-coslr-90e_in1k': (90, 10, 6.4, 16384, 0),
    'vit-large-p16_8xb2048-linear-coslr-50e_in1k': (50, 10, 6.4, 16384, 0),
    'vit-huge-p14_8xb2048-linear-coslr-50e_in1k': (50, 10, 6.4, 16384, 0),
    'vit-base-p2_1xb64-coslr-100e_cifar10': (100, 0, 1e-4, 64, 0),
    'vit-base-p2_1xb256-coslr-100e_cifar100': (100, 0, 1e-4, 256, 0),
    'vit-mini-p4_1xb128-coslr-100e_cifar10': (100, 0, 1e-4, 128, 0),
    'vit-mini-p4_1xb128-coslr-100e_cifar100': (100, 0, 1e-4, 128, 0),
    'vit-mini-p4_1xb128-coslr-100e_image-folder': (100, 0, 1e-4, 128, 0),
    'vit-nano-p4_1xb64-coslr-20e_digits': (20, 0, 1e-3, 64, 0),
}
FINETUNE, LINEAR, CIFAR, DIGITS = (list(SCHEDULES)[index] for index in (0, 3, 6, 11))
# Layers' rates and drop path of MAE's fine-tuning.
DECAYED = {name: value for name, value in zip(SCHEDULES, [(0.65, 0.1), (0.75, 0.2), (0.75, 0.3)])}
PHOTOGRAPHS = {data: f'vit-base-p16_1xb128-coslr-100e_{data}' for data in (*FINE_GRAINED, 'image-folder')}
SCHEDULES.update({name: (100, 5, 2.5e-4, 128, 5e-4) for name in PHOTOGRAPHS.values()})
PETS = PHOTOGRAPHS['pets']
DECAYED[PETS] = (0.65, 0.1)


@pytest.fixture(autouse=True)
def default_scope():
    """What a runner does with the configs' default_scope."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def path_of(name: str) -> str:
    return osp.join(ROOT, 'configs', 'benchmarks', f'{name}.py')


def load(name: str) -> Config:
    return load_config(path_of(name))


def build(cfg: Config) -> tuple[torch.nn.Module, OptimWrapper]:
    """Model and optimizer at full size, without memory for them."""
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def learning_rates(cfg: Config, wrapper: OptimWrapper, epoch_length: int) -> list[list[float]]:
    """Learning rate of each group in each iteration of a run, followed by the configured one."""
    schedules = []
    for schedule in cfg.param_scheduler:
        kwargs = dict(schedule, optimizer=wrapper)
        cls = PARAM_SCHEDULERS.get(kwargs.pop('type'))
        if kwargs.pop('convert_to_iter_based', False):
            schedules.append(cls.build_iter_from_epoch(epoch_length=epoch_length, **kwargs))
        else:
            schedules.append(cls(**kwargs))
    wrapper.step()  # a schedule warns if it moves before any step; there is no gradient
    rates = []
    for iteration in range(1, cfg.train_cfg.max_epochs * epoch_length + 1):
        rates.append([group['lr'] for group in wrapper.param_groups])
        for schedule in schedules:
            if not schedule.by_epoch or iteration % epoch_length == 0:
                schedule.step()
    return rates


def test_every_config_is_here():
    assert sorted(map(path_of, SCHEDULES)) == sorted(glob.glob(path_of('*')))
    for name in SCHEDULES:
        with open(path_of(name), encoding='utf-8') as file:
            header = file.read()
        assert f'configs/benchmarks/{name}.py' in header and '--backbone CHECKPOINT' in header


@pytest.mark.parametrize('name', SCHEDULES)
def test_full_size(name):
    cfg = load(name)
    model, wrapper = build(cfg)
    width, depth, patch, length = SIZES[name.split('_')[0]]
    classes = CLASSES.get(name.split('_')[-1], 10)
    # One norm behind the blocks, ln1 or ln2.
    encoder = (3 * patch**2 * width + width) + (length + 2) * width + depth * (12 * width**2 + 13 * width) + 2 * width
    head = width * classes + classes + (patch < 14) * 2 * width  # MLO-MAE's head has a norm
    assert sum(p.numel() for p in model.parameters()) == encoder + head
    assert type(model.backbone).__name__ == 'VisionTransformer' and model.backbone.init_cfg is None

    given = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(given) == sorted(trainable)
    if 'linear' in name:
        assert trainable == {id(p) for p in model.head.parameters()}

    epochs, warmup, peak, batch, last = SCHEDULES[name]
    processes = 8 if '8xb' in name else 1
    assert cfg.train_dataloader.batch_size * processes == cfg.auto_scale_lr.base_batch_size == batch
    settings = wrapper.optimizer.defaults
    assert settings['lr'] == pytest.approx(peak)
    rates = learning_rates(cfg, wrapper, epoch_length=8)
    assert len(rates) == 8 * epochs
    base = [max(now) for now in rates]
    top = base.index(max(base))
    assert max(base) == pytest.approx(peak) and top // 8 in (warmup, warmup - 1)
    if warmup:
        assert base[0] == pytest.approx(1e-4 * peak)
        assert base[4 * warmup] == pytest.approx(peak / 2, rel=0.05)
    middle = peak * ((1 - last) * 0.5 + last)
    assert base[8 * (warmup + epochs) // 2] == pytest.approx(middle, rel=0.01)
    final = 0.0 if warmup else (1 - math.cos(math.pi / epochs)) / 2  # of the last epoch, where it moves once an epoch
    assert base[-1] / peak == pytest.approx(max(last, final), abs=1e-4)
    for now in rates:
        assert now == pytest.approx([rate * max(now) / max(rates[top]) for rate in rates[top]])


@pytest.mark.parametrize('name', DECAYED)
def test_mae_finetuning(name):
    cfg = load(name)
    model, wrapper = build(cfg)
    rate, drop_path = DECAYED[name]
    assert model.backbone.layers[-1].ffn.dropout_layer.drop_prob == pytest.approx(drop_path)
    assert type(model.backbone.layers[0].ffn.dropout_layer).__name__ == 'Identity' or not (
        model.backbone.layers[0].ffn.dropout_layer.drop_prob)
    assert not hasattr(model.backbone, 'ln1') and hasattr(model.backbone, 'ln2')
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    assert type(wrapper).__name__ == 'BFloat16OptimWrapper'
    depth, peak = len(model.backbone.layers), SCHEDULES[name][2]
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            key = names[id(parameter)]
            layer = depth + 1
            if key.startswith('backbone.') and 'ln2' not in key.split('.')[1]:
                layer = int(key.split('.')[2]) + 1 if 'layers' in key else 0
            assert group['lr'] == pytest.approx(peak * rate ** (depth + 1 - layer)), key
            undecayed = parameter.ndim == 1 or 'cls_token' in key or 'pos_embed' in key
            assert group['weight_decay'] == (0 if undecayed else 0.05), key
    augments = [type(augment).__name__ for augment in model.data_preprocessor.batch_augments.augments]
    assert augments == ['Mixup', 'CutMix']
    assert model.head.loss_module.label_smooth_val == 0.1


def test_linear_probe_trains_the_head_on_the_features_of_evaluation():
    cfg = shrink(load(LINEAR))
    model = MODELS.build(cfg.model)
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer).__name__ == 'LARS'
    excluded = {id(p): group.get('lars_exclude', False) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert excluded == {id(model.head.fc.weight): False, id(model.head.fc.bias): True}
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0.0}
    assert not list(model.neck.parameters())
    images = torch.rand(4, 3, 64, 64)
    training = model.train().backbone(images)[-1]
    assert not training.requires_grad and training.shape == (4, 48)
    assert torch.equal(training, model.eval().backbone(images)[-1])


@pytest.mark.parametrize(
    ('name', 'betas', 'cutout', 'precision'),
    [
        ('vit-base-p2_1xb64-coslr-100e_cifar10', (0.9, 0.95), True, 'BFloat16OptimWrapper'),
        ('vit-base-p2_1xb256-coslr-100e_cifar100', (0.9, 0.999), False, 'BFloat16OptimWrapper'),
        ('vit-mini-p4_1xb128-coslr-100e_cifar10', (0.9, 0.95), True, 'OptimWrapper'),
        ('vit-mini-p4_1xb128-coslr-100e_cifar100', (0.9, 0.999), False, 'OptimWrapper'),
        ('vit-mini-p4_1xb128-coslr-100e_image-folder', (0.9, 0.999), False, 'OptimWrapper'),
    ],
)
def test_mlo_mae_finetuning(name, betas, cutout, precision):
    cfg = load(name)
    model, wrapper = build(cfg)
    (group,) = wrapper.optimizer.param_groups
    assert (group['betas'], group['weight_decay'], type(wrapper).__name__) == (betas, 5e-5, precision)
    assert model.head.dropout.p == 0.1 and model.head.token == 'cls'
    pipeline = [transform['type'] for transform in cfg.train_dataloader.dataset.pipeline]
    assert ('Cutout' in pipeline) == cutout and {'RandomCrop', 'RandomFlip'} < set(pipeline)
    # The encoder goes on with images of the colors that it was pretrained on.
    arch, data = name.split('_')[0], name.split('_')[-1]
    (path,) = glob.glob(osp.join(ROOT, 'configs', 'mae', f'mae_{arch}_*_{data}.py'))
    pretrained = load_config(path)
    for key in ('mean', 'std', 'to_rgb'):
        assert cfg.model.data_preprocessor[key] == pretrained.model.data_preprocessor[key]
    for key in ('img_size', 'patch_size', 'arch'):
        assert cfg.model.backbone[key] == pretrained.model.backbone[key]


@pytest.mark.parametrize('data', FINE_GRAINED)
def test_fine_grained_sets_are_those_of_evaluation(data):
    cfg, named = load(PHOTOGRAPHS[data]), find_data(data)
    classes, images = FINE_GRAINED[data]
    for split, loader in (('train', cfg.train_dataloader), ('test', cfg.test_dataloader)):
        given, known = dict(loader.dataset), dict(named.splits[split])
        known.pop('metainfo', None)  # names for tables
        assert given.pop('pipeline')[0] == dict(type='mmmlo.LoadImage')
        assert given == known
    names = getattr(DATASETS.get(cfg.train_dataloader.dataset.type), 'METAINFO', {}).get('classes', range(classes))
    assert len(names) == classes == cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes
    steps = cfg.train_cfg.max_epochs * (images // cfg.train_dataloader.batch_size)
    with open(path_of(PHOTOGRAPHS[data]), encoding='utf-8') as file:
        assert f'# Cost: {steps:,} steps of 128 images.' in file.read()


@pytest.mark.parametrize('data', PHOTOGRAPHS)
def test_fine_grained_recipe_is_that_of_imagenet(data):
    cfg, imagenet = load(PHOTOGRAPHS[data]), load(FINETUNE)
    # The learning rate is ImageNet's for as many images.
    rate, size = imagenet.optim_wrapper.optimizer.lr, imagenet.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate * cfg.auto_scale_lr.base_batch_size / size)
    for one in (cfg, imagenet):
        one.optim_wrapper.optimizer.pop('lr')
        one.model.head.pop('num_classes')
        one.model.data_preprocessor.pop('num_classes')
    assert cfg.model == imagenet.model and cfg.optim_wrapper == imagenet.optim_wrapper
    assert cfg.param_scheduler == imagenet.param_scheduler and cfg.train_cfg == imagenet.train_cfg
    for loader in ('train_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline == imagenet[loader].dataset.pipeline
        cfg[loader].pop('dataset'), imagenet[loader].pop('dataset')
        assert cfg[loader] == imagenet[loader]


@pytest.mark.parametrize('name', SCHEDULES)
def test_all_of_train_and_one_measurement_of_the_test_split(name):
    cfg = load(name)
    data = cfg.train_dataloader.dataset
    if name not in PHOTOGRAPHS.values():
        assert data.type in ('ImageNet', 'CIFAR10', 'CIFAR100', 'mmmlo.ImageFolder', 'mmmlo.Digits')
    assert {'train', 'trainval', 'meta/train.txt'} & {data.get(key) for key in ('split', 'data_prefix', 'ann_file')}
    assert cfg.test_dataloader.dataset.type == data.type
    assert cfg.val_dataloader == cfg.test_dataloader and cfg.val_evaluator == cfg.test_evaluator
    assert data.pipeline != cfg.test_dataloader.dataset.pipeline
    assert cfg.train_cfg.val_interval == cfg.train_cfg.max_epochs
    assert 'save_best' not in str(cfg.default_hooks) and 'MaskStatisticsHook' not in str(cfg.custom_hooks)


def run(cfg: Config, work_dir) -> Runner:
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.name}_{id(cfg)}'
    cfg.log_level = 'WARNING'
    cfg.launcher = 'none'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def pretrained(path: str, folder) -> tuple[str, dict[str, torch.Tensor]]:
    """A checkpoint of a shrunken pretraining config, with numbers that no initialization gives, and its backbone."""
    model = MODELS.build(shrink(load_config(osp.join(ROOT, 'configs', path))).model)
    torch.manual_seed(1)
    state = {key: torch.rand(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
    file = str(folder / 'pretrained.pth')
    torch.save(dict(state_dict=state), file)
    return file, {key[len('backbone.'):]: value for key, value in state.items() if key.startswith('backbone.')}


@pytest.mark.parametrize('data', PHOTOGRAPHS)
def test_stand_ins_for_absent_images_keep_the_splits_apart(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = shrink(load(PHOTOGRAPHS[data]))
    for split, loader in (('train', cfg.train_dataloader), ('test', cfg.test_dataloader)):
        assert (loader.dataset.type, loader.dataset.split) == ('mmmlo.SyntheticImages', split)


def write_pets(folder) -> None:
    """A dozen images of three breeds in each split, as the archive of Oxford-IIIT Pets has them."""
    noise = np.random.RandomState(0)
    for part in ('images', 'annotations'):
        (folder / part).mkdir(parents=True)
    for split in ('trainval', 'test'):
        names = [f'{split}_{index}' for index in range(12)]
        lines = [f'{name} {index % 3 + 1} 1 1\n' for index, name in enumerate(names)]
        (folder / 'annotations' / f'{split}.txt').write_text(''.join(lines))
        for name in names:
            assert cv2.imwrite(str(folder / 'images' / f'{name}.jpg'), noise.randint(0, 256, (48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ('name', 'source', 'new', 'left', 'frozen'),
    [
        (FINETUNE, 'mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', {'ln2.weight', 'ln2.bias'},
         {'ln1.weight', 'ln1.bias'}, False),
        (LINEAR, 'cl_mae/cl-mae_vit-base-p16_1xb256-coslr-200e_in1k.py', set(), set(), True),
        (CIFAR, 'mlo_mae/mlo-mae_vit-base-p2_1xb128-coslr_cifar10_paper.py', set(), set(), False),
        (DIGITS, 'mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py', set(), set(), False),
        (PETS, 'mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', {'ln2.weight', 'ln2.bias'},
         {'ln1.weight', 'ln1.bias'}, False),
    ],
    ids=['finetune', 'linear', 'cifar', 'digits', 'fine-grained'],
)
def test_shrunken_run_from_a_checkpoint(name, source, new, left, frozen, tmp_path, monkeypatch):
    if name == PETS:
        write_pets(tmp_path / 'data' / 'pets')
        monkeypatch.chdir(tmp_path)
    file, backbone = pretrained(source, tmp_path)
    full = load(name)
    cfg = shrink(full)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=file, prefix='backbone.')
    # Two epochs, of which only the last is measured.
    cfg.train_dataloader.num_batch_per_epoch = 1
    cfg.train_cfg.update(max_epochs=2, val_interval=full.train_cfg.val_interval)

    assert (name == PETS) == (cfg.train_dataloader.dataset.type == 'OxfordIIITPet')

    fresh = MODELS.build(cfg.model)
    fresh.init_weights()
    loaded = fresh.backbone.state_dict()
    assert set(loaded) - set(backbone) == new and set(backbone) - set(loaded) == left
    for key in set(loaded) - new:
        assert torch.equal(loaded[key], backbone[key]), key

    runner = run(cfg, tmp_path)
    assert runner.iter == 2
    scalars = runner.message_hub.log_scalars
    assert math.isfinite(scalars['train/loss'].current())
    assert scalars['val/accuracy/top1'].data[0].shape == (1,)
    assert runner.test()['accuracy/top1'] == pytest.approx(scalars['val/accuracy/top1'].current())
    moved = {key for key, value in runner.model.backbone.state_dict().items() if not torch.equal(value, loaded[key])}
    assert not moved if frozen else moved == set(loaded)


def test_digits_read_every_training_image_and_amp_applies(tmp_path):
    cfg = load(DIGITS)
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 1438
    assert len(DATASETS.build(cfg.test_dataloader.dataset)) == 359
    cfg = shrink(cfg, cycles=1)
    enable_amp(cfg)
    assert type(run(cfg, tmp_path).optim_wrapper).__name__ == 'BFloat16OptimWrapper'
