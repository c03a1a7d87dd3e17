"""Layer-wise learning-rate decay in classifiers, segmentors, detectors and anything else."""

import pytest
from mmengine.optim import CosineAnnealingLR, LinearLR, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmmlo.engine import LayerDecayOptimWrapperConstructor
from mmmlo.registry import MODELS

BLOCKS = 3
RATE = 0.5
LR = 0.1
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=BLOCKS, num_heads=2, feedforward_channels=16),
    img_size=16,
    patch_size=4,
)
CLASSIFIER = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(VIT, out_type='avg_featmap', layer_cfgs=dict(layer_scale_init_value=0.1)),
    neck=dict(type='mmpretrain.ClsBatchNormNeck', input_features=16, affine=True),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=16),
)
SEGMENTOR = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(VIT, out_type='featmap'),
    decode_head=dict(type='mmseg.FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=3),
)
DETECTOR = dict(
    type='mmdet.RetinaNet',
    backbone=dict(VIT, out_type='featmap', final_norm=False),
    neck=dict(type='mmdet.ChannelMapper', in_channels=[16], out_channels=8, num_outs=2),
    bbox_head=dict(
        type='mmdet.RetinaHead',
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        anchor_generator=dict(type='mmdet.AnchorGenerator', scales=[1], ratios=[1.0], strides=[4, 8]),
    ),
)


class Detector(nn.Module):
    """Neither mmpretrain's nor mmseg's: a backbone inside of another module, and a decoder that has layers too."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = backbone
        self.backbone.pyramid = nn.Conv2d(16, 16, 1)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList([nn.Linear(16, 16)])


def build_model(cfg: dict) -> nn.Module:
    # As a config's default_scope does: parts that a detector adds have types without a scope.
    with DefaultScope.overwrite_default_scope(cfg['type'].split('.')[0]):
        return MODELS.build(cfg)


def build(model, wrapper='OptimWrapper', optimizer=None, **paramwise_cfg):
    cfg = dict(
        type=wrapper,
        optimizer=optimizer or dict(type='AdamW', lr=LR, weight_decay=0.05),
        constructor='mmmlo.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(dict(layer_decay_rate=RATE), **paramwise_cfg),
    )
    return build_optim_wrapper(model, cfg)


def settings(model, wrapper) -> dict[str, dict]:
    """Name -> group, for every parameter in the optimizer; each must be in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = group
    return found


@pytest.mark.parametrize(
    'paramwise_cfg',
    [
        dict(),
        dict(norm_decay_mult=0.0, bias_decay_mult=0.5, flat_decay_mult=0.25),
        dict(bias_decay_mult=0.0),
        dict(flat_decay_mult=0.0, custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.1)}),
        # The longest key counts, and the first of the alphabet among equals.
        dict(custom_keys={'.ln': dict(decay_mult=0.1), '.layers.1.ln2': dict(decay_mult=0.2), '.attn': dict(decay_mult=0.3),
                          'norm': dict(), 'head': dict(decay_mult=0.4), 'bias': dict(decay_mult=0.5)}),
    ],
)
@pytest.mark.parametrize('frozen', [-1, 1])
def test_equal_to_mmpretrain_for_a_classifier(paramwise_cfg, frozen):
    model = MODELS.build(dict(CLASSIFIER, backbone=dict(CLASSIFIER['backbone'], frozen_stages=frozen)))
    reference = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=LR, weight_decay=0.05),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(dict(layer_decay_rate=RATE), **paramwise_cfg),
        ),
    )
    wrapper = build(model, **paramwise_cfg)
    expected, found = settings(model, reference), settings(model, wrapper)
    assert set(found) == set(expected) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, group in found.items():
        for key in ('lr', 'weight_decay', 'lr_scale', 'layer_id'):
            assert group[key] == pytest.approx(expected[name][key], rel=1e-12), (name, key)
    assert len(wrapper.optimizer.param_groups) < len(reference.optimizer.param_groups) / 2


