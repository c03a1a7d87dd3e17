"""Encoders as people have them: containers, prefixes and names of other projects, written down from their files."""

import json
import re

import pytest
import torch

from mmmlo.converters import convert
from mmmlo.utils.checkpoints import CheckpointError, file_hash


@pytest.fixture
def timm_state(timm_vit):
    return timm_vit().state_dict()


@pytest.fixture
def ours(timm_state, save):
    """Our names for the same weights."""
    return convert([save('plain.pth', timm_state)], 'mmmlo').state


def prefixed(state, *prefixes):
    return {f'{prefix}{key}': value for prefix in prefixes for key, value in state.items()}


def other(state):
    return {key: value + 1 for key, value in state.items()}


def projector(prefix='head.'):
    return {f'{prefix}mlp.0.weight': torch.ones(4, 128), f'{prefix}last_layer.weight_g': torch.ones(4, 1)}


def split_qkv(state):
    """The names of transformers' ViT."""
    names = {
        'norm1': 'layernorm_before', 'norm2': 'layernorm_after', 'mlp.fc1': 'intermediate.dense', 'mlp.fc2': 'output.dense',
        'attn.proj': 'attention.output.dense',
    }
    found = {}
    for key, value in state.items():
        key = re.sub(r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection', key)
        key = {'cls_token': 'embeddings.cls_token', 'pos_embed': 'embeddings.position_embeddings'}.get(key, key)
        key = re.sub(r'^norm\.', 'layernorm.', key)
        if match := re.match(r'blocks\.(\d+)\.attn\.qkv\.(\w+)', key):
            for name, part in zip(('query', 'key', 'value'), value.chunk(3)):
                found[f'encoder.layer.{match[1]}.attention.attention.{name}.{match[2]}'] = part.contiguous()
        elif match := re.match(r'blocks\.(\d+)\.(.+)\.(\w+)$', key):
            found[f'encoder.layer.{match[1]}.{names[match[2]]}.{match[3]}'] = value
        else:
            found[key] = value
    return dict(sorted(found.items()))  # as safetensors has them: key, query, value


def dinov2_of_transformers(state):
    names = {'layernorm_before': 'norm1', 'layernorm_after': 'norm2', '.intermediate.dense': '.mlp.fc1'}
    found = {}
    for key, value in split_qkv({k: v for k, v in state.items() if '.ls' not in k}).items():
        for old, new in names.items():
            key = key.replace(old, new)
        found[re.sub(r'(?<=\d)\.output\.dense', '.mlp.fc2', key)] = value
    for key, value in state.items():
        if match := re.match(r'blocks\.(\d+)\.ls(\d)\.gamma', key):
            found[f'encoder.layer.{match[1]}.layer_scale{match[2]}.lambda1'] = value
    return {**found, 'embeddings.mask_token': torch.ones(1, 128)}


def torchvision_names(state):
    names = [
        (r'^cls_token', 'class_token'), (r'^pos_embed', 'encoder.pos_embedding'), (r'^patch_embed\.proj', 'conv_proj'),
        (r'^norm\.', 'encoder.ln.'), (r'^blocks\.', 'encoder.layers.encoder_layer_'), (r'\.norm(\d)', r'.ln_\1'),
        (r'attn\.qkv\.', 'self_attention.in_proj_'), (r'attn\.proj', 'self_attention.out_proj'), ('fc1', '0'), ('fc2', '3'),
    ]
    found = {}
    for key, value in state.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


@pytest.mark.parametrize('wrap', [
    pytest.param(lambda s: dict(model=s, optimizer=dict(state={0: dict(exp_avg=torch.ones(2))}), epoch=3), id='mae'),
    pytest.param(lambda s: dict(state_dict=prefixed(s, 'module.')), id='ddp'),
    pytest.param(lambda s: dict(model=prefixed(s, '_orig_mod.module.')), id='compiled'),
    pytest.param(lambda s: dict(module=prefixed(s, 'backbone.'), dp_world_size=1), id='deepspeed'),
    pytest.param(lambda s: dict(state_dict={**prefixed(s, 'model.encoder.'), 'loss.center': torch.ones(2)}), id='lightning'),
    pytest.param(lambda s: dict(teacher={**prefixed(s, 'module.backbone.'), **projector('module.head.')}), id='dino'),
    pytest.param(lambda s: dict(student=None, teacher={**s, **projector()}), id='dino-heads-beside-bare-names'),
    pytest.param(lambda s: dict(model=dict(backbone=s, head=dict(weight=torch.ones(2)))), id='a-dict-per-module'),
    pytest.param(lambda s: prefixed(s, 'backbone._orig_mod.'), id='compiled-inside'),
    pytest.param(lambda s: dict(model_ema=s), id='average-alone'),
    pytest.param(lambda s: dict(state_dict={
        **prefixed(s, 'module.base_encoder.'), **projector('module.base_encoder.head.'),
        **prefixed(other(s), 'module.momentum_encoder.'), 'module.predictor.0.weight': torch.ones(2, 2),
    }), id='moco-v3'),
    pytest.param(lambda s: {**s, 'mask_token': torch.ones(1, 128)}, id='dinov2'),
    pytest.param(lambda s: dict(teacher={
        **{re.sub(r'^blocks\.', 'backbone.blocks.0.', key) if 'blocks' in key else f'backbone.{key}': value
           for key, value in s.items()}, **projector('dino_head.'), **projector('ibot_head.'),
    }), id='dinov2-chunks'),
    pytest.param(split_qkv, id='transformers'),
    pytest.param(lambda s: {**prefixed(split_qkv(s), 'vit.'), 'vit.pooler.dense.weight': torch.ones(2)}, id='pooler'),
    pytest.param(torchvision_names, id='torchvision'),
])
def test_encoders_are_found_in_every_container(timm_state, ours, same, save, wrap):
    result = convert([save('theirs.pth', wrap(timm_state))], 'mmmlo')
    assert same(result.state, ours)


def test_layer_scales_of_dinov2(timm_vit, save, same):
    state = timm_vit(init_values=0.5).state_dict()
    expected = convert([save('plain.pth', state)], 'mmmlo').state
    assert 'backbone.layers.0.attn.gamma1.weight' in expected
    theirs = save('theirs.pth', dinov2_of_transformers(state))
    assert same(convert([theirs], 'mmmlo').state, expected)


def test_heads_and_decoder_of_transformers(tiny_checkpoint, timm_vit, save, same):
    mae = convert([tiny_checkpoint('mae')], 'mae').state
    encoder = {key: value for key, value in mae.items() if 'decoder' not in key and key != 'mask_token'}
    theirs = prefixed(split_qkv(encoder), 'vit.')
    blocks = {key[8:]: value for key, value in mae.items() if key.startswith('decoder_blocks')}
    theirs |= {
        f'decoder.decoder_layers.{key.removeprefix("encoder.layer.")}': value for key, value in split_qkv(blocks).items()
    }
    theirs |= {f'decoder.{key}': value for key, value in mae.items() if 'decoder' in key[:8] and 'blocks' not in key}
    theirs['decoder.mask_token'] = mae['mask_token']
    expected = convert([save('mae.pth', dict(model=mae))], 'mmmlo').state
    result = convert([save('hf.pth', theirs)], 'mmmlo')
    assert result.source.name == 'huggingface' and result.state.keys() == expected.keys()
    assert same(result.state, expected)

    state = timm_vit(num_classes=5).state_dict()
    theirs = prefixed(split_qkv({key: value for key, value in state.items() if 'head' not in key}), 'vit.')
    theirs |= {f'classifier.{p}': state[f'head.{p}'] for p in ('weight', 'bias')}
    assert torch.equal(convert([save('hf.pth', theirs)], 'mmmlo').state['head.fc.weight'], state['head.weight'])


@pytest.mark.parametrize('ending', ['safetensors', 'bin'])
def test_files_in_several_parts(timm_state, ours, same, tmp_path, ending):
    from safetensors.torch import save_file

    parts = [dict(list(timm_state.items())[i::2]) for i in (0, 1)]
    index = {}
    for i, part in enumerate(parts):
        name = f'model-{i + 1:05}-of-00002.{ending}'
        (save_file if ending == 'safetensors' else torch.save)(part, str(tmp_path / name))
        index |= dict.fromkeys(part, name)
    path = tmp_path / f'model.{ending}.index.json'
    path.write_text(json.dumps(dict(metadata={}, weight_map=index)))
    assert same(convert([str(path)], 'mmmlo').state, ours)
    with pytest.raises(CheckpointError, match=rf'is a folder; name a file in it: .*model.{ending}.index.json'):
        convert([str(tmp_path)], 'mmmlo')
    with pytest.raises(CheckpointError, match='is one part of several'):
        convert([str(tmp_path / f'model-00001-of-00002.{ending}')], 'mmmlo')
    before = file_hash(str(path))
    (tmp_path / f'model-00002-of-00002.{ending}').write_bytes(b'another file')
    assert file_hash(str(path)) != before
    (tmp_path / f'model-00002-of-00002.{ending}').unlink()
    with pytest.raises(CheckpointError, match='model-00002-of-00002.* does not exist'):
        convert([str(path)], 'mmmlo')


@pytest.mark.parametrize(('wrap', 'keys'), [
    (lambda s: dict(student=prefixed(s, 'module.backbone.'), teacher=prefixed(other(s), 'backbone.')),
     ('student', 'teacher')),
    (lambda s: dict(model=s, model_ema=other(s)), ('model', 'model_ema')),
    (lambda s: dict(state_dict=s, state_dict_ema=other(s), arch='vit'), ('state_dict', 'state_dict_ema')),
    (lambda s: dict(state_dict={**prefixed(s, 'student_backbone.vit.'), **prefixed(other(s), 'teacher_backbone.vit.')}),
     ('student_backbone', 'teacher_backbone')),
    (lambda s: dict(model={**prefixed(s, 'student.backbone.'), **prefixed(other(s), 'teacher.backbone.')}),
     ('student', 'teacher')),
])
def test_of_several_one_is_chosen(timm_state, ours, same, save, wrap, keys):
    path = save('several.pth', wrap(timm_state))
    with pytest.raises(CheckpointError, match=rf'holds 2 encoders: .*{keys[0]}.*{keys[1]}.* Choose one by --key: .*several'):
        convert([path], 'mmmlo')
    assert same(convert([path], 'mmmlo', key=keys[0]).state, ours)
    assert same(convert([path], 'mmmlo', key=keys[1]).state, other(ours))
    with pytest.raises(CheckpointError, match="has no encoder 'generator'; it has "):
        convert([path], 'mmmlo', key='generator')


@pytest.mark.parametrize(('more', 'words'), [
    ({'blocks.0.attn.relative_position_bias_table': 0, 'blocks.0.gamma_1': 0}, 'relative positions, as BEiT'),
    ({'rel_pos_bias.relative_position_bias_table': 0}, 'rel_pos_bias.* shows relative positions, as BEiT'),
    ({'blocks.0.attn.rel_pos_h': 0}, 'relative positions, as BEiT, Swin and SAM'),
    ({'blocks.0.attn.q_bias': 0}, 'as BEiT'),
    ({'register_tokens': 0}, 'register tokens, as DINOv2 with registers'),
    ({'reg_token': 0}, 'register tokens'),
    ({'storage_tokens': 0, 'rope_embed.periods': 0}, 'register tokens, as DINOv2 with registers and DINOv3'),
    ({'dist_token': 0}, "a distillation token, as DeiT's"),
    ({'blocks.0.mlp.w12.weight': 0}, 'gated hidden layers'),
    ({'norm_pre.weight': 0}, 'a norm before its blocks, as CLIP'),
])
def test_what_no_plain_transformer_has_is_named(timm_state, save, more, words):
    path = save('theirs.pth', {**timm_state, **dict.fromkeys(more, torch.ones(2))})
    with pytest.raises(CheckpointError, match=rf'no plain vision transformer.*{words}') as error:
        convert([path], 'mmmlo')
    assert '\n' not in str(error.value)


def test_clip_is_named(save):
    path = save('clip.pth', {'visual.conv1.weight': torch.ones(2), 'visual.class_embedding': torch.ones(2)})
    with pytest.raises(CheckpointError, match='format of .* is unknown: .*visual.conv1.weight shows .*as CLIP'):
        convert([path], 'mmmlo')


@pytest.mark.parametrize('average', [
    lambda s: dict(ema_state_dict={f'module.{key}': value + 1 for key, value in s.items()}),  # mmengine's EMAHook
    lambda s: dict(state_dict={**s, **{f'momentum_encoder.module.0.{key[9:]}': value + 1 for key, value in s.items()}}),
])
def test_an_average_beside_the_encoder_of_openmmlab_by_its_key(ours, same, save, average):
    path = save('ours.pth', dict(dict(state_dict=ours, meta={}), **average(ours)))
    assert same(convert([path], 'mmmlo').state, ours)
    key = 'ema_state_dict' if 'ema_state_dict' in average(ours) else 'momentum_encoder'
    assert same(convert([path], 'mmmlo', key=key).state, other(ours))


def test_a_model_of_several_encoders_is_loaded_as_it_is(ours, save, monkeypatch):
    from mmengine.runner.checkpoint import CheckpointLoader

    from mmmlo.utils.checkpoints import read_checkpoint, use_safe_loaders

    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    use_safe_loaders()
    state = prefixed(ours, 'teacher.', 'student.')
    path = save('semi.pth', dict(state_dict=state, meta={}))
    assert CheckpointLoader.load_checkpoint(path)['state_dict'].keys() == state.keys()
    with pytest.raises(CheckpointError, match='holds 2 encoders: teacher.backbone, student.backbone'):
        _ = read_checkpoint(path).encoder
