import argparse
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import mmengine.runner.checkpoint as theirs
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from mmmlo.utils.checkpoints import (
    CheckpointError,
    file_hash,
    read_checkpoint,
    read_content,
    trust_checkpoints,
    use_safe_loaders,
)
from mmmlo.utils.text import default_labels


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
    state, meta, *_ = read_checkpoint(path)
    assert state.keys() == weights.keys() and all(torch.equal(state[key], weights[key]) for key in weights)
    assert meta == {'source': 'w.pth'}
    (tmp_path / 'w.safetensors').write_bytes((tmp_path / 'w.safetensors').read_bytes()[:-4])
    with pytest.raises(CheckpointError, match='w.safetensors is no .safetensors file, or only a part of one'):
        read_checkpoint(path)


def test_hash_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 5000  # more than a block
    (tmp_path / 'file').write_bytes(content)
    assert file_hash(str(tmp_path / 'file')) == hashlib.sha256(content).hexdigest()


def test_labels_are_what_differs():
    assert default_labels(['a/b/epoch_1.pth', 'a/b/epoch_2.pth']) == ['epoch_1', 'epoch_2']
    assert default_labels(['a/mae/epoch_1.pth', 'a/mlo/epoch_2.pth']) == ['mae/epoch_1', 'mlo/epoch_2']
    assert default_labels(['a/epoch_1.pth']) == ['epoch_1']


class Reach:
    """A way from the one class with code that a checkpoint of mmengine may name to all modules."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.__init__, '__globals__')


def test_the_history_of_a_log_is_read_and_nothing_else_through_it(tmp_path):
    hub = MessageHub('history')
    hub.update_scalar('loss', 2.0)
    path = str(tmp_path / 'w.pth')
    torch.save(dict(message_hub=hub.state_dict()), path)
    read = read_content(path)['message_hub']['log_scalars']['loss']
    assert read.current() == 2.0 and read.statistics('mean', 1) == 2.0
    torch.save(dict(state_dict=Reach()), path)
    # Their own list lets it through: to all that the module imports.
    with torch.serialization.safe_globals(theirs.get_torch_safe_globals()):
        assert 'np' in torch.load(path, weights_only=True)['state_dict'], 'the hole is gone: drop the guard'
    with pytest.raises(CheckpointError, match="would run code .*getattr of 'HistoryBuffer'"):
        read_content(path)


@pytest.fixture
def code(tmp_path):
    torch.save(dict(state_dict=Code()), tmp_path / 'code.pth')
    return str(tmp_path / 'code.pth')


@pytest.fixture
def trusted():
    trust_checkpoints()
    yield
    trust_checkpoints(False)


def test_a_trusted_file_is_read_whatever_it_holds(code, trusted, capsys, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmmlo.utils.checkpoints.print_log', lambda text, *_: said.append(text))
    assert read_content(code) == {'state_dict': None}
    assert 'this must not run' in capsys.readouterr().out
    assert len(said) == 1 and said[0].startswith(f'{code} holds more than weights and plain values')
    (tmp_path / 'no.pth').write_text('hello')
    with pytest.raises(CheckpointError, match='is no PyTorch checkpoint'):
        read_content(str(tmp_path / 'no.pth'))


def test_mmengine_reads_as_we_do(code, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    for loader, prefix in ((theirs.load_from_local, ''), (theirs.load_from_http, 'http://')):
        CheckpointLoader.register_scheme(prefix, loader, force=True)
    CheckpointLoader.load_checkpoint(code)
    assert 'this must not run' in capsys.readouterr().out, 'the fault is gone: drop the fix'
    use_safe_loaders()
    with pytest.raises(CheckpointError, match='would run code'):
        CheckpointLoader.load_checkpoint(code)
    torch.save(dict(state_dict=dict(a=torch.ones(2))), tmp_path / 'right.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'right.pth'))['state_dict']['a'].tolist() == [1, 1]
    for address in ('pavi://m', 'mmcls://m', 's3://a/m.pth', 'open-mmlab://m'):
        for read in (CheckpointLoader.load_checkpoint, read_content):
            with pytest.raises(CheckpointError, match=f'{address}: this scheme is not supported; download the file'):
                read(address)
    assert 'must not run' not in capsys.readouterr().out


def test_importing_the_library_leaves_mmengine_s_loaders_alone():
    code = (
        'import mmengine.runner.checkpoint as theirs; before = dict(theirs.CheckpointLoader._schemes); '
        'import mmmlo.models, mmmlo.engine, mmmlo.converters, mmmlo.launch.config, mmmlo.evaluation.encoder; '
        'assert theirs.CheckpointLoader._schemes == before; '
        'mmmlo.launch.config.load_config("configs/_base_/default_runtime.py"); '
        'assert theirs.CheckpointLoader._schemes != before'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=Path(__file__).resolve().parents[2], check=True)


def test_a_download_is_read_in_the_same_way(code, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    torch.save(dict(state_dict=dict(a=torch.ones(2))), tmp_path / 'right.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        assert read_checkpoint(f'{address}/right.pth').state_dict['a'].tolist() == [1, 1]
        with pytest.raises(CheckpointError, match=f'{address}/code.pth holds more than weights'):
            read_content(f'{address}/code.pth')
        with pytest.raises(CheckpointError, match='absent.pth cannot be downloaded: HTTPError'):
            read_content(f'{address}/absent.pth')
        server.shutdown()
    assert 'must not run' not in capsys.readouterr().out
