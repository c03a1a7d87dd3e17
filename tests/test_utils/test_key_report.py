"""Which keys arrive, on mmpretrain's real backbone and checkpoints of a tiny MLO-MAE."""

import pytest
import torch
from torch import nn

from mmmlo.utils.key_report import (
    KeyMismatchError,
    PretrainedTarget,
    check_whole_model,
    compare_keys,
    cut_prefix,
    initialized_from,
    load_weights,
)

ARCH = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)


def vit(**kwargs):
    from mmpretrain.models import VisionTransformer

    return VisionTransformer(**{**dict(arch=ARCH, img_size=16, patch_size=4), **kwargs})


@pytest.fixture
def pretrained(tiny_model):
    """The state of a tiny MLO-MAE and of its encoder."""
    state = tiny_model(dtype=torch.float32).state_dict()
    return state, cut_prefix(state, 'backbone.', 'mlo-mae.pth')


def test_the_same_architecture_matches_in_full(pretrained):
    model = vit()
    report = load_weights(model, pretrained[1], 'mlo-mae.pth')
    assert report.counts() == dict(
        matched=len(model.state_dict()), resized=0, new_by_design=0, left_by_design=1, left_out=0, missing=0, unexpected=0,
        misshapen=0,
    )
    assert all(torch.equal(value, pretrained[1][key]) for key, value in model.state_dict().items())


def test_mean_pooling_makes_one_norm_and_leaves_another(pretrained):
    model = vit(out_type='avg_featmap', final_norm=False)
    report = load_weights(model, pretrained[1], 'mlo-mae.pth')
    assert report.new_by_design == {'ln2.weight': 1, 'ln2.bias': 0}
    assert report.left_by_design == ['grid', 'ln1.weight', 'ln1.bias']
    assert '2 new by design' in str(report) and 'new by design: ln2.weight, ln2.bias' in str(report)


def test_another_grid_resizes_the_positions(pretrained):
    model = vit(img_size=24)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = compare_keys(model, pretrained[1], 'mlo-mae.pth').check()
    assert report.resized == {'pos_embed': ((1, 17, 48), (1, 37, 48))}
    assert 'pos_embed 1x17x48 -> 1x37x48' in str(report)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), 'comparing loads nothing'
    load_weights(model, pretrained[1], 'mlo-mae.pth')
    assert torch.equal(model.pos_embed[:, 0], pretrained[1]['pos_embed'][:, 0])
    assert not torch.equal(model.pos_embed, before['pos_embed'])


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(arch=dict(ARCH, embed_dims=96)), 'another architecture.*cls_token 1x1x48 -> 1x1x96'),
        (dict(patch_size=8), 'another architecture.*patch_embed.projection.weight 48x3x4x4 -> 48x3x8x8'),
        (dict(arch=dict(ARCH, num_layers=1)), 'larger architecture.*layers.1.ln1.weight'),
        (dict(arch=dict(ARCH, num_layers=3)), 'lacks 12 of the keys.*layers.2.ln1.weight'),
        (dict(pre_norm=True), 'lacks 2 of the keys.*pre_norm.weight'),
    ],
)
def test_another_architecture_is_an_error_and_loads_nothing(pretrained, kwargs, words):
    model = vit(**kwargs)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(KeyMismatchError, match=words):
        load_weights(model, pretrained[1], 'mlo-mae.pth')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_in_common(pretrained):
    with pytest.raises(KeyMismatchError, match='mlo-mae.pth has nothing for VisionTransformer'):
        load_weights(vit(), {f'encoder.{key}': value for key, value in pretrained[1].items()}, 'mlo-mae.pth')
    with pytest.raises(KeyMismatchError, match="x.pth has no key that begins with 'encoder.'"):
        cut_prefix(pretrained[0], 'encoder', 'x.pth')


def test_a_layer_scale_must_begin_at_one(pretrained):
    assert len(load_weights(vit(layer_scale_init_value=1.0), pretrained[1], 'mlo-mae.pth').new_by_design) == 4
    with pytest.raises(KeyMismatchError, match='gamma1.weight should be 1 everywhere'):
        load_weights(vit(layer_scale_init_value=1e-5), pretrained[1], 'mlo-mae.pth')


