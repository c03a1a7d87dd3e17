"""Every segmentation config at its full size, without memory for it, and cut down through one step."""

import glob
import os.path as osp

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmmlo.launch.config import load_config

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
FOLDER = osp.join(ROOT, 'configs', 'segmentation')
# Width, blocks, blocks whose features are used, classes, iterations, layer decay, drop path.
CONFIGS = {
    'upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512': (768, 12, [3, 5, 7, 11], 150, 160000, 0.65, 0.1),
    'upernet_vit-large-p16_8xb2-amp-160k_ade20k-512x512': (1024, 24, [7, 11, 15, 23], 150, 160000, 0.75, 0.2),
    'linear_vit-base-p16_8xb2-amp-40k_ade20k-512x512': (768, 12, [11], 150, 40000, None, 0),
    'linear_vit-large-p16_8xb2-amp-40k_ade20k-512x512': (1024, 24, [23], 150, 40000, None, 0),
    'upernet_vit-mini-p16_camvid': (192, 6, [1, 2, 3, 5], 11, 400, 0.75, 0.1),
    'linear_vit-mini-p16_camvid': (192, 6, [5], 11, 600, None, 0),
}
UPERNET_BASE, *_ = CONFIGS


@pytest.fixture(autouse=True)
def default_scope():
    """What a runner does with the configs' default_scope."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def load(name: str) -> Config:
    return load_config(osp.join(FOLDER, f'{name}.py'))


def build(cfg: Config):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def batch(size: tuple[int, int], classes: int, count: int = 2) -> dict:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, *size), generator=generator).float() for _ in range(count)]
    labels = [torch.randint(classes, (1, *size), generator=generator) for _ in range(count)]
    return dict(inputs=images, data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels])


def test_every_config_is_listed():
    assert sorted(CONFIGS) == sorted(osp.basename(path)[:-3] for path in glob.glob(osp.join(FOLDER, '*.py')))
    assert sorted(_metafile()) == sorted(CONFIGS)
    with open(osp.join(FOLDER, 'README.md'), encoding='utf-8') as file:
        readme = file.read()
    for name in CONFIGS:
        assert f'({name}.py)' in readme
        with open(osp.join(FOLDER, f'{name}.py'), encoding='utf-8') as file:
            header = file.read().split('_base_')[0]
        assert f'configs/segmentation/{name}.py' in header and '--backbone CHECKPOINT' in header and '# Cost: ' in header


def _metafile() -> dict[str, dict]:
    with open(osp.join(FOLDER, 'metafile.yml'), encoding='utf-8') as file:
        return {model['Name']: model['Metadata'] for model in yaml.safe_load(file)['Models']}


@pytest.mark.parametrize('name', CONFIGS)
def test_full_size(name):
    width, depth, indices, classes, iterations, decay, drop_path = CONFIGS[name]
    cfg = load(name)
    model, wrapper = build(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == _metafile()[name]['Parameters']
    backbone = model.backbone
    assert type(backbone).__module__.startswith('mmpretrain.') and type(backbone).__name__ == 'VisionTransformer'
    assert (backbone.embed_dims, backbone.num_layers, backbone.out_indices) == (width, depth, indices)
    # ln1 is in the graph, or it is not there: a parameter without a gradient would stop distributed training.
    assert backbone.final_norm == ('linear' in name)

    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    given = [names[id(parameter)] for group in wrapper.optimizer.param_groups for parameter in group['params']]
    assert trainable <= set(given) and len(given) == len(set(given))
    if 'linear' in name:
        assert trainable == {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    else:
        assert trainable == set(names.values())
        assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == decay
        assert backbone.layers[-1].ffn.dropout_layer.drop_prob == pytest.approx(drop_path)
    if 'ade20k' in name:
        assert type(wrapper).__name__ == 'BFloat16OptimWrapper'
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
        test_cfg = model.test_cfg
        assert (test_cfg.mode, test_cfg.crop_size, test_cfg.stride) == ('slide', (512, 512), (341, 341))
        assert cfg.train_dataloader.dataset.data_root == 'data/ade/ADEChallengeData2016'
        assert 'SyncBN' in str(load(name).model)
    else:
        assert 'SyncBN' not in str(load(name).model)
        assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == iterations
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin
    assert iterations % cfg.train_cfg.val_interval == iterations % cfg.default_hooks.checkpoint.interval == 0

    # Crops need not be square, nor whole patches.
    logits = model.eval()(torch.empty(2, 3, 360, 500, device='meta'))
    stride = 16 if 'linear' in name else 4 if 'ade20k' in name else 8
    assert logits.shape == (2, classes, 23 * 16 // stride, 32 * 16 // stride)


@pytest.mark.parametrize('name', CONFIGS)
def test_one_step_and_a_prediction(name, cut_down):
    cfg = cut_down(load(name))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    classes = CONFIGS[name][3]
    before = {name: value.clone() for name, value in model.named_parameters()}
    losses = model.train().train_step(batch((64, 80), classes), wrapper)
    assert all(torch.isfinite(value) for value in losses.values())
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    # Half of the drop paths of so small a batch may be shut, but not those of the first block.
    assert not any(name.startswith(('decode_head', 'auxiliary_head', 'neck', 'backbone.layers.0')) for name in still) or (
        'linear' in name and still == {name for name in before if name.startswith('backbone.')}
    )
    (predicted,) = model.eval().test_step(_meta(batch((50, 85), classes, count=1)))
    assert predicted.pred_sem_seg.data.shape == (1, 50, 85) and predicted.seg_logits.data.shape == (classes, 50, 85)


def _meta(data: dict) -> dict:
    """What mmseg's pipelines note of an image."""
    for sample, image in zip(data['data_samples'], data['inputs']):
        shape = tuple(image.shape[-2:])
        sample.set_metainfo(dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4))
    return data


def test_autocast_is_on(cut_down):
    cfg = cut_down(load(UPERNET_BASE))
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper).__name__ == 'BFloat16OptimWrapper'
    seen = {}
    for name in ('backbone.layers.0.attn.qkv', 'neck.upsample_4x.0', 'decode_head.conv_seg', 'auxiliary_head.conv_seg'):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda module, args, output, name=name: seen.update({name: output.dtype}))
    model.train().train_step(batch((64, 80), 150), wrapper)
    assert len(seen) == 4 and set(seen.values()) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} <= {torch.float32}


def test_learning_rate_of_every_layer_group():
    model, wrapper = build(load(UPERNET_BASE))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {}
    for group in wrapper.optimizer.param_groups:
        layer, rate, weight_decay = (group[name] for name in ('layer_id', 'lr', 'weight_decay'))
        print(f'layer {layer}: lr {rate:.3e}, weight decay {weight_decay}, {len(group["params"])} parameters')
        for parameter in group['params']:
            groups[names[id(parameter)]] = layer, rate, weight_decay
    assert set(groups) == set(names.values())
    for name, (layer, rate, weight_decay) in groups.items():
        if name.startswith('backbone.layers.'):
            expected = int(name.split('.')[2]) + 1
        else:
            expected = 0 if name.startswith('backbone.') else 13
        assert layer == expected, name
        assert rate == pytest.approx(1e-4 * 0.65 ** (13 - expected)), name
        undecayed = name.endswith('bias') or 'norm' in name or '.bn.' in name or '.ln' in name or (
            name in ('backbone.cls_token', 'backbone.pos_embed', 'neck.upsample_4x.1.weight')
        )
        assert weight_decay == (0 if undecayed else 0.05), name
    # Embeddings, blocks and what is above them, each with and without weight decay.
    assert len(wrapper.optimizer.param_groups) == 28
