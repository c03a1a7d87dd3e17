import os

import pytest
import torch

from mmmlo.engine import NonFiniteError
from mmmlo.evaluation.data import NAMED_DATA, find_data
from mmmlo.evaluation.encoder import load_encoder
from mmmlo.launch import training_run
from mmmlo.launch.config import load_config
from mmmlo.launch.finetune import finetune, finetune_config, finetune_recipe

RECIPES = os.path.join(os.path.dirname(__file__), '..', '..', 'configs', 'benchmarks')


@pytest.fixture
def encoder(tiny_checkpoint):
    return load_encoder(tiny_checkpoint('mlo'))


def recipe(name, **options):
    return load_config(os.path.join(RECIPES, name), options)


@pytest.mark.parametrize(
    ('data', 'width', 'size', 'start'),
    [
        ('digits', 48, 32, 'vit-nano-p4_1xb64'),
        ('cifar10', 192, 32, 'vit-mini-p4_1xb128-coslr-100e_cifar10'),
        ('cifar10', 768, 32, 'vit-base-p2_1xb64'),
        ('cifar100', 768, 32, 'vit-base-p2_1xb256'),
        ('imagenet', 768, 224, 'vit-base-p16_8xb128-coslr'),
        ('cub', 768, 32, 'vit-mini-p4_1xb128-coslr-100e_image-folder'),
        ('cifar10', 768, 224, 'vit-base-p16_1xb128-coslr-100e_image-folder'),
        ('cifar10', 1024, 224, 'vit-large-p16_8xb128-coslr'),
        ('imagenet', 1280, 224, 'vit-huge-p14_8xb128-coslr'),
    ],
)
def test_each_size_has_a_recipe(encoder, data, width, size, start):
    encoder.width, encoder.image_size = width, (size, size)
    name = finetune_recipe(encoder, find_data(data))
    assert name.startswith(start)
    assert os.path.isfile(os.path.join(RECIPES, name))


@pytest.mark.parametrize('data', sorted(set(NAMED_DATA) - {'digits', 'cluttered_digits', 'cifar10', 'cifar100', 'imagenet'}))
def test_photographs_have_the_recipe_of_their_config(encoder, data):
    encoder.width, encoder.image_size = 192, (160, 160)
    name = finetune_recipe(encoder, find_data(data))
    assert name == f'vit-base-p16_1xb128-coslr-100e_{data}.py'
    assert os.path.isfile(os.path.join(RECIPES, name))


def test_the_encoder_and_the_images_replace_the_recipe_s(encoder, labelled_folder):
    cfg = finetune_config(
        recipe('vit-base-p16_8xb128-coslr-100e_in1k.py'), encoder, find_data(str(labelled_folder))
    )
    backbone = cfg.model.backbone
    assert backbone.type == 'VisionTransformer' and backbone.arch.embed_dims == 48 and backbone.img_size == 16
    assert (backbone.out_type, backbone.final_norm, backbone.drop_path_rate) == ('avg_featmap', False, 0.1)
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=encoder.path, prefix='backbone.')
    assert (cfg.model.head.num_classes, cfg.model.head.in_channels) == (3, 48)
    assert cfg.model.data_preprocessor == dict(num_classes=3, mean=[120, 110, 100], std=[60, 61, 62], to_rgb=True)
    train = [(transform['type'], transform.get('scale')) for transform in cfg.train_dataloader.dataset.pipeline]
    assert train[:3] == [('mmmlo.LoadImage', None), ('RandomResizedCrop', (16, 16)), ('RandomFlip', None)]
    assert cfg.val_cfg is None and 'save_best' not in cfg.default_hooks.checkpoint
    cfg = finetune_config(
        recipe('vit-mini-p4_1xb128-coslr-100e_image-folder.py'), encoder, find_data(str(labelled_folder))
    )
    train = [(transform['type'], transform.get('crop_size')) for transform in cfg.train_dataloader.dataset.pipeline]
    assert train[:3] == [('mmmlo.LoadImage', None), ('Resize', None), ('RandomCrop', (16, 16))]


@pytest.fixture
def settings():
    """A recipe of 6 epochs of 5 steps."""
    options = {'train_cfg.max_epochs': 6, 'train_dataloader.batch_size': 12, 'optim_wrapper.optimizer.lr': 1e-3}
    return recipe('vit-mini-p4_1xb128-coslr-100e_image-folder.py', **options, **{'auto_scale_lr.base_batch_size': 12})


def test_a_run_is_measured_at_its_last_epoch_and_not_repeated(encoder, labelled_folder, tmp_path, settings):
    data = find_data(str(labelled_folder))
    result = finetune(encoder, data, str(tmp_path), settings, [1], num_workers=0)
    assert not result.cached and result.metrics['top1'].mean > 90  # three colours; by chance 33
    again = finetune(encoder, data, str(tmp_path), settings, [1], num_workers=2)  # which changes nothing but the speed
    assert again.cached and again.metrics == result.metrics
    (run, ) = os.listdir(tmp_path)
    assert run.startswith(encoder.sha256[:12]) and os.listdir(tmp_path / run) == ['seed_1']
    last = torch.load(tmp_path / run / 'seed_1' / 'epoch_6.pth', weights_only=False)
    assert last['meta']['iter'] == 30


def test_runs_on_another_number_of_processes_are_other_runs(encoder, labelled_folder, tmp_path, settings, monkeypatch):
    started = []
    monkeypatch.setattr(training_run, '_train_and_test', lambda cfg: started.append(cfg) or {'accuracy/top1': 50.0})
    found = []
    monkeypatch.setattr(training_run, 'write_whole', lambda *_: None)
    for processes in (1, 4):
        monkeypatch.setattr(training_run, 'get_world_size', lambda n=processes: n)
        found.append(finetune(encoder, find_data(str(labelled_folder)), str(tmp_path), settings, [0]).settings)
    assert started[0].work_dir != started[1].work_dir
    assert [some['batch_size'] for some in found] == [12, 48]
    assert 'lr 0.001,' in found[0]['optimizer'] and 'lr 0.004,' in found[1]['optimizer']


@pytest.mark.parametrize('epochs', [1, 6])  # fewer steps than the guard waits for, and more
def test_a_run_that_is_not_finite_is_no_result(encoder, labelled_folder, tmp_path, settings, monkeypatch, epochs):
    settings.train_cfg.max_epochs = epochs
    settings.custom_hooks = []
    monkeypatch.setattr('mmpretrain.models.LinearClsHead.loss', lambda _, feats, *__: dict(loss=feats[-1].sum() * torch.nan))
    with pytest.raises(NonFiniteError, match='not finite') as error:
        finetune(encoder, find_data(str(labelled_folder)), str(tmp_path), settings, [0], num_workers=0)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.rglob('result.json'))


def test_a_recipe_without_a_classifier(encoder, labelled_folder):
    config = load_config(os.path.join(RECIPES, '..', '_base_', 'datasets', 'cifar10.py'))
    with pytest.raises(ValueError, match='cifar10.py has no model with a backbone and a head'):
        finetune_config(config, encoder, find_data(str(labelled_folder)))
