import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import MAEPretrainHead

from mmmlo.models import MaskedPixelHead

L2 = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2')
L1 = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L1', channel=3)


def problem(height=8, width=12, batch=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    length, pixels = height * width // 16, 16 * channels
    images = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    pred = torch.randn(batch, length, pixels, generator=generator, dtype=torch.float64)
    mask = torch.zeros(batch, length, dtype=torch.float64)
    mask[0, ::2] = mask[1, 1:] = 1  # not the same number in each image
    weight = torch.rand(batch, length, generator=generator, dtype=torch.float64)
    return images, pred, mask, weight


def reference_patches(images, size=4):
    """Patches by torch's own unfold, which puts the channel slowest."""
    batch, channels = images.shape[:2]
    patches = F.unfold(images, size, stride=size).transpose(1, 2)
    return patches.reshape(batch, -1, channels, size * size).transpose(2, 3).flatten(2)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('shape', [(8, 8), (8, 12), (12, 4)])
def test_patches_of_any_grid(shape, channels):
    images = problem(*shape, channels=channels)[0]
    head = MaskedPixelHead(patch_size=4, in_channels=channels)
    patches = head.patchify(images)
    assert torch.equal(patches, reference_patches(images))
    assert torch.equal(head.unpatchify(patches, (shape[0] // 4, shape[1] // 4)), images)


@pytest.mark.parametrize('loss', [L2, L1], ids=['L2', 'L1'])
@pytest.mark.parametrize('norm_pix', [True, False])
def test_equals_mmpretrains_on_squares(norm_pix, loss):
    images, pred, mask, _ = problem(8, 8)
    ours = MaskedPixelHead(loss=loss, norm_pix=norm_pix, patch_size=4)
    theirs = MAEPretrainHead(loss=loss, norm_pix=norm_pix, patch_size=4)
    assert torch.equal(ours.patchify(images), theirs.patchify(images))
    assert torch.equal(ours.unpatchify(pred, (2, 2)), theirs.unpatchify(pred))
    torch.testing.assert_close(ours.loss(pred, images, mask), theirs.loss(pred, images, mask), rtol=1e-12, atol=0)


def test_mean_squared_error_is_the_default():
    images, pred, mask, _ = problem(8, 8)
    expected = MAEPretrainHead(loss=L2, patch_size=4).loss(pred, images, mask)
    torch.testing.assert_close(MaskedPixelHead(patch_size=4).loss(pred, images, mask), expected)


def test_patch_loss_is_the_mean_over_a_patch():
    images, pred, _, _ = problem()
    patches = reference_patches(images)
    actual = MaskedPixelHead(patch_size=4).patch_loss(pred, images)
    torch.testing.assert_close(actual, (pred - patches).square().sum(-1) / 48)

    normalized = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    actual = MaskedPixelHead(patch_size=4, norm_pix=True).patch_loss(pred, images)
    torch.testing.assert_close(actual, (pred - normalized).square().sum(-1) / 48)


def masked_loss(head, pred, images, mask, weight=None):
    """The loss of the patches that a mask of 3 and 5 patches names, image by image: the mean counts all 8 alike."""
    total = 0
    for i, masked in enumerate(mask):
        ids = masked.nonzero().T
        own = None if weight is None else weight[i : i + 1]
        one = head.masked_loss(pred[i : i + 1, ids[0]], images[i : i + 1], ids, own)
        total = total + one * ids.numel()
    return total / mask.sum()


def test_normalized_pixels_ignore_brightness_and_contrast():
    images, pred, mask, _ = problem()
    head = MaskedPixelHead(patch_size=4, norm_pix=True)
    expected = masked_loss(head, pred, images, mask)
    torch.testing.assert_close(masked_loss(head, pred, 30 * images + 7, mask), expected, rtol=1e-5, atol=0)


def test_the_denominator_counts_masked_patches_and_no_weights():
    images, pred, mask, weight = problem()
    head = MaskedPixelHead(patch_size=4)
    patch_loss = head.patch_loss(pred, images)
    total = sum(weight[i, j] * patch_loss[i, j] for i in range(2) for j in range(mask.shape[1]) if mask[i, j])
    torch.testing.assert_close(masked_loss(head, pred, images, mask, weight), total / (3 + 5))
    # Were the weights in the denominator, a common factor would cancel.
    plain = masked_loss(head, pred, images, mask)
    torch.testing.assert_close(masked_loss(head, pred, images, mask, torch.full_like(mask, 0.25)), 0.25 * plain)
    torch.testing.assert_close(masked_loss(head, pred, images, mask, torch.ones_like(mask)), plain)


def test_weights_of_visible_patches_do_not_count():
    images, pred, mask, weight = problem()
    weight.requires_grad_()
    masked_loss(MaskedPixelHead(patch_size=4), pred, images, mask, weight).backward()
    assert torch.equal(weight.grad != 0, mask != 0)


def test_low_precision_predictions_are_compared_in_the_images_precision():
    images, pred, _, _ = problem()
    images, low = images.float(), pred.bfloat16()
    head = MaskedPixelHead(patch_size=4)
    assert head.patch_loss(low, images).dtype == torch.float32
    assert torch.equal(head.patch_loss(low, images), head.patch_loss(low.float(), images))


@pytest.mark.parametrize('norm_pix', [False, True])
def test_masked_patches_alone(norm_pix):
    """The same loss from predictions of the masked patches, in any order."""
    images, pred, _, weight = problem()
    ids = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)).argsort(1)[:, :5]
    some = pred.gather(1, ids.unsqueeze(-1).expand(-1, -1, pred.shape[-1]))
    head = MaskedPixelHead(patch_size=4, norm_pix=norm_pix)
    expected = head.patch_loss(pred, images).gather(1, ids)
    torch.testing.assert_close(head.masked_loss(some, images, ids, weight), (expected * weight.gather(1, ids)).mean())
    torch.testing.assert_close(head.masked_loss(some, images, ids), expected.mean())