def scale(name: str, prefix: str) -> float:
    """MAE's scale, from the name alone."""
    if name.startswith((f'{prefix}cls_token', f'{prefix}pos_embed', f'{prefix}patch_embed')):
        return RATE ** (BLOCKS + 1)
    if name.startswith(f'{prefix}layers.'):
        return RATE ** (BLOCKS - int(name[len(prefix):].split('.')[1]))
    return 1.0


@pytest.mark.parametrize(
    ('cfg', 'prefix'),
    [
        (CLASSIFIER, 'backbone.'),
        (SEGMENTOR, 'backbone.'),
        (DETECTOR, 'backbone.'),
        (dict(VIT, type='mmmlo.MaskedViT', learnable_pos_embed=True), ''),
        (lambda: Detector(MODELS.build(VIT)), 'backbone.body.'),
        (lambda: nn.ModuleDict(dict(encoder=MODELS.build(VIT), head=nn.Linear(16, 3))), 'encoder.'),
    ],
    ids=['classifier', 'segmentor', 'detector', 'bare', 'nested', 'another name'],
)
def test_every_parameter_has_the_scale_of_its_layer(cfg, prefix):
    model = cfg() if callable(cfg) else build_model(cfg)
    wrapper = build(model, flat_decay_mult=0.0)
    groups = settings(model, wrapper)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert groups[name]['lr'] == pytest.approx(LR * scale(name, prefix)), name
        assert groups[name]['weight_decay'] == (0.0 if parameter.ndim == 1 else 0.05)
    # One group for each layer and weight decay, in the order of the layers.
    kinds = [(group['layer_id'], group['lr_scale'], group['weight_decay']) for group in wrapper.optimizer.param_groups]
    assert kinds == sorted(set(kinds)) and len(kinds) <= 2 * (BLOCKS + 2)


def test_frozen_and_shared_parameters():
    model = Detector(MODELS.build(VIT))
    model.backbone.body.patch_embed.requires_grad_(False)
    model.shared = model.decoder.layers[0]
    groups = settings(model, build(model))
    assert set(groups) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any('patch_embed' in name for name in groups)


def test_custom_keys_scale_the_learning_rate():
    model = MODELS.build(CLASSIFIER)
    groups = settings(model, build(model, custom_keys=dict(head=dict(lr_mult=10), layers=dict(lr_mult=0.1))))
    assert groups['head.fc.weight']['lr'] == pytest.approx(10 * LR)
    assert groups['backbone.layers.2.ln1.weight']['lr'] == pytest.approx(0.1 * LR * RATE)
    assert groups['backbone.layers.2.ln1.weight']['lr_scale'] == pytest.approx(0.1 * RATE)
    assert groups['backbone.ln2.weight']['lr'] == LR


def test_rate_of_one_and_an_optimizer_without_weight_decay():
    model = MODELS.build(CLASSIFIER)
    wrapper = build(model, optimizer=dict(type='SGD', lr=LR), layer_decay_rate=1)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {LR}
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0}


@pytest.mark.parametrize(
    ('kind', 'name'), [('mmmlo.BFloat16OptimWrapper', 'BFloat16OptimWrapper'), ('AmpOptimWrapper', 'AmpOptimWrapper')]
)
def test_wrapped_models_and_mixed_precision(kind, name, monkeypatch):
    # mmengine asks for a GPU, which nothing here needs.
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = MODELS.build(CLASSIFIER)
    wrapper = build(Wrapper(model), kind)
    assert type(wrapper).__name__ == name
    expected = settings(model, build(model))
    assert {k: v['lr'] for k, v in settings(model, wrapper).items()} == {k: v['lr'] for k, v in expected.items()}


