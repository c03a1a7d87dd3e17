import pytest
import torch

from mmmlo.models import TopWeights


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
