import pytest
import torch

from mmmlo.models import ColorMasker
from mmmlo.models.selection import select_patches


def visible(color, batch=300, grid=(14, 14), **kwargs):
    """Visible patches, B x H x W, of deterministic draws."""
    torch.manual_seed(0)
    scores = ColorMasker(color, **kwargs)(None, torch.zeros(batch, grid[0] * grid[1], 8), grid)
    assert ((scores > 0) & (scores < 1)).all() and not torch.equal(scores[0], scores[1])
    mask = select_patches(scores, 0.75).mask
    assert (mask.sum(dim=1) == grid[0] * grid[1] * 3 // 4).all()
    return 1 - mask.unflatten(1, grid)


def together(seen, distance):
    """How often the patch so far to the right of a visible one is visible, over chance."""
    return (seen[:, :, :-distance] * seen[:, :, distance:]).mean() / 0.25**2


def test_colours_cluster_their_visible_patches_as_their_spectra_say():
    seen = {color: visible(color) for color in ('white', 'red', 'blue', 'green', 'purple')}
    near = {color: together(mask, 1).item() for color, mask in seen.items()}
    assert near['white'] == pytest.approx(1, abs=0.03)
    assert near['blue'] < 0.9 and near['red'] > near['green'] > 1.4 and near['purple'] < 0.6
    # Red clusters are larger than green ones, which keep apart; purple lacks what makes them.
    next_but_one = {color: together(mask, 2).item() for color, mask in seen.items()}
    assert next_but_one['green'] < 0.87 and next_but_one['red'] > 1.4 and next_but_one['purple'] > 1.2
    assert torch.stack([mask.mean(dim=(1, 2)) for mask in seen.values()]).std() < 1e-6


def test_every_place_of_any_grid_is_as_often_visible():
    mean = visible('green', batch=4000, grid=(4, 10)).mean(dim=0)
    assert (mean - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 4000) ** 0.5


def test_a_wider_gaussian_has_larger_clusters():
    assert together(visible('red', sigma=2.0), 3) > together(visible('red', sigma=0.5), 3) + 0.3


@pytest.mark.parametrize('wrong', [dict(color='pink'), dict(sigma=0)])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f'model.masker.{next(iter(wrong))} must be'):
        ColorMasker(**wrong)
