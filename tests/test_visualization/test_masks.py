import pytest
import torch
from matplotlib import image

from mmmlo.models.maskers import mask_statistics
from mmmlo.visualization import mask_column, masks, plot_mask_table


@pytest.fixture
def pictures():
    """Forty images as a pipeline returns them: more than a batch."""
    return torch.randint(256, (40, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


PREPROCESSORS = [
    dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], to_rgb=True),
    dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], to_rgb=False),
    dict(type='ImgDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
    dict(),
]


@pytest.mark.parametrize('bgr', [True, False])
@pytest.mark.parametrize('preprocessor', PREPROCESSORS)
def test_a_column_shows_the_colours_of_the_file(tiny_model, pictures, preprocessor, bgr):
    model = tiny_model(dtype=torch.float32, data_preprocessor=preprocessor)
    column = mask_column('a', model, pictures, shown=2, bgr=bgr)
    rgb = (pictures[:2].flip(1) if bgr else pictures[:2]).permute(0, 2, 3, 1) / 255
    torch.testing.assert_close(column.images, rgb, atol=1e-5, rtol=0)
    visible = column.mask.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2) == 0
    torch.testing.assert_close(column.reconstruction[visible], rgb[visible], atol=1e-5, rtol=0)
    assert column.reconstruction.min() >= 0 and column.reconstruction.max() <= 1


@pytest.mark.parametrize('shown', [1, 33, 50])
def test_a_column_measures_all_images(tiny_model, pictures, shown):
    model = tiny_model(dtype=torch.float32, temperature=0.0)
    column = mask_column('a', model, pictures, shown)
    with torch.no_grad():
        images = pictures.float()
        masking = model.draw_masks(images, *model.backbone.embed(images))
    expected = mask_statistics(masking.mask_prob, masking.selection.mask)
    assert column.statistics == pytest.approx(expected, abs=1e-5)
    assert column.measured == 40
    assert len(column.images) == len(column.mask) == len(column.reconstruction) == min(shown, 40)


def test_random_masks_of_a_column_come_from_its_seed(tiny_model, pictures):
    model = tiny_model(dtype=torch.float32, type='mmmlo.MAE', downstream=None, masker=None)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first, same, other = (mask_column('a', model, pictures, 40, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)  # the random state outside is as it was
    assert torch.equal(first.mask, same.mask)
    assert not torch.equal(first.mask, other.mask)
    # A picture with fewer images has the same masks.
    assert torch.equal(mask_column('a', model, pictures, 32).mask, first.mask[:32])


def test_a_table_has_a_row_an_image_and_a_column_a_model(tiny_model, pictures, tmp_path):
    columns = [mask_column('first', tiny_model(dtype=torch.float32), pictures, shown=2)]
    wide = dict(backbone=dict(img_size=(8, 16)), neck=dict(grid=(2, 4)), masker=dict(grid=(2, 4)), mask_ratio=0.5)
    columns.append(mask_column('second', tiny_model(dtype=torch.float32, **wide), pictures[:, :, :8], shown=2))
    plot_mask_table(columns[:1], str(tmp_path / 'one.png'))
    plot_mask_table(columns, str(tmp_path / 'two.png'), names=['a name'], note='Small print, ' * 30)
    plot_mask_table(columns, str(tmp_path / 'same.png'), names=['a name'], note='Small print, ' * 30)
    one, two = (image.imread(tmp_path / name) for name in ('one.png', 'two.png'))
    assert two.shape[1] == pytest.approx(one.shape[1] + 3.2 * masks.PANEL * masks.DPI, abs=1)
    assert (tmp_path / 'two.png').read_bytes() == (tmp_path / 'same.png').read_bytes()


def test_a_heat_map_is_the_colour_map_over_the_image():
    scores = torch.tensor([[[0.0, 1.0]]])
    black, white = torch.zeros(1, 2, 4, 3), torch.ones(1, 2, 4, 3)
    heat, lighter = masks.heat_map(scores, black), masks.heat_map(scores, white)
    low, high = (torch.tensor(masks.colormaps[masks.COLORMAP](end)[:3]) for end in (0.0, 1.0))
    for pixel, colour in ((heat[0, 1, 1], low), (heat[0, 0, 2], high)):
        torch.testing.assert_close(pixel.double(), masks.HEAT * colour.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(lighter - heat, torch.full_like(heat, 1 - masks.HEAT), atol=1e-3, rtol=0)
