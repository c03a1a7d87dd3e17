"""The hook in a real Runner, on a classifier whose backbone is initialized by config alone."""

import time

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner import TestLoop as AccuracyLoop

from mmmlo.converters import convert
from mmmlo.engine.loops import KNNTestLoop
from mmmlo.launch.config import set_backbone
from mmmlo.preflight import VerifyPretrainedHook
from mmmlo.utils.checkpoints import read_checkpoint
from mmmlo.utils.key_report import KeyMismatchError, check_whole_model


@pytest.fixture
def runner(tmp_path):
    """A Runner of one iteration; ``runner(checkpoint, init_cfg=None, load_from=None, **backbone)``."""

    def build(checkpoint=None, init_cfg=None, load_from=None, **backbone):
        images = dict(
            type='mmmlo.SyntheticImages', num_classes=4, per_class=2, size=16, pipeline=[dict(type='PackInputs')]
        )
        cfg = Config(
            dict(
                default_scope='mmpretrain',
                model=dict(
                    type='ImageClassifier',
                    backbone=dict(
                        type='VisionTransformer',
                        arch=dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96),
                        img_size=16,
                        patch_size=4,
                        **backbone,
                    ),
                    head=dict(type='LinearClsHead', num_classes=4, in_channels=48),
                ),
                train_dataloader=dict(
                    batch_size=8,
                    dataset=images,
                    sampler=dict(type='DefaultSampler'),
                    collate_fn=dict(type='default_collate'),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
                load_from=load_from,
                work_dir=str(tmp_path),
                experiment_name=f'verify_{time.time_ns()}',
            )
        )
        if checkpoint:
            set_backbone(cfg, checkpoint)
        if init_cfg:
            cfg.model.backbone.init_cfg = init_cfg
        built = Runner.from_cfg(cfg)
        built.register_hook(VerifyPretrainedHook())
        return built

    return build


def test_every_weight_arrives(runner, tiny_checkpoint):
    path = tiny_checkpoint('mlo')
    trained = runner(path, out_type='avg_featmap', final_norm=False)
    trained.train()
    state = read_checkpoint(path).state_dict
    own = trained.model.backbone.state_dict()
    assert set(own) - {key.removeprefix('backbone.') for key in state} == {'ln2.weight', 'ln2.bias'}
    assert all(torch.equal(own[key], state[f'backbone.{key}']) for key in own if not key.startswith('ln2'))


def test_an_encoder_alone_needs_no_prefix(runner, tiny_checkpoint, tmp_path):
    state = read_checkpoint(tiny_checkpoint('mlo')).state_dict
    bare = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    torch.save(bare, tmp_path / 'bare.pth')
    trained = runner(str(tmp_path / 'bare.pth'))
    trained.train()
    assert torch.equal(trained.model.backbone.pos_embed, bare['pos_embed'])


@pytest.mark.parametrize(
    ('backbone', 'words'),
    [
        (dict(pre_norm=True), 'lacks 2 of the keys of VisionTransformer: pre_norm.weight'),
        (dict(layer_scale_init_value=1e-5), 'gamma1.weight should be 1 everywhere'),
    ],
)
def test_what_does_not_fit_stops_the_run_before_the_first_image(runner, tiny_checkpoint, backbone, words):
    wrong = runner(tiny_checkpoint('mlo'), **backbone)
    with pytest.raises(KeyMismatchError, match=words):
        wrong.train()
    assert wrong.iter == 0


def test_weights_that_are_drawn_anew_are_noticed(runner, tiny_checkpoint):
    init_cfg = [dict(type='Pretrained', checkpoint=tiny_checkpoint('mlo'), prefix='backbone.')]
    with pytest.raises(KeyMismatchError, match='1 weights .* were overwritten .*: pos_embed'):
        runner(init_cfg=init_cfg).train()


def test_load_from_needs_the_backbone(runner, tiny_checkpoint):
    path = tiny_checkpoint('mlo')
    loaded = runner(load_from=path)
    loaded.train()
    assert torch.equal(loaded.model.backbone.cls_token, read_checkpoint(path).state_dict['backbone.cls_token'])
    with pytest.raises(KeyMismatchError, match='lacks 2 of the keys of ImageClassifier: backbone.pre_norm.weight'):
        runner(load_from=path, pre_norm=True).train()


