import pytest
import torch
from mmengine.config import Config

from mmmlo.evaluation.encoder import load_encoder
from mmmlo.utils.checkpoints import CheckpointError, file_hash, read_checkpoint
from mmmlo.utils.key_report import KeyMismatchError

FOLDER = dict(type='CustomDataset', pipeline=[dict(type='mmmlo.LoadImage'), dict(type='PackInputs')])


def test_features_are_those_of_the_pretrained_model(tiny_checkpoint, tiny_model):
    path = tiny_checkpoint('mlo')
    encoder = load_encoder(path)
    assert (encoder.method, encoder.iteration, encoder.image_size) == ('MLOMAE', 7, (16, 16))
    assert encoder.sha256 == file_hash(path)
    assert encoder.report.counts()['matched'] == len(encoder.model.backbone.state_dict())
    model = tiny_model(seed=5, dtype=torch.float32)
    model.load_state_dict(read_checkpoint(path).state_dict)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder.model.eval().extract_feat(images)[-1], model.eval().extract_feat(images)[-1])


@pytest.mark.parametrize(
    ('dataset', 'to_rgb', 'rgb'),
    [(None, False, True), (None, True, False), (FOLDER, True, True), (FOLDER, False, False)],
)
def test_the_order_of_channels_follows_the_images_that_it_saw(tiny_checkpoint, dataset, to_rgb, rgb):
    encoder = load_encoder(tiny_checkpoint('order', dataset=dataset, data_preprocessor=dict(to_rgb=to_rgb)))
    assert encoder.rgb is rgb
    assert encoder.preprocessor_for(bgr=True)['to_rgb'] is rgb
    assert encoder.preprocessor_for(bgr=False)['to_rgb'] is not rgb


def test_one_config_may_serve_several_methods(tiny_checkpoint, tmp_path):
    path = tiny_checkpoint('mlo')
    cfg = Config(dict(default_scope='mmpretrain', model=dict(type='mmmlo.MAE', backbone=dict(
        type='mmmlo.MaskedViT', arch=dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96),
        img_size=16, patch_size=4))))
    encoder = load_encoder(path, cfg)
    assert encoder.method == 'MLOMAE'
    state = read_checkpoint(path).state_dict
    bare = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    torch.save(bare, tmp_path / 'bare.pth')
    assert load_encoder(str(tmp_path / 'bare.pth'), cfg).method == 'MAE'

    cfg.model.backbone.arch.num_layers = 3
    with pytest.raises(KeyMismatchError, match='lacks 12 of the keys'):
        load_encoder(path, cfg)
    cfg.model.backbone.type = 'mmmlo.Absent'
    with pytest.raises(CheckpointError, match='the encoder of the config cannot be built'):
        load_encoder(path, cfg)
    with pytest.raises(CheckpointError, match='bare.pth holds no config'):
        load_encoder(str(tmp_path / 'bare.pth'))
    with pytest.raises(CheckpointError, match='has no model.backbone'):
        load_encoder(path, Config(dict(model=dict(type='mmmlo.MAE'))))
