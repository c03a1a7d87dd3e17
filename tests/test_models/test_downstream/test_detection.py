"""Feedback by detection: what heads see, their hypergradients against double backward, and what is refused."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmmlo.models import PlainFocalLoss

FOCAL = dict(type='mmmlo.PlainFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
COMMON = dict(num_classes=3, in_channels=48, feat_channels=8, stacked_convs=1, loss_cls=FOCAL)
GN = dict(norm_cfg=dict(type='GN', num_groups=2))
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[4])
FCOS = dict(COMMON, **GN, type='mmdet.FCOSHead', strides=[4], regress_ranges=((-1, 1e8),))
GIOU = dict(FCOS, norm_on_bbox=True, centerness_on_reg=True, center_sampling=True, loss_bbox=dict(type='GIoULoss'))
ATSS = dict(COMMON, **GN, type='mmdet.ATSSHead', anchor_generator=ANCHORS, loss_bbox=dict(type='GIoULoss'),
            train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=4), allowed_border=-1, pos_weight=-1, debug=False))
MAX_IOU = dict(type='MaxIoUAssigner', pos_iou_thr=0.3, neg_iou_thr=0.2, min_pos_iou=0)
RETINA = dict(COMMON, type='mmdet.RetinaHead', anchor_generator=ANCHORS,
              train_cfg=dict(assigner=MAX_IOU, allowed_border=-1, pos_weight=-1, debug=False))
FPN = dict(neck=dict(type='mmmlo.SimpleFPN', in_channels=48, out_channels=8, num_outs=4))
PYRAMID = dict(FCOS, in_channels=8, strides=[1, 2, 4, 8], regress_ranges=((-1, 4), (4, 6), (6, 8), (8, 1e8)))


def task(head, **kwargs):
    return dict(type='mmmlo.DetectionTask', head=head, **kwargs)


def scenes(seed, shape=(16, 24), count=3):
    """A preprocessed batch of images and boxes; the last image has none."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, *shape, generator=generator, dtype=torch.float64)
    samples = []
    for image in range(count):
        boxes = torch.tensor([[1.0, 2.0, 9.0, 13.0], [6.0, 5.0, 15.0, 15.0]]) + image
        labels = torch.randint(3, (2,), generator=generator)
        keep = slice(0 if image == count - 1 else 2)
        meta = dict(batch_input_shape=shape, img_shape=shape, pad_shape=shape)
        sample = DetDataSample(metainfo=meta, gt_instances=InstanceData(bboxes=boxes[keep], labels=labels[keep]))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.fixture
def in_double(monkeypatch):
    """mmdet's heads predict boxes in float32, against overflow in float16, which would round what is compared."""
    to_float = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, 'float', lambda x: x if x.dtype == torch.float64 else to_float(x))


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


def reference(model, batches, paths):
    """The hypergradient along the paths, written out in double backward."""
    def total(level):
        return sum(value for name, value in model.level_loss(level, batches[level]).items() if 'loss' in name)

    encoder = [p for n in ('backbone', 'neck') for p in getattr(model, n).parameters() if p.requires_grad]
    head, masker = list(model.downstream.parameters()), list(model.masker.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        upper = grads(total('masking'), encoder + head)
        vector = upper[: len(encoder)] if 'pretrain' in paths else [torch.zeros_like(p) for p in encoder]
        if 'finetune>pretrain' in paths:
            through = grads(dot(grads(total('finetune'), head, create_graph=True), upper[len(encoder):]), encoder)
            vector = [a - b for a, b in zip(vector, through)]
        return [-g for g in grads(dot(grads(total('pretrain'), encoder, create_graph=True), vector), masker)]


@pytest.mark.parametrize(
    ('downstream', 'paths', 'estimator', 'tolerance'),
    [
        (task(FCOS), ['pretrain'], 'ForwardMode', 1e-8),
        (task(FCOS), ['finetune>pretrain'], 'ForwardMode', 1e-8),
        (task(FCOS), ['pretrain', 'finetune>pretrain'], 'FiniteDifference', 1e-3),
        (task(GIOU), ['pretrain', 'finetune>pretrain'], 'ForwardMode', 1e-8),
        (task(PYRAMID, **FPN), ['pretrain', 'finetune>pretrain'], 'ForwardMode', 1e-8),
        (task(ATSS), ['pretrain', 'finetune>pretrain'], 'ForwardMode', 1e-8),
        (task(RETINA), ['pretrain', 'finetune>pretrain'], 'ForwardMode', 1e-8),
    ],
    ids=['pretrain', 'finetune', 'differences', 'giou', 'pyramid', 'atss', 'retina'],
)
def test_hypergradients_equal_double_backward(
    tiny_model, tiny_batch, tiny_wrapper, in_double, downstream, paths, estimator, tolerance
):
    model = perturbed(tiny_model(downstream=downstream))
    batches = dict(pretrain=tiny_batch(0), finetune=scenes(1), masking=scenes(2, shape=(24, 16)))
    assert all(value > 0 for value in model.level_loss('finetune', batches['finetune']).values())
    wrapper = tiny_wrapper(model, masking=dict(paths=paths, hypergradient=dict(type=f'mmmlo.{estimator}')))
    expected = reference(model, batches, paths)
    actual = wrapper.hypergradient(model, 'masking', batches['masking'], batches).gradients
    error = sum(((a - b) ** 2).sum() for a, b in zip(actual, expected)) / sum((b**2).sum() for b in expected)
    assert error.sqrt() < tolerance


def test_all_passes_of_a_hypergradient_have_the_same_targets(tiny_model, tiny_batch, tiny_wrapper, in_double, monkeypatch):
    model = perturbed(tiny_model(downstream=task(FCOS)))
    batches = dict(pretrain=tiny_batch(0), finetune=scenes(1), masking=scenes(2))
    head, seen = model.downstream.head, []
    targets = head.get_targets
    monkeypatch.setattr(head, 'get_targets', lambda *args: seen.append(targets(*args)) or seen[-1])
    wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type='mmmlo.FiniteDifference')))
    wrapper.hypergradient(model, 'masking', batches['masking'], batches)
    assert len(seen) == 3  # of D_val, and of D_tr on either side
    for one, other in zip(seen[1], seen[2]):
        assert torch.equal(one[0], other[0])