def test_schedules_keep_the_ratios():
    model = MODELS.build(CLASSIFIER)
    wrapper = build(model)
    schedules = [
        LinearLR(wrapper, start_factor=1e-4, by_epoch=False, begin=0, end=5),
        CosineAnnealingLR(wrapper, T_max=10, eta_min_ratio=1e-3, by_epoch=False, begin=5, end=16),
    ]
    base = []
    for _ in range(16):
        base.append(wrapper.get_lr()['base_lr'][0])
        for group in wrapper.optimizer.param_groups:
            assert group['lr'] == pytest.approx(base[-1] * group['lr_scale'])
        loss = sum(parameter.square().sum() for parameter in model.parameters())
        wrapper.update_params(loss)
        for schedule in schedules:
            schedule.step()
    assert base[0] == pytest.approx(1e-4 * LR) and max(base) == pytest.approx(LR) and base[-1] == pytest.approx(1e-3 * LR)


def test_a_level_of_a_multi_level_model(tiny_model):
    model = tiny_model()
    cfg = dict(
        constructor='mmmlo.MultiLevelOptimWrapperConstructor',
        levels=dict(
            pretrain=dict(
                optimizer=dict(type='AdamW', lr=LR),
                constructor='mmmlo.LayerDecayOptimWrapperConstructor',
                paramwise_cfg=dict(layer_decay_rate=RATE),
            ),
            finetune=dict(optimizer=dict(type='AdamW', lr=LR)),
            masking=dict(optimizer=dict(type='AdamW', lr=LR), paths=['pretrain']),
        ),
    )
    found = settings(model, build_optim_wrapper(model, cfg)['pretrain'])
    assert found['backbone.layers.0.attn.qkv.weight']['lr'] == pytest.approx(LR * RATE ** len(model.backbone.layers))
    assert found['neck.mask_token']['lr'] == LR


def test_log(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmmlo.engine.optim_wrappers.layer_decay_constructor.print_log', lambda text, *_: lines.append(text)
    )
    build(MODELS.build(CLASSIFIER), flat_decay_mult=0.0)
    assert lines == ['layer-wise learning-rate decay 0.5 in backbone: lr from 0.00625 to 0.1, 10 parameter groups']


@pytest.mark.parametrize(
    ('paramwise_cfg', 'message'),
    [
        (dict(layer_decay_rate=None), r'layer_decay_rate must be a number in \(0, 1\], such as 0.75, got None'),
        (dict(layer_decay_rate=0), r'paramwise_cfg.layer_decay_rate must be a number in \(0, 1\], such as 0.75, got 0'),
        (dict(layer_decay_rate=1.5), r'such as 0.75, got 1.5'),
        (dict(layer_decay_rate='0.5'), r"such as 0.75, got '0.5'"),
        (dict(bias_lr_mult=2.0), r"paramwise_cfg has 'bias_lr_mult', which is none of \['layer_decay_rate'"),
        (dict(custom_keys=dict(head=dict(lr_mul=2))), r"custom_keys\['head'\] has 'lr_mul', which is none of \['lr_mult'"),
    ],
)
def test_wrong_settings(paramwise_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(MODELS.build(VIT), **paramwise_cfg)


def test_missing_learning_rate_and_weight_decay():
    with pytest.raises(ValueError, match='optimizer.lr is missing'):
        LayerDecayOptimWrapperConstructor(dict(optimizer=dict(type='AdamW')), dict(layer_decay_rate=0.5))
    with pytest.raises(ValueError, match='optimizer.weight_decay is missing, but .*flat_decay_mult'):
        build(MODELS.build(VIT), optimizer=dict(type='SGD', lr=LR), flat_decay_mult=0.0)


@pytest.mark.parametrize('model', [nn.Linear(2, 2), Detector(nn.Conv2d(3, 16, 1))], ids=['no backbone', 'no layers'])
def test_model_without_layers(model):
    with pytest.raises(ValueError, match=r'has no backbone with layers; model.backbone must be'):
        build(model)
