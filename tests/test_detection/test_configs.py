"""Every detection config at its full size, without memory for it; and encoders of other pretraining in it."""

import glob
import os.path as osp

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmmlo.launch.config import load_config, set_backbone
from mmmlo.models import MaskedViT
from mmmlo.utils.key_report import KeyMismatchError, initialized_from

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
FOLDER = osp.join(ROOT, 'configs', 'detection')
# Width, blocks, global blocks, side of an image, batch, iterations, layer decay, drop path.
CONFIGS = {
    'mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco': (768, 12, {2, 5, 8, 11}, 1024, 64, 184375, 0.7, 0.1),
    'mask-rcnn_vit-large-p16_8xb8-amp-lsj-184k_coco': (1024, 24, {5, 11, 17, 23}, 1024, 64, 184375, 0.8, 0.4),
    'cascade-mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco': (768, 12, {2, 5, 8, 11}, 1024, 64, 184375, 0.7, 0.1),
    'cascade-mask-rcnn_vit-large-p16_8xb8-amp-lsj-184k_coco': (1024, 24, {5, 11, 17, 23}, 1024, 64, 184375, 0.8, 0.4),
    'mask-rcnn_vit-base-p16_1xb8-amp-lsj-512px-90k_coco': (768, 12, {2, 5, 8, 11}, 512, 8, 90000, 0.7, 0.1),
    'mask-rcnn_vit-mini-p16_1xb2-320px-800_coco': (192, 6, {2, 5}, 320, 2, 800, 0.9, 0.0),
}
BASE, *_ = CONFIGS


@pytest.fixture(autouse=True)
def default_scope():
    """What a runner does with the configs' default_scope."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def load(name: str) -> Config:
    return load_config(osp.join(FOLDER, f'{name}.py'))


def build(cfg: Config):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def test_every_config_is_listed():
    assert sorted(CONFIGS) == sorted(osp.basename(path)[:-3] for path in glob.glob(osp.join(FOLDER, '*.py')))
    with open(osp.join(FOLDER, 'metafile.yml'), encoding='utf-8') as file:
        models = {model['Name']: model for model in yaml.safe_load(file)['Models']}
    assert sorted(models) == sorted(CONFIGS)
    with open(osp.join(FOLDER, 'README.md'), encoding='utf-8') as file:
        readme = file.read()
    for name in CONFIGS:
        assert f'({name}.py)' in readme
        with open(osp.join(FOLDER, f'{name}.py'), encoding='utf-8') as file:
            header = file.read().split('_base_')[0]
        assert f'configs/detection/{name}.py' in header and '--backbone CHECKPOINT' in header and '# Cost: ' in header


@pytest.mark.parametrize('name', CONFIGS)
def test_full_size(name):
    width, depth, global_blocks, size, batch, iterations, decay, drop_path = CONFIGS[name]
    cfg = load(name)
    model, _ = build(cfg)
    with open(osp.join(FOLDER, 'metafile.yml'), encoding='utf-8') as file:
        models = {found['Name']: found for found in yaml.safe_load(file)['Models']}
    assert models[name]['Metadata']['Parameters'] == sum(parameter.numel() for parameter in model.parameters())
    backbone = model.backbone
    assert type(backbone).__name__ == 'WindowedViT' and backbone.global_blocks == global_blocks
    assert (backbone.embed_dims, backbone.num_layers, backbone.img_size) == (width, depth, (size, size))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert backbone.layers[-1].attn.out_drop.drop_prob == pytest.approx(drop_path)
    heads = model.roi_head.bbox_head
    heads = heads if isinstance(heads, torch.nn.ModuleList) else [heads]
    assert len(heads) == (3 if 'cascade' in name else 1)
    for head in heads:
        assert type(head).__name__ == 'Shared4Conv1FCBBoxHead' and head.num_classes == 80
        assert type(head.shared_convs[0].norm).__name__ == 'LayerNorm2d'
    if 'cascade' in name:
        assert [head.bbox_coder.stds[0] for head in heads] == [0.1, 0.05, 0.033]
    processes = int(name.split('_')[2].split('xb')[0])
    assert cfg.train_dataloader.batch_size * processes == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == iterations
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == decay
    assert ('BFloat16' in cfg.optim_wrapper.type) == ('amp' in name)
    (pad,) = [transform for transform in cfg.train_dataloader.dataset.pipeline if transform.type == 'Pad']
    assert pad['size'] == (size, size)
    # After the pipeline: what it pads belongs to the image, and boxes may lie in it.
    assert not any(transform.type == 'Pad' for transform in cfg.val_dataloader.dataset.pipeline)
    assert model.data_preprocessor.pad_size_divisor == size
    with torch.device('meta'):
        outs = model.eval().extract_feat(torch.empty(1, 3, size, size))
    assert [out.shape[-1] for out in outs] == [size // stride for stride in (4, 8, 16, 32, 64)]


def test_learning_rate_of_every_layer_group():
    model, wrapper = build(load(BASE))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {}
    for group in wrapper.optimizer.param_groups:
        layer, rate, weight_decay = (group[name] for name in ('layer_id', 'lr', 'weight_decay'))
        print(f'layer {layer}: lr {rate:.3e}, weight decay {weight_decay}, {len(group["params"])} parameters')
        groups.update({names[id(parameter)]: (layer, rate, weight_decay) for parameter in group['params']})
    assert set(groups) == set(names.values())
    for name, (layer, rate, weight_decay) in groups.items():
        if name.startswith('backbone.layers.'):
            expected = int(name.split('.')[2]) + 1
        else:
            expected = 0 if name.startswith('backbone.') else 13
        assert layer == expected, name
        assert rate == pytest.approx(1e-4 * 0.7 ** (13 - expected)), name
        owner = model.get_submodule(name.rpartition('.')[0])
        undecayed = isinstance(owner, torch.nn.LayerNorm) or name.endswith('pos_embed')
        assert weight_decay == (0 if undecayed else 0.1), name


@pytest.fixture(scope='module')
def base_checkpoint(tmp_path_factory):
    """Weights of a ViT-B/16 as MAE pretrains it at 224 px, all zero: names and shapes are what counts."""
    with torch.device('meta'):
        model = MaskedViT()
    path = str(tmp_path_factory.mktemp('base') / 'mae.pth')
    state = {f'backbone.{key}': torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items()}
    state['backbone.grid'] = torch.tensor(model.grid_size)
    torch.save(dict(state_dict=state), path)
    return path


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'vit-base' in name])
def test_a_pretrained_vit_b_has_every_key(name, base_checkpoint):
    cfg = load(name)
    set_backbone(cfg, base_checkpoint)
    ((_, _, _, report),) = initialized_from(MODELS.build(cfg.model))
    counts = {kind: count for kind, count in report.check().counts().items() if count}
    # Patch embedding, 12 a block; the class token and the final norm have no place in ViTDet's backbone.
    assert counts == dict(matched=2 + 12 * 12, resized=2, left_by_design=3)


def test_another_patch_size_is_an_error(tiny_checkpoint, cut_down):
    cfg = cut_down(load(BASE))
    cfg.model.backbone.arch.num_layers = 2
    set_backbone(cfg, tiny_checkpoint('patch_4_detected'))
    ((*_, report),) = initialized_from(MODELS.build(cfg.model))
    with pytest.raises(KeyMismatchError, match='patch_embed.projection.weight 48x3x4x4 -> 48x3x16x16'):
        report.check()
