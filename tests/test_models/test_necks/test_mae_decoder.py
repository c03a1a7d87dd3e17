import pytest
import torch
from mmpretrain.models import MAEPretrainDecoder
from mmpretrain.models.utils import resize_pos_embed

from mmmlo.models import GridMAEDecoder
from mmmlo.models.layers import sincos_position_embedding

SIZES = dict(patch_size=4, embed_dim=48, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4, mlp_ratio=2)


def randomize(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return {name: value.clone() for name, value in module.state_dict().items()}


def ours(grid=(4, 4), **kwargs):
    return GridMAEDecoder(grid=grid, **SIZES, **kwargs)


def theirs(num_patches=16):
    return MAEPretrainDecoder(num_patches=num_patches, **SIZES)


def inputs(num_patches=16, visible=4, batch=2):
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(batch, 1 + visible, 48, generator=generator, dtype=torch.float64)
    return latent, torch.rand(batch, num_patches, generator=generator).argsort(1)


def test_equals_mmpretrains_on_squares():
    ours_, theirs_ = ours(), theirs()
    state = randomize(theirs_)
    ours_.load_state_dict(state, strict=True)  # their file has no grid
    assert ours_.grid.tolist() == [4, 4]
    assert ours_.state_dict().keys() - {'grid'} == state.keys()
    latent, ids_restore = inputs()
    expected = theirs_.double()(latent, ids_restore)
    torch.testing.assert_close(ours_.double()(latent, ids_restore), expected, rtol=0, atol=0)


def test_visible_tokens_and_positions_meet_on_any_grid():
    """Without blocks a prediction depends on its own token and position only: the reference is written out."""
    decoder = GridMAEDecoder(grid=(2, 6), **{**SIZES, 'decoder_depth': 0})
    randomize(decoder)
    decoder.init_weights()
    decoder.double()
    latent, ids_restore = inputs(num_patches=12, visible=3)
    actual = decoder(latent, ids_restore)
    position = sincos_position_embedding((2, 6), 32)[0, 1:].double()
    for image, restore in enumerate(ids_restore):
        for patch, place in enumerate(restore.tolist()):
            token = decoder.decoder_embed(latent[image, 1 + place]) if place < 3 else decoder.mask_token[0, 0]
            expected = decoder.decoder_pred(decoder.decoder_norm(token + position[patch]))
            torch.testing.assert_close(actual[image, patch], expected)


def test_init_weights_as_in_mae():
    decoder = ours(grid=(2, 6))
    torch.manual_seed(0)
    decoder.init_weights()
    torch.testing.assert_close(decoder.decoder_pos_embed.detach(), sincos_position_embedding((2, 6), 32))
    assert not decoder.decoder_pos_embed.requires_grad
    assert 0.01 < decoder.mask_token.std() < 0.03


def test_the_grid_is_in_the_checkpoint():
    assert ours(grid=(2, 6)).state_dict()['grid'].tolist() == [2, 6]


# 2 x 8 and 4 x 4 have the same number of patches: only the grid in the checkpoint tells them apart.
@pytest.mark.parametrize(('saved', 'wanted'), [((4, 4), (4, 6)), ((4, 6), (6, 4)), ((4, 4), (2, 8)), ((2, 8), (4, 4))])
def test_a_checkpoint_of_another_grid_is_resized(saved, wanted):
    source, target = ours(grid=saved), ours(grid=wanted)
    state = randomize(source)
    before = {name: value.clone() for name, value in state.items()}
    target.load_state_dict(state, strict=True)
    loaded = target.state_dict()
    assert loaded['grid'].tolist() == list(wanted)
    expected = resize_pos_embed(before['decoder_pos_embed'], saved, wanted)
    torch.testing.assert_close(loaded['decoder_pos_embed'], expected)
    assert not torch.equal(expected[:, 1:3], before['decoder_pos_embed'][:, 1:3])
    assert all(torch.equal(loaded[name], before[name]) for name in before.keys() - {'grid', 'decoder_pos_embed'})
    assert all(torch.equal(state[name], before[name]) for name in before)  # the caller's dict


def test_mmpretrains_file_is_resized_to_another_grid():
    state = randomize(theirs())
    decoder = ours(grid=(4, 6))
    decoder.load_state_dict(state, strict=True)
    assert decoder.grid.tolist() == [4, 6]
    expected = resize_pos_embed(state['decoder_pos_embed'], (4, 4), (4, 6))
    torch.testing.assert_close(decoder.decoder_pos_embed.detach(), expected)


@pytest.mark.parametrize('others', [None, [], [dict(type='Xavier', layer='Linear')]], ids=str)
@pytest.mark.parametrize('with_grid', [True, False])
def test_a_pretrained_file_has_the_last_word(tmp_path, others, with_grid):
    state = randomize(ours() if with_grid else theirs())
    file = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict={f'neck.{name}': value for name, value in state.items()}), file)
    pretrained = dict(type='Pretrained', checkpoint=file, prefix='neck.')

    decoder = ours(init_cfg=pretrained if others is None else [pretrained, *others])
    for _ in range(2):  # whoever calls it once more must not undo the load
        decoder.init_weights()
        loaded = decoder.state_dict()
        assert loaded.pop('grid').tolist() == [4, 4]
        assert loaded.keys() == state.keys() - {'grid'}
        assert [name for name, value in loaded.items() if not torch.equal(value, state[name])] == []


@pytest.mark.parametrize('depth', [0, 1, 2])
def test_masked_patches_alone(depth):
    """What forward has at the masked patches, and the same gradients, in whatever order the visible ones come."""
    decoder = GridMAEDecoder(grid=(2, 6), **{**SIZES, 'decoder_depth': depth}).double()
    randomize(decoder)
    latent, ids_restore = inputs(num_patches=12, visible=3)
    latent.requires_grad_()
    ids = ids_restore.argsort(1)
    ids_keep, ids_masked = ids[:, :3], ids[:, 3:]
    every = decoder(latent, ids_restore)
    expected = every.gather(1, ids_masked.unsqueeze(-1).expand(-1, -1, every.shape[-1]))
    actual = decoder.decode_masked(latent, ids_keep, ids_masked)
    torch.testing.assert_close(actual, expected)
    reached = [latent, *(p for p in decoder.parameters() if p.requires_grad)]
    wanted, got = (torch.autograd.grad(x.square().sum(), reached, allow_unused=True) for x in (expected, actual))
    torch.testing.assert_close([g for g in got if g is not None], [g for g in wanted if g is not None])
