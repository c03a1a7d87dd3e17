"""Finding the checkpoint that a run goes on from."""

import os
import shutil

import pytest
import torch
from mmengine.config import Config

from mmmlo.launch.resume import find_resumable, resolve_resume
from mmmlo.utils.checkpoints import CheckpointError, check_checkpoint


@pytest.fixture
def folder(tmp_path):
    """A work dir with checkpoints of iterations 10, 20 and 30, the last one named; their times say nothing."""
    for iteration in (30, 10, 20):
        content = dict(
            meta=dict(iter=iteration),
            state_dict=dict(weight=torch.full((5000,), float(iteration))),
            message_hub={},
            optimizer={},
        )
        torch.save(content, tmp_path / f'iter_{iteration}.pth')
    best = dict(content, meta=dict(iter=40))
    del best['optimizer']
    torch.save(best, tmp_path / 'best_top1_iter_40.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_30.pth'))
    return tmp_path


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """One bit of a weight is another: the file still loads."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([30.0, 30.0]).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def test_the_named_one(folder):
    assert find_resumable(str(folder)) == str(folder / 'iter_30.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_10.pth'))  # the user knows best
    assert find_resumable(str(folder)) == str(folder / 'iter_10.pth')


@pytest.mark.parametrize('damage', [truncate, flip, lambda path: path.write_bytes(b''), lambda path: path.unlink()])
def test_the_newest_whole_one_if_that_is_damaged(folder, damage, monkeypatch):
    said = []
    monkeypatch.setattr('mmmlo.launch.resume.print_log', lambda text, *_: said.append(text))
    damage(folder / 'iter_30.pth')
    assert find_resumable(str(folder)) == str(folder / 'iter_20.pth')
    assert 'iter_30.pth' in said[0] and 'iter_20.pth, the newest checkpoint that is whole' in said[0]


@pytest.mark.parametrize('damage', [lambda path: path.write_text(''), lambda path: path.unlink()])
def test_the_newest_whole_one_if_none_is_named(folder, damage):
    damage(folder / 'last_checkpoint')
    flip(folder / 'iter_30.pth')
    assert find_resumable(str(folder)) == str(folder / 'iter_20.pth')


def test_a_folder_that_has_been_moved(folder, tmp_path_factory):
    there = tmp_path_factory.mktemp('there') / 'run'
    shutil.move(folder, there)
    assert find_resumable(str(there)) == str(there / 'iter_30.pth')


def test_none_yet_and_none_whole(folder, tmp_path_factory):
    assert find_resumable(str(tmp_path_factory.mktemp('empty'))) is None
    for path in folder.glob('iter_*.pth'):
        truncate(path)
    with pytest.raises(CheckpointError, match='(?s)no checkpoint to go on from:.*iter_30.pth.*To begin anew'):
        find_resumable(str(folder))


def test_what_is_wrong_is_said(folder):
    path = folder / 'iter_30.pth'
    flip(path)
    with pytest.raises(CheckpointError, match='iter_30.pth is damaged: the bytes of .*data/0 are not those'):
        check_checkpoint(str(path))
    with pytest.raises(CheckpointError, match="best_top1_iter_40.pth cannot be resumed from: it has no 'optimizer'"):
        resolve_resume(Config(dict(work_dir=str(folder))), str(folder / 'best_top1_iter_40.pth'))


def test_the_config_says_where_from(folder, tmp_path_factory):
    def settled(asked, **cfg):
        cfg = Config(dict(dict(work_dir=str(folder)), **cfg))
        resolve_resume(cfg, asked)
        return cfg.get('resume'), cfg.get('load_from')

    newest = str(folder / 'iter_30.pth')
    assert settled('auto') == settled(None, resume=True, load_from=None) == (True, newest)
    assert settled(str(folder / 'iter_10.pth')) == (True, str(folder / 'iter_10.pth'))
    assert settled(None, load_from='weights.pth') == (None, 'weights.pth')
    # Nothing to resume yet: the run begins as its config says.
    empty = str(tmp_path_factory.mktemp('empty'))
    assert settled('auto', work_dir=empty, load_from='weights.pth') == (False, 'weights.pth')