def test_a_run_that_only_tests_is_left_alone(runner, tmp_path):
    built = runner(load_from=str(tmp_path / 'absent.pth'), init_cfg=dict(type='Pretrained', checkpoint='absent.pth'))
    built.call_hook('before_run')


@pytest.mark.parametrize('wrap', [
    pytest.param(lambda state: dict(state_dict=state, meta={}), id='other-classes'),
    pytest.param(lambda state: dict(model={f'module.{key}': value for key, value in state.items()}), id='elsewhere'),
    pytest.param(lambda state: {**state, 'head.fc.weight': torch.ones(7, 3, 3)}, id='a-head-of-other-dimensions'),
    pytest.param(lambda state: {**state, 'neck.x': torch.ones(2), 'masker.y': torch.ones(2)}, id='other-modules'),
])
def test_of_a_rest_that_does_not_fit_only_that_is_left_out(runner, tiny_checkpoint, tmp_path, wrap):
    encoder = {k: v for k, v in read_checkpoint(tiny_checkpoint('mlo')).state_dict.items() if k.startswith('backbone.')}
    path = str(tmp_path / 'seven.pth')
    torch.save(wrap({**encoder, 'head.fc.weight': torch.ones(7, 48), 'head.fc.bias': torch.ones(7)}), path)
    loaded = runner(load_from=path)
    report = check_whole_model(loaded.model, path, only_backbone=True)
    assert list(report.left_out) == ['head.fc.weight', 'head.fc.bias'] and 'left out: head.fc.weight 7x' in str(report)
    loaded.train()
    assert torch.equal(loaded.model.backbone.cls_token, encoder['backbone.cls_token'])
    assert loaded.model.head.fc.weight.shape == (4, 48) and not (loaded.model.head.fc.bias == 1).any()


def test_knn_needs_no_head_and_accuracy_does(runner, tiny_checkpoint, tmp_path):
    encoder = {k: v for k, v in read_checkpoint(tiny_checkpoint('mlo')).state_dict.items() if k.startswith('backbone.')}
    torch.save({**encoder, 'head.fc.weight': torch.ones(7, 48), 'head.fc.bias': torch.ones(7)}, tmp_path / 'seven.pth')
    torch.save(encoder, tmp_path / 'none.pth')
    for path in (str(tmp_path / 'seven.pth'), str(tmp_path / 'none.pth')):
        built = runner(load_from=path)
        built._test_loop = KNNTestLoop.__new__(KNNTestLoop)
        built.call_hook('before_run')
        built.load_or_resume()
        assert torch.equal(built.model.backbone.cls_token, encoder['backbone.cls_token'])
        built._test_loop = AccuracyLoop.__new__(AccuracyLoop)
        with pytest.raises(KeyMismatchError, match='head.fc.weight'):
            built.call_hook('before_run')


def test_names_of_others_come_with_the_command(runner, tiny_checkpoint, tmp_path):
    state = convert([tiny_checkpoint('mlo')], 'timm').state
    path = str(tmp_path / 'timm.pth')
    torch.save(dict(model=state), path)
    command = rf'python tools/model_converters/convert.py {path} timm_mmmlo.pth --to mmmlo'
    for wrong in (dict(load_from=path), dict(checkpoint=path), dict(init_cfg=dict(type='Pretrained', checkpoint=path))):
        with pytest.raises(KeyMismatchError, match=command):
            runner(**wrong).train()


def test_backbone_takes_any_prefix(runner, tiny_checkpoint, tmp_path):
    encoder = read_checkpoint(tiny_checkpoint('mlo')).encoder
    path = str(tmp_path / 'lightning.pth')
    torch.save(dict(state_dict={f'model.encoder.{key}': value for key, value in encoder.items()}), path)
    trained = runner(path)
    trained.train()
    assert torch.equal(trained.model.backbone.pos_embed, encoder['pos_embed'])
