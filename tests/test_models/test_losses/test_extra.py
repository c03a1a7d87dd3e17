"""Losses beside the reconstruction: their values, their gradient over processes, and how the model adds them."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmmlo.models.losses import LogDetLoss, SupervisedLoss, UniformityLoss
from mmmlo.utils.errors import DataError, SettingError

HEAD = dict(type='mmmlo.TokenClsHead', num_classes=5, in_channels=48, dropout=0.0)


def latent_of(tokens):
    """Features whose class tokens are these; the patches' are in no loss."""
    return torch.cat([tokens[:, None], torch.full((len(tokens), 3, tokens.shape[1]), torch.nan)], dim=1)


def test_uniformity_is_the_mean_square_of_cosines():
    tokens = torch.randn(6, 8, dtype=torch.float64)
    z = tokens / tokens.norm(dim=1, keepdim=True)
    loss = UniformityLoss(loss_weight=0.5)
    torch.testing.assert_close(loss(latent_of(tokens), []), 0.5 * (z @ z.T).square().mean())
    scaled = tokens * torch.rand(6, 1, dtype=torch.float64)
    torch.testing.assert_close(loss(latent_of(scaled), []), loss(latent_of(tokens), []))
    assert UniformityLoss(1)(latent_of(torch.ones(4, 8)), []).item() == pytest.approx(1)
    assert UniformityLoss(1)(latent_of(torch.eye(8)[:4]), []).item() == pytest.approx(1 / 4)


def test_log_det_is_that_of_the_gram_matrix():
    tokens = torch.randn(6, 8, dtype=torch.float64)
    z = tokens / tokens.norm(dim=1, keepdim=True)
    gram = torch.eye(6) + 3 / 8 * z @ z.T  # Sylvester: images and channels have the same determinant
    torch.testing.assert_close(LogDetLoss(0.5, mu=3)(latent_of(tokens), []), -0.5 * torch.logdet(gram))
    spread, equal = torch.eye(8)[:4], torch.ones(4, 8)
    assert LogDetLoss()(latent_of(spread), []) < LogDetLoss()(latent_of(equal), []) < 0
    assert LogDetLoss()(latent_of(torch.zeros(4, 8)), []) == 0


@pytest.mark.dist
def test_two_processes_have_the_gradient_of_one(run_in_processes):
    for output in run_in_processes(__file__):
        assert 'check_gradients' in output


def check_gradients(rank):
    """The average of the processes' gradients by shared parameters is the gradient of the whole batch."""
    torch.manual_seed(0)
    inputs, weight = torch.randn(6, 4, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    z = torch.nn.functional.normalize(inputs @ weight, dim=1)
    references = (z @ z.T).square().mean(), -torch.logdet(torch.eye(8) + 2 / 8 * z.T @ z)
    for loss, reference in zip((UniformityLoss(1), LogDetLoss(1, mu=2)), references):
        own = loss(latent_of(inputs[3 * rank : 3 * rank + 3] @ weight), [])
        torch.testing.assert_close(own, reference)
        (gradient,) = torch.autograd.grad(own, weight)
        torch.distributed.all_reduce(gradient)
        (expected,) = torch.autograd.grad(reference, weight, retain_graph=True)
        torch.testing.assert_close(gradient / 2, expected, rtol=1e-10, atol=1e-12)


def supervised(**kwargs):
    return dict(supervised=dict(type='mmmlo.SupervisedLoss', head=HEAD, loss_weight=0.1, **kwargs))


@pytest.mark.parametrize('kind', ['MAE', 'GuidedMAE', 'OracleMAE', 'MLOMAE', 'CLMAE'])
def test_the_pretrain_level_adds_them(tiny_model, tiny_batch, kind):
    attention = dict(type='mmmlo.AttentionMasker', patch_size=4, dims=8,
                     head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=8))
    maskers = dict(MAE=None, OracleMAE=None, GuidedMAE=attention)
    updates = dict(type=f'mmmlo.{kind}')
    if kind != 'MLOMAE':
        updates['downstream'] = None
    if kind in maskers:
        updates['masker'] = maskers[kind]
    extra = dict(supervised(), uniformity=dict(type='mmmlo.UniformityLoss'))
    model, batch = tiny_model(**updates, extra_losses=extra), tiny_batch(0)
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(worth=torch.zeros(16, 16).numpy()))
    plain = tiny_model(**updates)
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(1)
    losses = model.level_loss('pretrain', batch)
    torch.manual_seed(1)
    torch.testing.assert_close(losses['loss_reconstruction'], plain.level_loss('pretrain', batch)['loss'])
    assert losses.keys() == {'loss_reconstruction', 'loss_supervised', 'loss_uniformity'}
    sum(losses.values()).backward()
    head = model.extra_losses['supervised'].head
    assert 'extra_losses' in model.level_modules['pretrain'] and head.fc.weight.grad.abs().sum() > 0


def test_labels_are_those_of_the_visible_patches_or_of_whole_labelled_images(tiny_model, tiny_batch):
    model = tiny_model(type='mmmlo.MAE', masker=None, downstream=None, extra_losses=supervised())
    head, batch, other = model.extra_losses['supervised'].head, tiny_batch(0), tiny_batch(1, size=3)
    masking = model.fix_level('pretrain', batch)
    latent = model.backbone.encode(model.backbone.embed(batch['inputs'])[0], masking.selection.ids_keep)
    visible = model.level_loss('pretrain', batch, masking)['loss_supervised']
    torch.testing.assert_close(visible, 0.1 * head.loss((latent,), batch['data_samples'])['loss'])
    whole = model.level_loss('pretrain', dict(batch, labelled=other), masking)['loss_supervised']
    torch.testing.assert_close(whole, 0.1 * head.loss(model.extract_feat(other['inputs']), other['data_samples'])['loss'])
    hidden = tiny_model(type='mmmlo.MAE', masker=None, downstream=None, extra_losses=supervised(mask_ratio=0.5))
    assert hidden.level_loss('pretrain', dict(batch, labelled=other), masking)['loss_supervised'] != whole


def test_what_cannot_be_is_refused(tiny_model, tiny_batch):
    mae = dict(type='mmmlo.MAE', masker=None, downstream=None)
    with pytest.raises(SettingError, match='loss_weight of a UniformityLoss in model.extra_losses must be positive, got 0'):
        UniformityLoss(0)
    with pytest.raises(DataError, match='needs labels, and the images have none; give train_dataloader labelled images'):
        SupervisedLoss(HEAD)(torch.zeros(2, 5, 48), [DataSample()] * 2)
    wide = dict(supervised=dict(type='mmmlo.SupervisedLoss', head=dict(HEAD, in_channels=64)))
    with pytest.raises(SettingError, match='extra_losses.supervised.head.in_channels is 64, but model.backbone has 48'):
        tiny_model(**mae, extra_losses=wide)
    model = tiny_model(**mae, extra_losses=dict(uniformity=dict(type='mmmlo.UniformityLoss')))
    with pytest.raises(SettingError, match='train_cfg.dataloaders.labelled has images whose labels nothing reads'):
        model.level_loss('pretrain', dict(tiny_batch(0), labelled=tiny_batch(1)))


if __name__ == '__main__':
    from processes import run_checks

    run_checks(globals())