def test_the_head_sees_the_map_of_patches(tiny_model, in_double):
    model = tiny_model(downstream=task(FCOS))
    batch = scenes(0)
    tokens = model.backbone(batch['inputs'])[-1]  # B x (1 + L) x C
    maps = tokens[:, 1:].reshape(3, 4, 6, 48).permute(0, 3, 1, 2).contiguous()
    expected = model.downstream.head.loss((maps,), batch['data_samples'])
    losses = model.level_loss('masking', batch)
    assert list(losses) == ['loss_cls', 'loss_bbox', 'loss_centerness']
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


def test_the_focal_loss_is_mmdets():
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(20, 3, generator=generator), torch.randint(4, (20,), generator=generator)
    truth = torch.nn.functional.one_hot(classes, 4)[:, :3]
    p = logits.sigmoid()
    expected = -truth * 0.25 * (1 - p) ** 2 * p.log() - (1 - truth) * 0.75 * p**2 * (1 - p).log()
    loss = PlainFocalLoss(gamma=2.0, alpha=0.25)
    torch.testing.assert_close(loss(logits, classes, avg_factor=5), expected.sum() / 5)
    torch.testing.assert_close(loss(logits, truth, avg_factor=5), expected.sum() / 5)


@pytest.mark.parametrize(
    ('downstream', 'message'),
    [
        (task(dict(FCOS, in_channels=32)), r'\.head\.in_channels is 32.*set model\.downstream\.head\.in_channels=48'),
        (task(PYRAMID, neck=dict(FPN['neck'], in_channels=32)), r'downstream\.neck\.in_channels is 32'),
        (task(dict(FCOS, loss_cls=dict(type='FocalLoss'))), r"head\.loss_cls is mmdet's FocalLoss.*mmmlo\.PlainFocalLoss"),
        (task(dict(type='mmdet.StandardRoIHead')), 'is a StandardRoIHead; .*NMS and RoIAlign of two-stage heads'),
        (task(dict(ATSS, type='mmdet.PAAHead')), 'is a PAAHead; .*assign labels by their own predictions'),
        (task(dict(FCOS, strides=[8])), r'has the strides \[8\].* maps of images of 16 x 24 pixels have \[4\]'),
        (task(FCOS, **FPN), r'has the strides \[4\].*have \[1, 2, 4, 8\]'),
    ],
)
def test_heads_that_do_not_fit_are_named(tiny_model, downstream, message):
    if 'neck' in downstream:
        downstream['head'] = dict(downstream['head'], in_channels=8)
    with pytest.raises(ValueError, match=message):
        tiny_model(downstream=downstream).level_loss('finetune', scenes(0))


def test_images_without_boxes_are_named(tiny_model, tiny_batch):
    with pytest.raises(ValueError, match='a sample has no boxes; take a data set of mmdet for the levels'):
        tiny_model(downstream=task(FCOS)).level_loss('finetune', tiny_batch(0))
    batch = scenes(0)
    for sample in batch['data_samples']:
        del sample.batch_input_shape
    with pytest.raises(ValueError, match='needs data_preprocessor=.*mmdet.DetDataPreprocessor'):
        tiny_model(downstream=task(FCOS)).level_loss('finetune', batch)
    with pytest.raises(ValueError, match='16 x 22 pixels are not a multiple of the patch size 4'):
        tiny_model(downstream=task(FCOS)).level_loss('finetune', scenes(0, shape=(16, 22)))
