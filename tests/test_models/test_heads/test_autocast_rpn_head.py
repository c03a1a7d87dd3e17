import torch
from mmengine.registry import MODELS, DefaultScope


def test_outputs_are_fp32_and_convolutions_are_not():
    torch.manual_seed(0)
    cfg = dict(
        type='mmmlo.AutocastRPNHead',
        in_channels=8,
        feat_channels=8,
        num_convs=2,
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        head, plain = MODELS.build(cfg), MODELS.build(dict(cfg, type='RPNHead'))
    plain.load_state_dict(head.state_dict())
    features = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    for ours, theirs in zip(head(features), plain(features)):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs))
    seen = []
    head.rpn_reg.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        scores, deltas = head(features)
    assert {out.dtype for out in (*scores, *deltas)} == {torch.float32} and set(seen) == {torch.bfloat16}
    assert [tuple(out.shape) for out in scores] == [(2, 3, 8, 8), (2, 3, 4, 4)]
