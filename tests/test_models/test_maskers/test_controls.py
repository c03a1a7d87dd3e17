import pytest
import torch

CONV = dict(type='mmmlo.ConvMasker', patch_size=4, dims=8)
MAE = dict(type='mmmlo.MAE', downstream=None)


def masker(kind, inner=CONV):
    return dict(type=f'mmmlo.{kind}', masker=inner)


def test_a_frozen_masker_scores_as_it_is_and_has_no_level(tiny_model, tiny_batch):
    model, batch = tiny_model(**MAE, masker=masker('FrozenMasker')), tiny_batch(0)
    assert model.masker.patch_size == 4 and model.masker.weighted and not model.masker.masker.layers[0].weight.requires_grad
    scores = model.fix_level('pretrain', batch).mask_prob
    assert torch.equal(scores, model.masker.masker(batch['inputs'], None, (4, 4)))
    assert model(**batch, mode='loss')['loss'].requires_grad  # one loss and one optimizer are enough
    assert 'masking' not in tiny_model(masker=masker('FrozenMasker')).level_modules
    with pytest.raises(ValueError, match='model.masker.patch_size is 8, but model.backbone has 4'):
        tiny_model(**MAE, masker=masker('FrozenMasker', dict(CONV, patch_size=8)))


def test_permuted_masks_are_those_of_other_images(tiny_model, tiny_batch):
    model, batch = tiny_model(masker=masker('PermutedMasker')), tiny_batch(0)
    for _ in range(10):
        scores, own = model.fix_level('pretrain', batch).mask_prob, model.masker.masker(batch['inputs'], None, (4, 4))
        assert all(any(torch.equal(one, other) for other in own) for one in scores)
        assert not any(torch.equal(one, other) for one, other in zip(scores, own))
    assert 'masking' in model.level_modules
    with pytest.raises(ValueError, match='deals scores to other images, and a batch has one'):
        model.fix_level('pretrain', tiny_batch(0, size=1))


def test_the_loss_of_a_guided_masker_is_its_own(tiny_model, tiny_batch):
    head = dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=8)
    inner = dict(type='mmmlo.AttentionMasker', patch_size=4, dims=8, head=head)
    model, batch = tiny_model(type='mmmlo.GuidedMAE', downstream=None, masker=masker('PermutedMasker', inner)), tiny_batch(0)
    expected = model.masker.masker.loss(batch['inputs'], batch['data_samples'])['loss']
    torch.testing.assert_close(model.level_loss('masking', batch)['loss'], expected)
    with pytest.raises(ValueError, match='which has no loss of its own'):
        tiny_model(type='mmmlo.GuidedMAE', downstream=None, masker=masker('PermutedMasker'))


def test_a_position_has_one_score_for_all_images_and_learns_it(tiny_model, tiny_batch, tiny_wrapper):
    model, batch = tiny_model(masker=dict(type='mmmlo.PositionMasker', grid=(4, 4))), tiny_batch(0)
    scores = model.fix_level('pretrain', batch).mask_prob
    assert (scores == scores[0]).all() and scores[0].unique().numel() == 16
    before = model.masker.logits.clone()
    wrapper = tiny_wrapper(model)
    for i in range(2):
        due = wrapper.due()
        wrapper.update_levels(model, {level: [tiny_batch(i)] * count for level, count in due.items()})
    assert not torch.equal(model.masker.logits, before)


def test_a_ratio_is_drawn_for_each_batch(tiny_model, tiny_batch):
    model, batch = tiny_model(**MAE, masker=None, mask_ratio_range=(0.5, 0.9)), tiny_batch(0)
    visible = [model.fix_level('pretrain', batch).selection.ids_keep.shape[1] for _ in range(40)]
    assert set(visible) <= {1, 2, 3, 4, 5, 6, 7, 8} and len(set(visible)) > 4
    for wrong, words in (((0.5, 0.99), 'mask_ratio 0.99 leaves 0 of 16'), ((0.9, 0.5), 'must be two ratios in order')):
        with pytest.raises(ValueError, match=words):
            tiny_model(**MAE, masker=None, mask_ratio_range=wrong)
