"""The scorer on attention maps, and whose attention it is."""

import pytest
import torch

from mmmlo.utils.errors import MmmloError

MASKER = dict(type='mmmlo.AttentionMapMasker', num_heads=4)
AUTO = dict(type='mmmlo.AutoMAE', downstream=None, masker=MASKER)


def test_scores_are_two_convolutions_on_the_attention_of_the_last_layer(tiny_model, tiny_batch):
    model, images = tiny_model(**AUTO), tiny_batch(0)['inputs']
    masker = model.masker.eval()
    backbone = masker.teacher['backbone']
    tokens, grid = backbone.embed(images)
    x = torch.cat([backbone.cls_token.expand(6, -1, -1), tokens], dim=1)
    x = backbone.layers[1].ln1(backbone.layers[0](x))
    query, key, _ = backbone.layers[1].attn.qkv(x).reshape(6, 17, 3, 4, 12).permute(2, 0, 3, 1, 4)
    attention = (query @ key.transpose(-1, -2) / 12**0.5).softmax(dim=-1)[:, :, 0, 1:]
    torch.testing.assert_close(masker.attention(images), attention)
    first, _, second = masker.scorer
    maps = 16 * attention.reshape(6, 4, 4, 4)
    logits = second(first(maps).relu()).flatten(1)
    scores = (logits - logits.mean(dim=1, keepdim=True)).sigmoid()
    torch.testing.assert_close(model.score(images, tokens, grid), scores)


def test_a_moving_average_follows_and_a_pretrained_encoder_stays(tiny_model, tiny_checkpoint):
    path = tiny_checkpoint('pretrained', seed=4)
    weights = torch.load(path, weights_only=False)['state_dict']
    for checkpoint in (None, path):
        model = tiny_model(**dict(AUTO, masker=dict(MASKER, checkpoint=checkpoint)), dtype=torch.float32)
        own = model.masker.teacher['backbone'].state_dict()
        before = {name: value.clone() for name, value in own.items()}
        assert checkpoint is None or all(torch.equal(value, weights[f'backbone.{name}']) for name, value in own.items())
        with torch.no_grad():
            model.backbone.cls_token.add_(1.0)
        model.masker.move(model, momentum=1.0)
        same = all(torch.equal(value, before[name]) for name, value in own.items())
        assert same == (checkpoint is not None)
        assert not any(parameter.requires_grad for parameter in model.masker.teacher.parameters())


def test_two_levels_on_one_batch_encode_it_once(tiny_model, tiny_batch):
    model, batch = tiny_model(**AUTO), tiny_batch(0)
    model.masker.moves = True
    calls = []
    model.masker.teacher['backbone'].layers[0].register_forward_hook(lambda *_: calls.append(1))
    for level in ('pretrain', 'discriminator', 'pretrain'):
        model.level_loss(level, batch)
    assert len(calls) == 2  # the next cycle's is another one


def test_bad_input(tiny_model, tiny_batch, tmp_path):
    with pytest.raises(ValueError, match=r'model\.masker\.num_heads is 3, but model\.backbone has 4'):
        tiny_model(**dict(AUTO, masker=dict(MASKER, num_heads=3)))
    with pytest.raises(ValueError, match='nothing moves the teacher of model.masker, a AttentionMapMasker'):
        tiny_model(**AUTO).level_loss('pretrain', tiny_batch(0))
    with pytest.raises(MmmloError, match='missing.pth does not exist'):
        tiny_model(**dict(AUTO, masker=dict(MASKER, checkpoint=str(tmp_path / 'missing.pth'))))
