import torch

from mmmlo.models import ContrastMasker


def test_scores_are_the_variance_over_the_geometric_mean_of_an_image():
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = ContrastMasker(patch_size=4)(images, torch.zeros(2, 6, 1), (2, 3))
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(2, 6, -1)
    variance = patches.var(dim=-1, correction=0)
    expected = variance / variance.log().mean(dim=1, keepdim=True).exp()  # the odds of the scores
    torch.testing.assert_close(scores / (1 - scores), expected)
