"""Feedback by segmentation and by several tasks: what heads see, and their hypergradients against double backward."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn.attention import SDPBackend, sdpa_kernel

LINEAR = dict(type='mmmlo.LinearSegHead', in_channels=48, num_classes=5)
FCN = dict(type='mmseg.FCNHead', in_channels=48, in_index=0, channels=8, num_convs=1, num_classes=5,
           norm_cfg=dict(type='GN', num_groups=2))
UPER = dict(type='mmseg.UPerHead', in_channels=[48, 48], in_index=[0, 1], pool_scales=(1, 2), channels=8, num_classes=5,
            norm_cfg=dict(type='GN', num_groups=2))


def task(head):
    return dict(type='mmmlo.SegmentationTask', decode_head=head)


def scenes(seed, shape=(16, 24), count=3):
    """A preprocessed batch of images and label maps, with pixels that are to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, *shape, generator=generator, dtype=torch.float64)
    maps = torch.randint(5, (count, 1, *shape), generator=generator)
    maps[:, :, :3] = 255
    return dict(inputs=inputs, data_samples=[SegDataSample(gt_sem_seg=PixelData(data=own)) for own in maps])


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def dot(a, b):
    return sum((x * y).sum() for x, y in zip(a, b))


def grads(loss, parameters, **kwargs):
    found = torch.autograd.grad(loss, parameters, allow_unused=True, **kwargs)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)]


def reference(model, batches):
    """The hypergradient along both paths, written out in double backward."""
    def total(level):
        return sum(value for name, value in model.level_loss(level, batches[level]).items() if 'loss' in name)

    encoder = [p for n in ('backbone', 'neck') for p in getattr(model, n).parameters() if p.requires_grad]
    head, masker = list(model.downstream.parameters()), list(model.masker.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        upper = grads(total('masking'), encoder + head)
        through_head = grads(dot(grads(total('finetune'), head, create_graph=True), upper[len(encoder):]), encoder)
        vector = [a - b for a, b in zip(upper, through_head)]
        return [-g for g in grads(dot(grads(total('pretrain'), encoder, create_graph=True), vector), masker)]


def check_hypergradient(model, tiny_wrapper, batches, estimator='ForwardMode'):
    wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
    expected = reference(model, batches)
    actual = wrapper.hypergradient(model, 'masking', batches['masking'], batches).gradients
    error = sum(((a - b) ** 2).sum() for a, b in zip(actual, expected)) / sum((b**2).sum() for b in expected)
    assert error.sqrt() < 1e-8


@pytest.mark.parametrize(
    ('head', 'estimator'),
    [(LINEAR, 'ForwardMode'), (FCN, 'ForwardMode'), (UPER, 'ForwardMode'),
     (dict(FCN, norm_cfg=dict(type='BN')), 'DoubleBackward')],
    ids=['linear', 'fcn', 'uper', 'batch norm'])
def test_hypergradients_of_segmentation_equal_double_backward(tiny_model, tiny_batch, tiny_wrapper, head, estimator):
    head = dict(head, dropout_ratio=0.0)  # the reference would draw its own
    outputs = dict(out_indices=[0, 1]) if head['type'] == 'mmseg.UPerHead' else {}
    model = perturbed(tiny_model(downstream=task(head), backbone=outputs))
    batches = dict(pretrain=tiny_batch(0), finetune=scenes(1), masking=scenes(2, shape=(24, 16)))
    check_hypergradient(model, tiny_wrapper, batches, estimator)


def test_the_head_sees_maps_of_patches_and_ignores_void(tiny_model):
    model = tiny_model(downstream=task(LINEAR)).eval()
    batch = scenes(0)
    tokens = model.backbone(batch['inputs'])[-1]  # B x (1 + L) x C
    maps = tokens[:, 1:].reshape(3, 4, 6, 48).permute(0, 3, 1, 2)
    logits = torch.nn.functional.interpolate(model.downstream.decode_head(maps[None]), (16, 24), mode='bilinear')
    truth = torch.stack([sample.gt_sem_seg.data[0] for sample in batch['data_samples']])
    expected = torch.nn.functional.cross_entropy(logits, truth, ignore_index=255, reduction='sum') / truth.numel()
    for level in ('finetune', 'masking'):
        torch.testing.assert_close(model.level_loss(level, batch)['loss_ce'], expected)


def mix(**kwargs):
    head = dict(type='mmmlo.TokenClsHead', num_classes=5, in_channels=48, dropout=0.0)
    tasks = dict(kinds=head, places=dict(type='mmmlo.SegmentationTask', decode_head=LINEAR))
    return dict(type='mmmlo.TaskMix', tasks=tasks, **kwargs)


def test_a_mix_is_the_weighted_sum_of_its_tasks(tiny_model, tiny_batch, tiny_wrapper):
    model = perturbed(tiny_model(downstream=mix(weights=dict(places=0.5))))
    batches = dict(
        pretrain=tiny_batch(0), finetune=dict(kinds=tiny_batch(1), places=scenes(1)),
        masking=dict(kinds=tiny_batch(2), places=scenes(2)))
    losses = model.level_loss('finetune', batches['finetune'])
    kinds, places = model.downstream.tasks.kinds, model.downstream.tasks.places
    alone = kinds.loss(model.extract_feat(batches['finetune']['kinds']['inputs']), tiny_batch(1)['data_samples'])
    torch.testing.assert_close(losses['kinds_loss'], alone['loss'])
    maps = model._features(batches['finetune']['places']['inputs'], places)
    alone = places.loss(maps, batches['finetune']['places']['data_samples'])
    torch.testing.assert_close(losses['places_loss_ce'], 0.5 * alone['loss_ce'])
    check_hypergradient(model, tiny_wrapper, batches)


@pytest.mark.parametrize(
    ('downstream', 'batch', 'message'),
    [
        (mix(weights=dict(boxes=1.0)), None, r"weights must be positive numbers for some of .*got {'boxes': 1.0}"),
        (mix(weights=dict(kinds=0)), None, r"got {'kinds': 0}"),
        (mix(), dict(kinds=None), r"tasks has \['places'\], for which the level has no loader"),
        (task(LINEAR), 'classes', 'needs maps of labels of one size'),
        (task(dict(type='mmpretrain.GlobalAveragePooling')), None, 'is a GlobalAveragePooling, which has no loss'),
    ],
)
def test_what_does_not_fit_is_named(tiny_model, tiny_batch, downstream, batch, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(downstream=downstream).level_loss('finetune', tiny_batch(0) if batch == 'classes' else batch)


def test_a_mix_has_no_labels_for_two_levels(tiny_model):
    with pytest.raises(ValueError, match='each task of a TaskMix has its own'):
        tiny_model(downstream=mix(), bilevel=1.0)
