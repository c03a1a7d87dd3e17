import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv import imnormalize, imread, imresize
from sklearn.datasets import load_sample_images

from mmmlo.converters import convert, write_file


def difference(one, other):
    return (one - other).abs().max().item()


@torch.no_grad()
def test_round_trip_and_features(timm_vit, our_vit, image, save, same, tmp_path):
    from timm.models import load_checkpoint

    model = timm_vit()
    there = convert([save('timm.pth', model.state_dict())], 'mmmlo')
    assert there.source.name == 'timm' and 'recognized by its keys' in str(there.report)
    assert len(there.report.mapped) == len(model.state_dict()) and not there.report.dropped
    assert difference(our_vit(there.state)(image())[-1], model.forward_features(image())) < 1e-4

    ours, back = str(tmp_path / 'ours.pth'), str(tmp_path / 'back.pth')
    write_file(ours, there.state, there.target, there.meta)
    again = convert([ours], 'timm')
    assert same(again.state, model.state_dict())
    write_file(back, again.state, again.target, again.meta)
    fresh = timm_vit(img_size=16)
    load_checkpoint(fresh, back)  # strict, and weights only
    assert same(fresh.state_dict(), model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize('grid', [(6, 3), (8, 8)])
def test_grid_is_resized_as_timm_does_it(timm_vit, our_vit, image, save, same, grid):
    from timm.models.vision_transformer import checkpoint_filter_fn

    small, size = timm_vit(), (4 * grid[0], 4 * grid[1])
    ours = save('ours.pth', convert([save('timm.pth', small.state_dict())], 'mmmlo').state)
    large = convert([ours], 'timm', grid=grid)
    model = timm_vit(img_size=size)
    expected = checkpoint_filter_fn(small.state_dict(), model)
    assert same(large.state, expected)
    assert large.report.resized['pos_embed'][:2] == ((4, 4), grid)
    assert 'timm' in large.report.resized['pos_embed'][2]

    # What is not square must say so: ours has the grid beside the weights, timm's file has it in what is written along.
    model.load_state_dict(large.state)
    given = dict(state_dict=large.state, meta=dict(converter=large.meta))
    back = convert([save('large.pth', given)], 'mmmlo')
    encoder = our_vit(back.state, img_size=size)
    assert difference(encoder(image(*size))[-1], model.forward_features(image(*size))) < 1e-4
    assert ('backbone.grid' in back.report.added) == (grid[0] != grid[1])
    if grid[0] != grid[1]:
        assert tuple(back.state['backbone.grid']) == grid
        bare = save('bare.pth', large.state)
        with pytest.raises(ValueError, match='18 patches, which is no square; tell their grid by --source-grid'):
            convert([bare], 'mmmlo')
        assert same(convert([bare], 'mmmlo', asked_source_grid=grid).state, back.state)


def test_only_the_encoder_goes_to_timm(tiny_checkpoint):
    path = tiny_checkpoint('mlo_mae')
    result = convert([path], 'timm')
    assert all(key.startswith(('blocks', 'cls', 'pos', 'patch', 'norm')) for key in result.state)
    reasons = list(result.report.dropped.values())
    assert reasons.count('decoder that timm has no place for') == 21
    assert reasons.count('masking network that timm has no place for') == 4
    assert reasons.count('downstream head that timm has no place for') == 4
    assert len(result.report.mapped) + len(reasons) == len(torch.load(path)['state_dict'])
    assert 'dropped: 21, decoder that timm has no place for: neck.mask_token' in str(result.report)


@torch.no_grad()
@pytest.mark.parametrize('pool', ['avg', 'token'])
def test_classifier(timm_vit, image, save, same, pool):
    from mmpretrain.models import ImageClassifier

    model = timm_vit(global_pool=pool, num_classes=5)
    there = convert([save('timm.pth', model.state_dict())], 'mmmlo')
    arch = dict(embed_dims=128, num_layers=2, num_heads=2, feedforward_channels=256)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=16, patch_size=4)
    if pool == 'avg':  # as in the fine-tuning configs
        backbone.update(out_type='avg_featmap', final_norm=False)
    classifier = ImageClassifier(backbone, head=dict(type='LinearClsHead', num_classes=5, in_channels=128))
    classifier.load_state_dict(there.state)
    assert difference(classifier.eval()(image()), model(image())) < 1e-4
    assert same(convert([save('ours.pth', there.state)], 'timm').state, model.state_dict())


