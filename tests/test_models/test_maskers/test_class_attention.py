"""AttMask and AMT: what the class token attends to is masked, hints are shown, and what lies between is thrown away."""

import pytest
import torch

from mmmlo.models.selection import select_patches


def build(tiny_model, own=(), **updates):
    masker = dict(type='mmmlo.ClassAttentionMasker', **dict(own))
    model = tiny_model(
        type='mmmlo.MAE', downstream=None, masker=masker, weighting=dict(type='mmmlo.UniformWeights'), **updates)
    with torch.no_grad():  # away from the start, at which the attention is even
        for parameter in model.backbone.layers.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.masker.moves = True
    model.masker.move(model, momentum=1.0)
    return model


def attention(model, images):
    """The class token's attention in the last layer, written out: B x heads x L."""
    captured = {}
    layer = model.backbone.layers[-1]
    handle = layer.register_forward_pre_hook(lambda module, args: captured.update(x=args[0]))
    model.backbone(images)
    handle.remove()
    attn, x = layer.attn, layer.ln1(captured['x'])  # B x (1 + L) x C
    query, key, _ = attn.qkv(x).reshape(*x.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=-1)[:, :, 0, 1:]


def scores(model, images):
    return model.masker(images, None, (4, 4))


def test_scores_follow_the_mean_of_the_heads_attention(tiny_model, tiny_batch):
    model, images = build(tiny_model), tiny_batch(0)['inputs']
    maps = attention(model, images)
    low, high = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    expected = ((maps - low) / (high - low)).mean(1)
    torch.testing.assert_close(scores(model, images).double(), expected, rtol=0, atol=2e-3)
    model.masker.low = True
    torch.testing.assert_close(scores(model, images).double(), 1 - expected, rtol=0, atol=2e-3)


def test_hints_are_among_the_most_attended_and_visible(tiny_model, tiny_batch):
    images = tiny_batch(0)['inputs']
    model = build(tiny_model, dict(show=0.25))
    model.masker.mask_ratio = 0.75
    top = scores(build(tiny_model), images).topk(4, dim=1).indices
    for _ in range(5):
        hidden = select_patches(scores(model, images), 0.75).mask
        assert ((hidden.gather(1, top) == 0).sum(dim=1) == 3).all()  # 0.25 * 0.75 * 16 of the 4 visible patches
    drawn = torch.stack([(scores(model, images) < 5e-4) for _ in range(200)]).float()  # 200 x B x L
    torch.testing.assert_close(drawn.mean(dim=0).gather(1, top), torch.full((6, 4), 0.75), rtol=0, atol=0.12)
    model.masker.show = 0.5
    with pytest.raises(ValueError, match='show 0.5 makes 6 hints of 16 patches, and only 4 are visible'):
        scores(model, images)


def test_thrown_patches_are_neither_seen_nor_reconstructed(tiny_model, tiny_batch):
    model, batch = build(tiny_model, temperature=1.0, mask_ratio=0.45, throw_ratio=0.3), tiny_batch(0)
    torch.manual_seed(0)
    mask, keep, hidden, restore = select_patches(torch.rand(6, 16), 0.45, throw_ratio=0.3)
    assert keep.shape == (6, 4) and hidden.shape == (6, 8) and (mask.sum(dim=1) == 8).all()
    assert all(len({*a, *b}) == 12 for a, b in zip(keep.tolist(), hidden.tolist()))
    masking = model.fix_level('pretrain', batch)
    loss = model.level_loss('pretrain', batch, masking)['loss']
    _, keep, hidden, _ = masking.selection
    tokens = model.backbone.embed(batch['inputs'])[0].detach()
    moved = tokens.clone()
    for index, (seen, masked) in enumerate(zip(keep.tolist(), hidden.tolist())):
        moved[index, sorted({*range(16)} - {*seen, *masked})] += 1
    assert torch.equal(model.backbone.encode(tokens, keep), model.backbone.encode(moved, keep))
    pred = model.neck.decode_masked(model.backbone.encode(tokens, keep), keep, hidden)
    torch.testing.assert_close(loss, model.head.patch_loss(pred, batch['inputs'], hidden).mean())


def test_masked_patches_are_drawn_in_proportion_to_the_attention():
    score = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).expand(20000, -1)
    torch.manual_seed(0)
    first = select_patches(score, 0.25, temperature=1.0, throw_ratio=0.5).mask.mean(dim=0)  # one masked, two thrown
    torch.testing.assert_close(first, score[0], rtol=0, atol=0.012)


@pytest.mark.parametrize(
    ('own', 'updates', 'message'),
    [
        (dict(show=1.0), {}, 'model.masker.show must be from 0 to 1, 1 excluded, got 1.0'),
        (dict(show=0.1), dict(temperature=1.0), 'model.masker.show needs model.temperature=0'),
        ({}, dict(mask_ratio=0.6, throw_ratio=0.4), 'model.throw_ratio 0.4 and model.mask_ratio 0.6 must leave visible'),
    ],
)
def test_wrong_shares_are_named(tiny_model, own, updates, message):
    with pytest.raises(ValueError, match=message):
        build(tiny_model, own, **updates)
