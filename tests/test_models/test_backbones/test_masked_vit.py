import pytest
import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed

from mmmlo.models import MaskedViT
from mmmlo.models.layers import sincos_position_embedding

ARCH = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)


def randomize(module, seed=0):
    """Overwrite every tensor, the fixed ones too, so that nothing is equal by chance."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: 0.2 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone()
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    return state


def build(cls=MaskedViT, img_size=16, **kwargs):
    model = cls(arch=ARCH, img_size=img_size, patch_size=4, **{'out_type': 'raw', **kwargs}).double()
    model.eval()  # returns nothing in mmpretrain
    return model


def images(*size, batch=3):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def pair():
    """Ours and mmpretrain's with the same random weights; ``pair(**kwargs)``."""

    def make(**kwargs):
        ours, theirs = build(**kwargs), build(VisionTransformer, **kwargs)
        randomize(ours)
        missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
        assert not missing and unexpected == ['grid']
        return ours, theirs

    return make


@pytest.mark.parametrize('kwargs', [{}, dict(out_type='avg_featmap'), dict(final_norm=False), dict(img_size=(16, 24))])
def test_parameters_are_named_and_shaped_as_mmpretrains(kwargs):
    ours, theirs = (build(cls, **kwargs).state_dict() for cls in (MaskedViT, VisionTransformer))
    assert ours.pop('grid').tolist() == [4, 6 if 'img_size' in kwargs else 4]
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(out_type='avg_featmap'),
        dict(out_type='featmap', out_indices=[0, 1]),
        dict(img_size=(16, 24)),
        dict(pre_norm=True),
    ],
)
def test_unmasked_forward_equals_mmpretrains(pair, kwargs):
    ours, theirs = pair(**kwargs)
    x = images(16, 24)  # for all but one case not the size that the model is built for
    expected = theirs(x)
    actual = ours(x)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize('size', [(16, 16), (16, 24), (24, 8)])
@pytest.mark.parametrize('kwargs', [{}, dict(final_norm=False), dict(pre_norm=True), dict(img_size=(16, 24))])
def test_encoding_all_patches_equals_the_unmasked_forward(pair, kwargs, size):
    ours, theirs = pair(**kwargs)
    x = images(*size)
    expected = theirs(x)[-1]
    tokens, grid = ours.embed(x)
    assert grid == (size[0] // 4, size[1] // 4)
    torch.testing.assert_close(ours.encode(tokens), expected)
    everything = torch.arange(tokens.shape[1]).expand(len(x), -1)
    torch.testing.assert_close(ours.encode(tokens, everything), expected)


def test_embed_resizes_positions_to_the_images():
    model = build(img_size=(16, 24))
    randomize(model)
    x = images(24, 16)
    tokens, grid = model.embed(x)
    assert (model.grid_size, grid) == ((4, 6), (6, 4))
    position = resize_pos_embed(model.pos_embed, (4, 6), (6, 4), mode='bicubic')[:, 1:]
    torch.testing.assert_close(tokens, model.patch_embed(x)[0] + position)


def test_encode_sees_the_visible_patches_only():
    model = build()
    randomize(model)
    x = images(16, 16)
    ids = torch.tensor([[0, 5, 9, 15], [3, 2, 1, 0], [8, 4, 12, 6]])
    tokens, _ = model.embed(x)
    actual = model.encode(tokens, ids)
    assert actual.shape == (3, 5, 48)
    torch.testing.assert_close(actual, model.encode(torch.stack([tokens[i, ids[i]] for i in range(3)])))

    hidden = tokens.clone()
    hidden[0, 1:5] *= -2
    torch.testing.assert_close(model.encode(hidden, ids), actual, rtol=0, atol=0)
    hidden[0, 5] *= -2
    assert (model.encode(hidden, ids)[0] - actual[0]).abs().min() > 1e-9

    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.encode(tokens, ids[:, order])[:, 1:], actual[:, 1:][:, order])


def test_image_size_must_be_a_multiple_of_the_patch_size():
    with pytest.raises(ValueError, match=r'model\.backbone\.img_size \(16, 18\).*model\.backbone\.patch_size 4'):
        build(img_size=(16, 18))
    with pytest.raises(ValueError, match='16 x 18 pixels are not a multiple of the patch size 4'):
        build().embed(images(16, 18))


def test_position_embedding_is_sincos_and_fixed_by_default():
    model = build(img_size=(8, 24))
    model.init_weights()
    assert not model.pos_embed.requires_grad
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['pos_embed']
    torch.testing.assert_close(model.pos_embed.float(), sincos_position_embedding((2, 6), 48))


def test_position_embedding_can_be_learned():
    model = build(learnable_pos_embed=True)
    model.init_weights()
    torch.testing.assert_close(model.pos_embed.float(), sincos_position_embedding((4, 4), 48))
    model(images(16, 16))[-1].square().sum().backward()
    assert model.pos_embed.grad.abs().min() > 0


def test_freezing_stages_freezes_a_learnable_position_embedding():
    assert not build(learnable_pos_embed=True, frozen_stages=1).pos_embed.requires_grad


def test_init_weights_as_in_mae():
    torch.manual_seed(0)
    model = build()
    model.init_weights()
    assert 0.01 < model.cls_token.std() < 0.03
    bound = (6 / (48 + 3 * 4 * 4)) ** 0.5  # Xavier over a flattened patch
    weight = model.patch_embed.projection.weight
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize('others', [None, [], [dict(type='Xavier', layer='Linear')]], ids=str)
def test_a_pretrained_file_has_the_last_word(tmp_path, others):
    state = randomize(build().float())
    file = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in state.items()}), file)
    pretrained = dict(type='Pretrained', checkpoint=file, prefix='backbone.')

    model = build(init_cfg=pretrained if others is None else [pretrained, *others]).float()
    for _ in range(2):  # whoever calls it once more must not undo the load
        model.init_weights()
        loaded = model.state_dict()
        assert loaded.keys() == state.keys()
        assert [name for name, value in loaded.items() if not torch.equal(value, state[name])] == []


def test_a_pretrained_file_of_another_grid_is_resized(tmp_path):
    state = randomize(build().float())
    file = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in state.items()}), file)
    model = build(img_size=(16, 24), init_cfg=dict(type='Pretrained', checkpoint=file, prefix='backbone.')).float()
    model.init_weights()
    state['pos_embed'] = resize_pos_embed(state['pos_embed'], (4, 4), (4, 6), mode='bicubic')
    state['grid'] = torch.tensor([4, 6])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name])


@pytest.mark.parametrize('outputs', [slice(0, 1), slice(1, None)], ids=str)
def test_encodes_all_and_returns_some(outputs):
    model = build()
    randomize(model)
    tokens, _ = model.embed(images(16, 16))
    ids_keep = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)).argsort(1)[:, :5]
    torch.testing.assert_close(model.encode(tokens, outputs=outputs), model.encode(tokens)[:, outputs])
    torch.testing.assert_close(model.encode(tokens, ids_keep, outputs), model.encode(tokens, ids_keep)[:, outputs])
