import pytest
import torch
from mmpretrain.structures import DataSample

from mmmlo.models import AttentionMasker

HEAD = dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=16)


def build(**updates):
    torch.manual_seed(0)
    return AttentionMasker(**{'patch_size': 4, 'dims': 16, 'head': HEAD, **updates}).double()


@pytest.mark.parametrize('margin, seen_by', [(0, [8]), (2, [1, 2, 3, 7, 8, 9])])
def test_a_score_depends_on_its_own_patch_and_the_margin(margin, seen_by):
    masker = build(margin=margin)
    images = torch.randn(2, 3, 8, 24).double()
    scores = masker(images, None, (2, 6))
    assert scores.shape == (2, 12) and scores.min() > 0 and scores.max() < 1
    images[:, :, 4:8, 8:12] += 1  # row 1, column 2
    assert (masker(images, None, (2, 6)) != scores).any(dim=0).nonzero().flatten().tolist() == seen_by


def test_the_loss_is_that_of_the_attended_mean():
    masker = build()
    images, samples = torch.randn(3, 3, 8, 8).double(), [DataSample().set_gt_label(label) for label in (0, 1, 1)]
    features = masker.blocks(masker.embed(images).flatten(2).transpose(1, 2))  # B x L x C
    assert (masker(images, None, (2, 2)) - 0.5).abs().max() < 0.01  # even at first
    attention = masker(images, None, (2, 2)).logit().softmax(dim=1)
    pooled = torch.stack([weights @ own for weights, own in zip(attention, features)])
    expected = masker.head.loss((masker.norm(pooled),), samples)['loss']
    torch.testing.assert_close(masker.loss(images, samples)['loss'], expected)
    expected.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (masker.attention.weight, masker.embed.weight))


@pytest.mark.parametrize('everywhere', [False, True])
def test_it_learns_which_patches_tell_the_label(everywhere):
    """One patch of each image, or each patch, is of its class's brightness, the others are noise."""
    generator = torch.Generator().manual_seed(0)
    masker = build()
    optimizer = torch.optim.Adam(masker.parameters(), lr=3e-3)
    for _ in range(150):
        labels = torch.randint(2, (32,), generator=generator)
        place = torch.randint(16, (32,), generator=generator)
        images = 0.2 * torch.randn(32, 3, 16, 16, generator=generator, dtype=torch.float64)
        for image, label, index in zip(images, labels.tolist(), place.tolist()):
            row, column = divmod(index, 4)
            if everywhere:
                image += 3 * label - 1.5
            else:
                image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 3 * label - 1.5
        optimizer.zero_grad()
        masker.loss(images, [DataSample().set_gt_label(label) for label in labels.tolist()])['loss'].backward()
        optimizer.step()
    if everywhere:  # where one looks does not matter, and the masker says so
        assert masker.trust < 0.3
        return
    assert masker.trust > 0.6
    best = masker(images, None, (4, 4)).argmax(dim=1)
    assert (best == place).float().mean() > 0.9
    trust = masker.trust.clone()
    masker.eval().loss(images, [DataSample().set_gt_label(label) for label in labels.tolist()])
    assert masker.trust == trust  # looking changes nothing


def test_a_head_of_another_width_is_refused():
    with pytest.raises(ValueError, match='model.masker.head.in_channels is 16, but model.masker.dims is 8'):
        build(dims=8)
