"""The masker learns by its own loss; labels reach the encoder as weights alone."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

HEAD = dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=8)
GUIDED = dict(
    type='mmmlo.GuidedMAE', downstream=None, guided_share=0.0, weighting=dict(type='mmmlo.TopWeights', share=0.25),
    masker=dict(type='mmmlo.AttentionMasker', patch_size=4, dims=8, head=HEAD))


def test_each_level_moves_its_own_modules_alone(tiny_model, tiny_batch):
    model = tiny_model(**GUIDED)
    levels = {level: dict(optimizer=dict(type='SGD', lr=0.1)) for level in ('pretrain', 'masking')}
    wrapper = build_optim_wrapper(model, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))
    before = {name: value.clone() for name, value in model.named_parameters()}
    pretrain = torch.autograd.grad(
        model.level_loss('pretrain', tiny_batch(0))['loss'], list(model.masker.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in pretrain)
    masking = model.level_loss('masking', tiny_batch(1))['loss']
    expected = dict(zip((name for name, _ in model.masker.named_parameters()),
                        torch.autograd.grad(masking, list(model.masker.parameters()))))
    wrapper.update_levels(model, dict(pretrain=[tiny_batch(0)], masking=[tiny_batch(1)]))
    for name, value in model.named_parameters():
        moved = not torch.equal(value, before[name])
        if name.startswith('masker.'):
            torch.testing.assert_close(value, before[name] - 0.1 * expected[name.removeprefix('masker.')])
        else:
            assert moved == value.requires_grad, name


def test_the_loss_weights_random_masks_by_the_best_scores(tiny_model, tiny_batch):
    model, batch = tiny_model(**GUIDED), tiny_batch(0)
    assert (model.fix_level('pretrain', batch).weight == 1).all()  # nothing is learned yet
    model.masker.trust.fill_(0.5)
    torch.manual_seed(3)
    masking = model.fix_level('pretrain', batch)
    loss = model.level_loss('pretrain', batch, masking)['loss']
    latent = model.backbone.encode(model.backbone.embed(batch['inputs'])[0], masking.selection.ids_keep)
    pred = model.neck(latent, masking.selection.ids_restore)
    mask, patch_loss = masking.selection.mask, model.head.patch_loss(pred, batch['inputs'])
    weight = torch.ones_like(mask).scatter(1, masking.mask_prob.topk(4, dim=1).indices, 11.0)
    weight = 0.5 + 0.5 * weight * mask.sum(dim=1, keepdim=True) / (weight * mask).sum(dim=1, keepdim=True)
    expected = ((patch_loss * weight * mask).sum(dim=1) / mask.sum(dim=1)).mean()
    torch.testing.assert_close(loss, expected)


def test_a_masker_without_a_loss_is_refused(tiny_model):
    with pytest.raises(ValueError, match='model.masker is a ConvMasker, which has no loss of its own'):
        tiny_model(**dict(GUIDED, masker=dict(type='mmmlo.ConvMasker', patch_size=4)))


def test_weights_without_scores_or_a_hypergradient_are_refused(tiny_model):
    top = dict(type='mmmlo.TopWeights')
    with pytest.raises(ValueError, match='model.weighting has no scores to weigh by: model.masker is a RandomMasker'):
        tiny_model(type='mmmlo.MAE', masker=None, downstream=None, weighting=top)
    with pytest.raises(ValueError, match='a TopWeights, through which no hypergradient reaches the masker'):
        tiny_model(weighting=top)