def test_a_head_that_timm_has_not(timm_vit, save):
    state = convert([save('timm.pth', timm_vit(num_classes=5).state_dict())], 'mmmlo').state
    state.update({'head.norm.weight': torch.ones(128), 'head.norm.bias': torch.zeros(128)})
    result = convert([save('ours.pth', state)], 'timm')
    assert {key for key, why in result.report.dropped.items() if why == 'head that timm has no place for'} == {
        f'head.{name}.{p}' for name in ('fc', 'norm') for p in ('weight', 'bias')
    }


@torch.no_grad()
def test_layer_scale(timm_vit, our_vit, image, save):
    model = timm_vit(init_values=0.5)
    there = convert([save('timm.pth', model.state_dict())], 'mmmlo')
    encoder = our_vit(there.state, layer_scale_init_value=0.5)
    assert difference(encoder(image())[-1], model.forward_features(image())) < 1e-4


@pytest.fixture
def photographs():
    """Ten photographs, normalized as for ImageNet, 10 x 3 x H x W; ``photographs(height, width)``.

    Those of the folder that MMMLO_DATA_ROOT names, or crops of the two that come with scikit-learn.
    """
    root = os.environ.get('MMMLO_DATA_ROOT')
    if root:
        paths = sorted(path for path in Path(root).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
        assert len(paths) >= 10, f'MMMLO_DATA_ROOT is {root}, which holds {len(paths)} JPEG files; ten are needed'
        images = [imread(str(path)) for path in paths[::len(paths) // 10][:10]]
    else:
        corners = [(0, 0), (0, 320), (171, 0), (171, 320), (85, 160)]
        images = [image[y:y + 256, x:x + 320, ::-1] for image in load_sample_images().images for y, x in corners]
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])

    def batch(height: int, width: int) -> torch.Tensor:
        sized = [imresize(image, (width, height), interpolation='bicubic') for image in images]
        pixels = np.stack([imnormalize(image, mean, std, to_rgb=True) for image in sized])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    return batch


@pytest.mark.slow
@torch.no_grad()
def test_vit_base_on_photographs(photographs, save, same, jitter, tmp_path):
    import timm
    from mmpretrain.models import VisionTransformer

    def check(ours: str, theirs: str, size: tuple[int, int]) -> None:
        pretrained = dict(type='Pretrained', checkpoint=ours, prefix='backbone.')
        encoder = VisionTransformer(arch='base', img_size=size, patch_size=16, out_type='raw', init_cfg=pretrained)
        encoder.init_weights()
        encoder.eval()
        model = timm.create_model('vit_base_patch16_224', num_classes=0, img_size=size, checkpoint_path=theirs).eval()
        for image in photographs(*size).split(1):
            tokens = model.forward_features(image)
            assert tokens.shape == (1, 1 + size[0] // 16 * (size[1] // 16), 768) and tokens.std() > 0.1
            assert difference(encoder(image)[-1], tokens) < 1e-4

    def write(name: str, result) -> str:
        write_file(str(tmp_path / name), result.state, result.target, result.meta)
        return str(tmp_path / name)

    model = jitter(timm.create_model('vit_base_patch16_224', num_classes=0))
    ours = write('ours.pth', convert([save('timm.pth', model.state_dict())], 'mmmlo'))
    back = convert([ours], 'timm')
    assert same(back.state, model.state_dict())
    check(ours, write('back.pth', back), (224, 224))

    large = write('large.pth', convert([ours], 'timm', grid=(16, 20)))
    check(write('large_ours.pth', convert([large], 'mmmlo')), large, (256, 320))
    large = write('large_ours.pth', convert([ours], 'mmmlo', grid=(16, 20)))
    check(large, write('large.pth', convert([large], 'timm')), (256, 320))
