"""Heads that are solved: against scikit-learn, and their hypergradient against double backward."""

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from sklearn.linear_model import Ridge

from mmmlo.models import RidgeHead, SoftNeighboursHead


def images(count, width, seed, classes=3):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, 5, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % classes
    tokens[..., 0] += 2 * labels[:, None]
    return (tokens,), [DataSample().set_gt_label(label) for label in labels]


@pytest.mark.parametrize(('count', 'width'), [(24, 6), (8, 20)])
def test_ridge_is_scikit_learns_on_either_side(count, width):
    head = RidgeHead(3, width, penalty=0.7, scale=2.0)
    train, test = images(count, width, 0), images(9, width, 1)
    x, query = (feats[0][:, 1:].mean(dim=1).numpy() for feats in (train[0], test[0]))
    query, x = ((values - x.mean(0)) / x.std(0) for values in (query, x))
    truth = np.arange(9) % 3
    expected = 2.0 * Ridge(alpha=0.7).fit(x, np.eye(3)[np.arange(count) % 3]).predict(query)
    losses = head.loss(*test, solved_on=train)
    log_prob = torch.tensor(expected).log_softmax(dim=1)
    assert losses['loss'].item() == pytest.approx(-log_prob[range(9), truth].mean().item(), rel=1e-5)
    assert losses['accuracy'].item() == pytest.approx(100 * (expected.argmax(1) == truth).mean())


def test_neighbours_vote_by_their_cosine():
    head = SoftNeighboursHead(2, 3, token='cls', temperature=0.5)
    train, test = images(4, 3, 0, classes=2)[0][0], images(2, 3, 1, classes=2)[0][0]
    unit = [torch.nn.functional.normalize(tokens[:, 0], dim=1) for tokens in (train, test)]
    votes = (unit[1] @ unit[0].T / 0.5).exp()
    expected = torch.stack([votes[:, 0::2].sum(1), votes[:, 1::2].sum(1)], dim=1) / votes.sum(1, keepdim=True)
    samples = images(2, 3, 1, classes=2)[1]
    loss = head.loss((test,), samples, solved_on=images(4, 3, 0, classes=2))['loss']
    torch.testing.assert_close(loss, -expected[range(2), [0, 1]].log().mean(), rtol=1e-4, atol=0)


def test_a_bank_adds_the_latest_images_without_a_gradient():
    batches = [images(6, 4, seed) for seed in range(3)]
    test = images(9, 4, 9)

    def joined(*some):
        return (torch.cat([feats[0] for feats, _ in some]),), sum((samples for _, samples in some), [])

    head, plain = RidgeHead(3, 4, bank=8).double(), RidgeHead(3, 4)
    first = [(batches[0][0][0][:2],), batches[0][1][:2]]
    for batch, whole in ((batches[0], batches[0]), (batches[1], joined(*batches[1::-1])),
                         (batches[2], joined(*batches[2:0:-1], first))):
        batch[0][0].requires_grad_()
        loss = head.loss(*test, solved_on=batch)['loss']
        torch.testing.assert_close(loss, plain.loss(*test, solved_on=whole)['loss'])
    assert torch.autograd.grad(loss, [feats[0] for feats, _ in batches], allow_unused=True)[:2] == (None, None)
    assert torch.equal(head.state_dict()['bank_labels'], torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    resumed = RidgeHead(3, 4, bank=8).double()
    resumed.load_state_dict(head.state_dict())
    assert torch.equal(*(each.loss(*test, solved_on=batches[0])['loss'] for each in (head, resumed)))


@pytest.mark.parametrize('kind', ['RidgeHead', 'SoftNeighboursHead'])
def test_the_hypergradient_is_that_of_double_backward(tiny_model, tiny_wrapper, tiny_batch, kind):
    model = tiny_model(downstream=dict(type=f'mmmlo.{kind}', num_classes=5, in_channels=48), normalize_weights=True)
    assert list(model.level_modules) == ['pretrain', 'masking']
    wrapper = tiny_wrapper(model, finetune=None, masking=dict(paths=['pretrain']))
    batches = dict(pretrain=tiny_batch(0), masking=dict(tiny_batch(1), labelled=tiny_batch(2)))
    found = wrapper.hypergradient(model, 'masking', batches['masking'], dict(pretrain=batches['pretrain']))

    encoder = [p for name in ('backbone', 'neck') for p in getattr(model, name).parameters() if p.requires_grad]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        outer = model.level_loss('masking', batches['masking'])['loss']
        vector = torch.autograd.grad(outer, encoder, allow_unused=True)
        inner = model.level_loss('pretrain', batches['pretrain'])['loss']
        lower = torch.autograd.grad(inner, encoder, create_graph=True, allow_unused=True)
        product = sum((g * v).sum() for g, v in zip(lower, vector) if g is not None and v is not None)
        expected = [-g for g in torch.autograd.grad(product, list(model.masker.parameters()))]
    for mine, theirs in zip(found.gradients, expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)
    assert any(g.abs().max() > 0 for g in expected)


def test_what_cannot_be_solved_is_named(tiny_model, tiny_batch):
    with pytest.raises(ValueError, match='model.downstream.penalty must be positive'):
        RidgeHead(3, 6, penalty=0)
    with pytest.raises(ValueError, match='labelled.batch_size is 2, fewer than model.downstream.num_classes, 3'):
        RidgeHead(3, 6).loss(*images(4, 6, 0), solved_on=images(2, 6, 1))
    ridge = dict(type='mmmlo.RidgeHead', num_classes=3, in_channels=48)
    model = tiny_model(downstream=ridge)
    with pytest.raises(ValueError, match='is solved on D_tr in every step; .* train_cfg.dataloaders.labelled'):
        model.level_loss('masking', tiny_batch(0))
    with pytest.raises(ValueError, match='model.bilevel weights the loss of a head that learns'):
        tiny_model(downstream=ridge, bilevel=1.0)
