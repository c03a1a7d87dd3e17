import torch

from mmmlo.models import RandomMasker


def test_scores_are_uniform_and_have_no_weight():
    torch.manual_seed(0)
    masker = RandomMasker()
    tokens = torch.zeros(100, 100, 8)
    scores = masker(None, tokens, (10, 10))
    assert scores.shape == (100, 100)
    assert not masker.weighted and not list(masker.parameters())
    counts = torch.histc(scores, bins=10, min=0, max=1)
    assert (counts - 1000).abs().max() < 130  # 4.3 standard deviations
    assert not torch.equal(masker(None, tokens, (10, 10)), scores)


def test_draws_what_maes_masking_draws():
    torch.manual_seed(3)
    scores = RandomMasker()(None, torch.zeros(2, 16, 8), (4, 4))
    torch.manual_seed(3)
    assert torch.equal(scores, torch.rand(2, 16))