def test_a_backbone_that_declares_nothing_takes_what_it_needs():
    from mmpretrain.models import ResNet

    model = ResNet(18)
    state = dict(model.state_dict(), **{'fc.weight': torch.zeros(1000, 512)})
    report = compare_keys(model, state, 'resnet.pth').check()
    assert report.left_by_design == ['fc.weight']
    del state['conv1.weight']
    with pytest.raises(KeyMismatchError, match='lacks 1 of the keys of ResNet: conv1.weight'):
        compare_keys(model, state, 'resnet.pth').check()


def test_a_declaration_of_one_s_own():
    class Scaled(nn.Module):
        pretrained_target = PretrainedTarget(new={'scale': 0}, left=('old',))

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3))
            self.linear = nn.Linear(2, 2)

    state = dict(nn.ModuleDict(dict(linear=nn.Linear(2, 2))).state_dict(), old=torch.zeros(1))
    report = load_weights(Scaled(), state, 'x.pth')
    assert (report.new_by_design, report.left_by_design) == ({'scale': 0}, ['old'])


def classifier(**kwargs):
    from mmpretrain.registry import MODELS

    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=16, patch_size=4, **kwargs),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=48),
        )
    )


def test_initialization_by_config_is_found_and_verified(pretrained, tmp_path):
    path = str(tmp_path / 'mlo-mae.pth')
    torch.save(dict(state_dict=pretrained[0]), path)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = classifier(init_cfg=init)
    ((module, init_cfg, state, report),) = initialized_from(model)
    assert module is model.backbone and init_cfg == init
    report.check()
    model.init_weights()
    report.check_values(module, state)

    model = classifier(init_cfg=[init])  # mmpretrain draws pos_embed anew after a list
    ((module, _, state, report),) = initialized_from(model)
    report.check()
    model.init_weights()
    with pytest.raises(KeyMismatchError, match='1 weights .* were overwritten .*: pos_embed'):
        report.check_values(module, state)


def test_load_from_of_a_whole_model(pretrained, tmp_path):
    path = str(tmp_path / 'mlo-mae.pth')
    torch.save(dict(state_dict=pretrained[0]), path)
    report = check_whole_model(classifier(), path, only_backbone=True)
    assert set(report.new_by_design) == {'head.fc.weight', 'head.fc.bias'}
    assert {key.split('.')[0] for key in report.left_by_design} == {'backbone', 'neck', 'masker', 'downstream'}
    with pytest.raises(KeyMismatchError, match='lacks 2 of the keys of ImageClassifier: head.fc.weight'):
        check_whole_model(classifier(), path, only_backbone=False)
    torch.save(dict(state_dict=pretrained[1]), path)
    with pytest.raises(KeyMismatchError, match='has nothing for ImageClassifier'):
        check_whole_model(classifier(), path, only_backbone=True)


VIT_MASKER = dict(type='mmmlo.ViTMasker', embed_dims=48, depth=1, grid=(4, 4))


@pytest.mark.parametrize(('updates', 'left'), [
    (dict(downstream=dict(num_classes=9)), {'downstream.fc'}),
    (dict(neck=dict(decoder_embed_dim=64)), {'neck', 'neck.decoder_blocks.0.ln1', 'neck.decoder_pred', 'neck.ln1'}),
    (dict(masker=dict(hidden_dims=16)), {'masker.layers.1', 'masker.layers.3'}),
    (dict(neck=dict(decoder_depth=2)), set()),
    (dict(type='mmmlo.CLMAE', masker=VIT_MASKER, downstream=None), set()),
])
def test_training_goes_on_with_other_modules_around_the_encoder(pretrained, tmp_path, updates, left, tiny_model_cfg):
    from mmpretrain.registry import MODELS

    path = str(tmp_path / 'mlo-mae.pth')
    torch.save(dict(state_dict=pretrained[0], meta={}), path)
    cfg = tiny_model_cfg(**{key: value for key, value in updates.items() if key != 'masker'})
    if masker := updates.get('masker'):
        cfg['masker'] = masker if 'type' in masker else {**cfg['masker'], **masker}
    report = check_whole_model(MODELS.build(cfg), path, only_backbone=True)
    assert left <= {key.rpartition('.')[0] for key in report.left_out} and bool(left) == bool(report.left_out)
    assert not any(key.startswith('backbone') for key in report.left_out)
    assert len([key for key in report.matched if key.startswith('backbone.')]) == 31
