import pytest
import torch

from mmmlo.converters import convert, write_file


def test_keys_are_those_of_vitdet(timm_vit, save, tmp_path):
    source = timm_vit().state_dict()
    result = convert([save('timm.pth', source)], 'vitdet')
    # ViTDet has neither a class token nor a final norm, and skips the row of the class token by itself.
    left = {'cls_token', 'norm.weight', 'norm.bias'}
    assert set(result.state) == set(source) - left and set(result.report.dropped) == left
    assert all(torch.equal(result.state[key], source[key]) for key in result.state)
    assert result.state['pos_embed'].shape[1] == 1 + 16
    write_file(str(tmp_path / 'vitdet.pth'), result.state, result.target, result.meta)
    # mmdetection's ViT reads nothing else.
    assert torch.load(tmp_path / 'vitdet.pth', weights_only=True)['model'].keys() == result.state.keys()


def test_it_knows_square_grids_only(timm_vit, save):
    path = save('timm.pth', timm_vit().state_dict())
    assert convert([path], 'vitdet', grid=(8, 8)).state['pos_embed'].shape[1] == 65
    with pytest.raises(ValueError, match='vitdet knows square grids only, not 4 x 8'):
        convert([path], 'vitdet', grid=(4, 8))
    with pytest.raises(ValueError, match='nothing is converted from it'):
        convert([path], 'mmmlo', source_name='vitdet')
