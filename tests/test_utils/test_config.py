import pytest
from mmengine.config import Config

from mmmlo.launch.config import enable_amp, load_config, resolve_loaders, set_backbone
from mmmlo.utils.checkpoints import CheckpointError
from mmmlo.utils.config import dataloaders, dataset_leaves, read_config


@pytest.fixture
def cfg():
    loader = dict(num_workers=2, persistent_workers=True, pin_memory=True)
    return Config(
        dict(
            train_dataloader=dict(loader, num_workers=0),
            train_cfg=dict(dataloaders=dict(finetune=dict(loader), masking='finetune')),
            val_dataloader=dict(loader),
            val_cfg=dict(bank_dataloader=dict(pin_memory=True)),
            test_dataloader=None,
            optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=1)),
        )
    )


def test_every_loader_is_found(cfg):
    assert len(list(dataloaders(cfg))) == 4


def test_workers_that_are_not_there_do_not_persist(cfg):
    resolve_loaders(cfg, pin_memory=False)
    assert [loader.get('persistent_workers') for loader in dataloaders(cfg)] == [False, True, True, None]
    assert not any(loader.pin_memory for loader in dataloaders(cfg))
    resolve_loaders(cfg, persistent_workers=False)
    assert not any(loader.persistent_workers for loader in dataloaders(cfg))


def test_amp_replaces_loss_scaling(cfg):
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='mmmlo.BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=1))


def test_missing_config_is_named():
    with pytest.raises(FileNotFoundError, match='config no.py does not exist'):
        load_config('no.py')


def test_a_backbone_s_checkpoint_replaces_what_initialized_it(tiny_checkpoint):
    path = tiny_checkpoint('mlo')
    backbone = dict(type='VisionTransformer', init_cfg=[dict(type='Xavier', layer='Linear')])
    cfg = Config(dict(model=dict(type='EncoderDecoder', backbone=backbone, pretrained='old/style.pth')))
    set_backbone(cfg, path)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    assert cfg.model.pretrained is None
    with pytest.raises(ValueError, match='--backbone: the config has no model.backbone'):
        set_backbone(Config(dict(model=dict(type='MAE'))), path)
    with pytest.raises(CheckpointError, match='absent.pth does not exist'):
        set_backbone(cfg, 'absent.pth')


def test_data_sets_are_found_in_wrappers():
    one, two = dict(type='One'), dict(type='Two')
    assert list(dataset_leaves(one, 'a')) == [('a', one)]
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[one, dict(dataset=two)]))
    assert list(dataset_leaves(wrapped, 'a')) == [('a.dataset.datasets[0]', one), ('a.dataset.datasets[1].dataset', two)]


def test_configs_are_read_without_being_run(tmp_path):
    text = f"a = dict(b=[1, (2.5, None)], c=dict(type='X'))\nd = open('{tmp_path}/made', 'w')\n"
    assert read_config(text) == dict(a=dict(b=[1, [2.5, None]], c=dict(type='X')), d=f"open('{tmp_path}/made', 'w')")
    assert not (tmp_path / 'made').exists()
    assert read_config('a = dict(') == {}
    assert read_config("a = {'b.c': dict(d=1 + x)}") == dict(a="{'b.c': {'d': 1 + 'x'}}")
    assert read_config("a = {'b.c': dict(d=1)}") == dict(a={'b.c': dict(d=1)})
