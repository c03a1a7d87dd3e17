"""Losses beside the reconstruction: their values, their gradient over processes, and how the model adds them."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmmlo.models.losses import LogDetLoss, RankingLoss, SupervisedLoss, UniformityLoss
from mmmlo.models.selection import PatchSelection
from mmmlo.utils.errors import DataError, SettingError

HEAD = dict(type='mmmlo.TokenClsHead', num_classes=5, in_channels=48, dropout=0.0)
PREDICTOR = dict(type='mmmlo.GridMAEDecoder', grid=(4, 4), patch_size=4, embed_dim=48, decoder_embed_dim=16, decoder_depth=1,
                 decoder_num_heads=2)


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


def ranking(scores, patch_loss):
    """HPM's loss of given scores of masked patches, B x M."""
    loss = RankingLoss(PREDICTOR)
    loss.predictor.decode_masked = lambda *_: scores[..., None].expand(-1, -1, 3)
    return loss(torch.zeros(len(scores), 1, 48), [], PatchSelection(None, None, None, None), patch_loss)


def test_ranking_compares_the_pairs_of_an_image():
    scores, patch_loss = torch.randn(2, 5, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64)
    patch_loss[0, 3] = patch_loss[0, 1]
    terms = [
        -torch.log(torch.sigmoid(s[j] - s[i] if t[j] > t[i] else s[i] - s[j]))
        for s, t in zip(scores, patch_loss) for i in range(5) for j in range(5) if t[i] != t[j]]
    assert len(terms) == 2 * 20 - 2
    torch.testing.assert_close(ranking(scores, patch_loss), torch.stack(terms).mean())
    torch.testing.assert_close(ranking(scores + 7, patch_loss), ranking(scores, patch_loss))
    assert ranking(10 * patch_loss, patch_loss) < ranking(-10 * patch_loss, patch_loss)
    assert ranking(scores, torch.ones(2, 5, dtype=torch.float64)) == 0  # no valid pair


def test_ranking_gets_the_losses_of_the_masked_patches(tiny_model, tiny_batch):
    extra = dict(ranking=dict(type='mmmlo.RankingLoss', predictor=PREDICTOR))
    model, batch = tiny_model(extra_losses=extra), tiny_batch(0)
    masking = model.fix_level('pretrain', batch)
    _, keep, masked, restore = masking.selection
    latent = model.backbone.encode(model.backbone.embed(batch['inputs'])[0], keep)
    patch_loss = model.head.patch_loss(model.neck(latent, restore), batch['inputs']).gather(1, masked)
    scores = model.extra_losses['ranking'].predictor(latent, restore).mean(dim=-1).gather(1, masked)
    losses = model.level_loss('pretrain', batch, masking)
    torch.testing.assert_close(losses['loss_ranking'], ranking(scores, patch_loss))
    losses['loss_ranking'].backward()
    assert model.backbone.ln1.weight.grad.abs().sum() > 0 and model.neck.decoder_pred.weight.grad is None
    with pytest.raises(SettingError, match=r'extra_losses.ranking.predictor.grid is \(8, 8\), but model.backbone has'):
        tiny_model(extra_losses=dict(ranking=dict(type='mmmlo.RankingLoss', predictor=dict(PREDICTOR, grid=(8, 8)))))


def test_the_masker_s_hypergradient_ignores_them(tiny_model, tiny_wrapper, tiny_batch):
    batches = {level: tiny_batch(seed) for seed, level in enumerate(('pretrain', 'finetune', 'masking'))}
    extra = dict(uniformity=dict(type='mmmlo.UniformityLoss'), log_det=dict(type='mmmlo.LogDetLoss'), **supervised(),
                 ranking=dict(type='mmmlo.RankingLoss', predictor=PREDICTOR))
    model, plain = tiny_model(downstream=dict(dropout=0.0), extra_losses=extra), tiny_model(downstream=dict(dropout=0.0))
    plain.load_state_dict(model.state_dict(), strict=False)
    gradients = [tiny_wrapper(m).hypergradient(m, 'masking', batches['masking'], batches)[0] for m in (model, plain)]
    for with_them, without in zip(*gradients):
        assert without.abs().max() > 0
        torch.testing.assert_close(with_them, without, rtol=1e-8, atol=1e-12)


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
