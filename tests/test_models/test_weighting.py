import pytest
import torch

from mmmlo.models import ScoreWeights, SoftWeights, TopWeights, UniformWeights


def test_the_best_patches_count_more_and_the_mean_is_one():
    torch.manual_seed(0)
    scores, mask = torch.rand(6, 40), (torch.rand(6, 40) < 0.75).float()
    weights = TopWeights(share=0.25, ratio=5.0)(scores, mask)
    torch.testing.assert_close((weights * mask).sum(dim=1), mask.sum(dim=1))
    for row, own in zip(weights, scores):
        best = own.argsort(descending=True)[:10]
        assert row.unique().numel() == 2 and (row[best] == row.max()).all()
        assert row.max() / row.min() == pytest.approx(5)


def test_a_ratio_of_one_weights_nothing():
    mask = torch.ones(2, 8)
    assert torch.equal(TopWeights(ratio=1.0)(torch.rand(2, 8), mask), mask)


@pytest.mark.parametrize('wrong', [dict(share=0), dict(share=1), dict(ratio=0.5)])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f'model.weighting.{next(iter(wrong))} must be'):
        TopWeights(**wrong)


def test_scores_and_nothing_as_weights():
    torch.manual_seed(0)
    scores, mask = torch.rand(6, 40), (torch.rand(6, 40) < 0.75).float()
    assert ScoreWeights()(scores, mask) is scores
    assert torch.equal(UniformWeights()(scores, mask), torch.ones(6, 40))
    weights = ScoreWeights(normalize=True)(scores, mask)
    torch.testing.assert_close((weights * mask).sum(dim=1), mask.sum(dim=1))
    torch.testing.assert_close(weights / weights[:, :1], scores / scores[:, :1])


@pytest.mark.parametrize('kind', ['MLOMAE', 'CLMAE'])
def test_choice_and_weight_are_two_keys_of_every_algorithm(tiny_model, tiny_batch, kind):
    updates, batch = dict(type=f'mmmlo.{kind}', downstream=None), tiny_batch(0)
    for weighting, expected in ((None, kind == 'MLOMAE'), ('ScoreWeights', True), ('UniformWeights', False)):
        own = {} if weighting is None else dict(weighting=dict(type=f'mmmlo.{weighting}'))
        model = tiny_model(**updates, **own)
        scores, weight, selection, _ = model.fix_level('pretrain', batch)
        weight = torch.ones_like(scores) if weight is None else weight
        assert torch.equal(weight, scores if expected else torch.ones_like(scores))
        assert torch.equal(selection.mask.bool(), scores >= scores.topk(12, dim=1).values[:, -1:])
        model.weight_share = 0.25
        if weighting == 'ScoreWeights':
            torch.testing.assert_close(model.fix_level('pretrain', batch).weight, 0.75 + 0.25 * scores)
    model.weight_share = 1.5
    with pytest.raises(ValueError, match='model.weight_share must be from 0 to 1, got 1.5'):
        model.fix_level('pretrain', batch)


def test_weights_that_pass_no_hypergradient_are_refused(tiny_model):
    tiny_model(weighting=dict(type='mmmlo.ScoreWeights'))
    with pytest.raises(ValueError, match='a UniformWeights, through which no hypergradient reaches the masker'):
        tiny_model(weighting=dict(type='mmmlo.UniformWeights'))


def sample_size(weights, mask):
    return (weights * mask).sum(dim=1) ** 2 / (mask.sum(dim=1) * (weights**2 * mask).sum(dim=1))


def test_soft_weights_follow_the_scores_down_to_the_bound():
    torch.manual_seed(0)
    logits = torch.randn(4, 16) * torch.tensor([[0.0], [0.5], [4.0], [12.0]])
    mask = (torch.rand(4, 16) > 0.3).float()
    weights = SoftWeights(power=1.0, floor=0.1, min_sample_size=0.5)(logits.sigmoid(), mask)
    assert torch.allclose((weights * mask).sum(dim=1), mask.sum(dim=1))
    assert torch.allclose(weights[0], torch.ones(16))
    # Below the bound the weights are those of the formula.
    expected = 0.1 + 0.9 * 16 * logits[1].softmax(dim=0)
    assert torch.allclose(weights[1] / weights[1].sum(), expected / expected.sum(), rtol=1e-4)
    sizes = sample_size(weights, mask)
    assert sizes[1] > 0.5 and torch.allclose(sizes[2:], torch.tensor(0.5), atol=5e-3)
    assert (weights[2].argsort() == logits[2].argsort()).all()


@pytest.mark.parametrize('wrong', [dict(power=-1), dict(floor=1.0), dict(min_sample_size=1.0)])
def test_wrong_soft_weights_are_named(wrong):
    with pytest.raises(ValueError, match=f'model.weighting.{next(iter(wrong))} must'):
        SoftWeights(**wrong)
