"""What all maskers promise."""

import pytest
import torch

from mmmlo.models.maskers import ConvMasker, MLPMasker, ViTMasker
from mmmlo.models.maskers.base import to_mask_prob

MASKERS = dict(
    mlp=lambda: MLPMasker(grid=(8, 8), embed_dims=16),
    conv=lambda: ConvMasker(patch_size=2, dims=16),
    vit=lambda: ViTMasker(embed_dims=16, grid=(8, 8), depth=1),
)


@pytest.mark.parametrize('name', MASKERS)
def test_scores_keep_their_precision_under_autocast(name):
    """Scores around 0.5 would be multiples of 1/512 in bfloat16, a third of the patches of an image tied with another."""
    torch.manual_seed(0)
    masker = MASKERS[name]()
    images, tokens = torch.randn(2, 3, 16, 16), torch.randn(2, 64, 16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores = masker(images, tokens, (8, 8))
    assert scores.dtype == torch.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert not torch.equal(scores, scores.bfloat16().float())


def test_large_logits_of_half_precision_are_not_certain():
    assert to_mask_prob(torch.tensor([9.0], dtype=torch.float16)) < 1
    assert to_mask_prob(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
