import argparse
import hashlib
import sys

import pytest
import torch

from mmmlo.utils.checkpoints import CheckpointError, default_labels, file_hash, read_checkpoint


class Code:
    """What a pickle may do that one trusts."""

    def __reduce__(self):
        return print, ('this must not run',)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda w: dict(state_dict=w, meta=dict(iter=3)),
        lambda w: dict(model=w, args=argparse.Namespace(lr=0.1)),  # MAE's training script
        lambda w: dict(model_state_dict=w),
        lambda w: w,
    ],
)
def test_every_usual_layout_is_read(tmp_path, wrap):
    weights = dict(a=torch.arange(3.0), b=torch.eye(2))
    torch.save(wrap(weights), tmp_path / 'w.pth')
    checkpoint = read_checkpoint(str(tmp_path / 'w.pth'))
    assert checkpoint.state_dict.keys() == weights.keys()
    assert all(torch.equal(checkpoint.state_dict[key], weights[key]) for key in weights)
    assert checkpoint.meta == ({'iter': 3} if 'meta' in wrap(weights) else {})


def whole(path):
    torch.save(dict(state_dict=dict(a=torch.zeros(1000))), path)


def torn(path):
    whole(path)
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ('write', 'words'),
    [
        (lambda path: None, 'does not exist'),
        (lambda path: path.mkdir(), 'is a folder'),
        (lambda path: path.write_bytes(b''), 'is no PyTorch checkpoint'),
        (lambda path: path.write_text('hello'), 'is no PyTorch checkpoint'),
        (torn, 'only a part of one'),
        (lambda path: torch.save(dict(state_dict=Code()), path), 'would run code'),
        (lambda path: torch.save(dict(epoch=3), path), 'holds no weights'),
    ],
)
def test_what_is_no_checkpoint_gets_one_error(tmp_path, capsys, write, words):
    path = tmp_path / 'wrong.pth'
    write(path)
    with pytest.raises(CheckpointError, match=words) as error:
        read_checkpoint(str(path))
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert 'must not run' not in capsys.readouterr().out


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    weights = dict(a=torch.arange(3.0), b=torch.eye(2))
    path = str(tmp_path / 'w.safetensors')
    save_file(weights, path, dict(source='w.pth'))
    state, meta = read_checkpoint(path)
    assert state.keys() == weights.keys() and all(torch.equal(state[key], weights[key]) for key in weights)
    assert meta == {'source': 'w.pth'}
    (tmp_path / 'w.safetensors').write_bytes((tmp_path / 'w.safetensors').read_bytes()[:-4])
    with pytest.raises(CheckpointError, match='w.safetensors is no .safetensors file, or only a part of one'):
        read_checkpoint(path)


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    (tmp_path / 'w.safetensors').touch()
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(CheckpointError, match='needs the package safetensors: pip install safetensors'):
        read_checkpoint(str(tmp_path / 'w.safetensors'))


def test_hash_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 5000  # more than a block
    (tmp_path / 'file').write_bytes(content)
    assert file_hash(str(tmp_path / 'file')) == hashlib.sha256(content).hexdigest()


def test_labels_are_what_differs():
    assert default_labels(['a/b/epoch_1.pth', 'a/b/epoch_2.pth']) == ['epoch_1', 'epoch_2']
    assert default_labels(['a/mae/epoch_1.pth', 'a/mlo/epoch_2.pth']) == ['mae/epoch_1', 'mlo/epoch_2']
    assert default_labels(['a/epoch_1.pth']) == ['epoch_1']
