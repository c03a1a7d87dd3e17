"""Checkpoints that are whole or not there, written by real Runners."""

import copy
import os
import os.path as osp

import pytest
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmlo.engine.hooks import SafeCheckpointHook, safe_checkpoint_hook
from mmmlo.launch.config import load_config
from mmmlo.launch.resume import find_resumable
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import check_checkpoint

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
SYNTHETIC = dict(type='mmmlo.SyntheticImages', per_class=4, size=16, pipeline=[dict(type='PackInputs')])


@pytest.fixture(scope='module')
def base_cfg():
    """Five epochs of two iterations."""
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_dataloader.dataset = SYNTHETIC
    cfg.log_level, cfg.custom_hooks = 'ERROR', []
    cfg.train_dataloader.num_batch_per_epoch = 2
    cfg.train_cfg.update(max_epochs=5, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='mmmlo.SafeCheckpointHook', interval=1, max_keep_ckpts=2)
    return cfg


class Watch(Hook):
    """Calls a function after each epoch, last of all hooks."""

    priority = 100

    def __init__(self, call):
        self.call = call

    def after_train_epoch(self, runner):
        self.call(runner)


@pytest.fixture
def make(base_cfg, tmp_path):
    """``make(name='run', scores=None, after_epoch=None, resume=False, **checkpoint)``: a Runner that has trained."""

    def build(name='run', scores=None, after_epoch=None, resume=False, max_epochs=5, **checkpoint):
        cfg = copy.deepcopy(base_cfg)
        cfg.work_dir, cfg.experiment_name = str(tmp_path / name), f'{tmp_path.name}_{name}_{resume}'
        cfg.train_cfg.max_epochs = max_epochs
        cfg.default_hooks.checkpoint.update(checkpoint)
        cfg.load_from, cfg.resume = (find_resumable(cfg.work_dir), True) if resume else (None, False)
        runner = Runner.from_cfg(Config(cfg.to_dict()))
        if after_epoch:
            runner.register_hook(Watch(after_epoch))
        if scores:
            runner._train_loop = runner.build_train_loop(runner._train_loop)
            runner._train_loop.run_epoch = _validated(runner, runner._train_loop.run_epoch, iter(scores))
        runner.train()
        return runner

    return build


def _validated(runner, run_epoch, scores):
    """An epoch, and what the hook sees of a validation."""

    def run():
        run_epoch()
        saver(runner).after_val_epoch(runner, next(scores))

    return run


def saver(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))


def files(runner):
    return sorted(name for name in os.listdir(runner.work_dir) if '.pth' in name)


def test_the_newest_are_kept_and_the_last_is_named(make):
    seen = []
    runner = make(after_epoch=lambda runner: seen.append(files(runner)))
    assert seen == [[f'epoch_{i}.pth' for i in (n - 1, n) if i] for n in range(1, 6)]
    assert find_resumable(runner.work_dir) == osp.join(runner.work_dir, 'epoch_5.pth')
    content = check_checkpoint(osp.join(runner.work_dir, 'epoch_5.pth'))
    assert (content['meta']['epoch'], content['meta']['iter']) == (5, 10)
    assert content['message_hub']['runtime_info']['last_ckpt'].endswith('epoch_5.pth')


def test_nothing_is_removed_before_the_new_one_is_there_and_named(make, monkeypatch):
    removed = []

    def remove(backend, path):
        folder = osp.dirname(path)
        with open(osp.join(folder, 'last_checkpoint')) as file:
            named = file.read()
        check_checkpoint(named)
        removed.append((osp.basename(path), osp.basename(named)))
        os.remove(path)

    monkeypatch.setattr(LocalBackend, 'remove', remove)
    make()
    assert removed == [(f'epoch_{n}.pth', f'epoch_{n + 2}.pth') for n in (1, 2, 3)]


@pytest.mark.parametrize('failing', ['full disk', 'flush', 'damaged', 'rename', 'last_checkpoint'])
def test_a_file_that_cannot_be_written_costs_none_that_is_there(make, failing, monkeypatch):
    """At the third epoch, once; training goes on, and the next one is saved."""
    said, seen = [], []
    monkeypatch.setattr(safe_checkpoint_hook, 'print_log', lambda text, *_: said.append(text))

    def fail_once(module, name, at):
        original = getattr(module, name)

        def call(path, *arguments):
            if at in str(path):
                monkeypatch.setattr(module, name, original)
                raise OSError(28, 'No space left on device')
            return original(path, *arguments)

        monkeypatch.setattr(module, name, call)

    def after_epoch(runner):
        seen.append(files(runner))
        if runner.epoch != 1:  # the second epoch, before it is counted
            return
        temporary = osp.join(runner.work_dir, f'epoch_3.pth.{os.getpid()}.tmp')
        if failing == 'full disk':
            os.symlink('/dev/full', temporary)  # a device on which each write fails for want of space
        elif failing == 'damaged':
            original = safe_checkpoint_hook.flush

            def damage(path):
                monkeypatch.setattr(safe_checkpoint_hook, 'flush', original)
                os.truncate(path, 5000)

            monkeypatch.setattr(safe_checkpoint_hook, 'flush', damage)
        elif failing == 'flush':
            fail_once(safe_checkpoint_hook, 'flush', 'epoch_3')
        elif failing == 'rename':
            fail_once(os, 'replace', 'epoch_3')
        else:
            fail_once(safe_checkpoint_hook, 'write_whole', 'last_checkpoint')

    runner = make(after_epoch=after_epoch)
    third = ['epoch_3.pth'] if failing == 'last_checkpoint' else []  # whole, but nobody could be told of it
    assert seen == [
        ['epoch_1.pth'],
        ['epoch_1.pth', 'epoch_2.pth'],
        ['epoch_1.pth', 'epoch_2.pth', *third],
        ['epoch_2.pth', *third, 'epoch_4.pth'],
        [*third, 'epoch_4.pth', 'epoch_5.pth'],
    ]
    assert runner.epoch == 5
    assert [text.split(' ', 1)[0] for text in said] == ['epoch_3.pth']
    assert 'Earlier checkpoints are left as they are' in said[0]
    for name in files(runner):
        check_checkpoint(osp.join(runner.work_dir, name))
    # The fourth says nothing of a third.
    info = check_checkpoint(osp.join(runner.work_dir, 'epoch_4.pth'))['message_hub']['runtime_info']
    assert info['keep_ckpt_ids'] == [1, 2, 4]


def test_a_disk_that_stays_full_ends_no_run(make, monkeypatch):
    said = []
    monkeypatch.setattr(safe_checkpoint_hook, 'print_log', lambda text, *_: said.append(text))

    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', fail)
    runner = make()
    assert (runner.epoch, files(runner), len(said)) == (5, [], 5)
    assert '[Errno 28] No space left on device' in said[0]
    assert 'last_ckpt' not in runner.message_hub.runtime_info


def test_a_resumed_run_removes_what_it_has_to_and_what_was_torn(make, tmp_path):
    runner = make(max_epochs=3)
    torn = [osp.join(runner.work_dir, name) for name in ('epoch_4.pth.12.tmp', 'last_checkpoint.12.tmp')]
    for path in torn:
        open(path, 'w').close()
    # As if the first run had been killed before it removed the oldest.
    (tmp_path / 'run/epoch_1.pth').write_bytes((tmp_path / 'run/epoch_2.pth').read_bytes())
    runner = make(resume=True)
    assert files(runner) == ['epoch_4.pth', 'epoch_5.pth']
    assert not any(map(osp.exists, torn))


def test_the_best_one(make):
    scores = [dict(acc=score, loss=1 - score) for score in (0.2, 0.5, 0.4, 0.6, 0.1)]
    runner = make(scores=scores, save_best='acc')
    assert files(runner) == ['best_acc_epoch_4.pth', 'epoch_4.pth', 'epoch_5.pth']
    best = check_checkpoint(osp.join(runner.work_dir, 'best_acc_epoch_4.pth'))
    assert 'optimizer' not in best
    # The checkpoint of that epoch knows.
    info = check_checkpoint(osp.join(runner.work_dir, 'epoch_4.pth'))['message_hub']['runtime_info']
    assert (info['best_score'], info['best_ckpt']) == (0.6, osp.join(runner.work_dir, 'best_acc_epoch_4.pth'))

    runner = make('two', scores=scores, save_best=['acc', 'loss'], rule=['greater', 'less'])
    assert files(runner)[:2] == ['best_acc_epoch_4.pth', 'best_loss_epoch_4.pth']
    runner = make('auto', scores=scores, save_best='auto')
    assert files(runner)[0] == 'best_acc_epoch_4.pth'


def test_the_former_best_one_stays_if_the_new_one_cannot_be_written(make, monkeypatch):
    original = LocalBackend.put

    def put(backend, content, path):
        if 'best_acc_epoch_4' in path:
            raise OSError(28, 'No space left on device')
        original(backend, content, path)

    monkeypatch.setattr(LocalBackend, 'put', put)
    scores = [dict(acc=score) for score in (0.2, 0.5, 0.4, 0.6, 0.55)]
    runner = make(scores=scores, save_best='acc')
    # 0.55 is the best of those that could be saved.
    assert files(runner) == ['best_acc_epoch_5.pth', 'epoch_4.pth', 'epoch_5.pth']
    assert runner.message_hub.get_info('best_score') == 0.55


def test_remote_files_go_through_their_backend_as_they_are(make, tmp_path):
    written = []

    class Bucket(BaseStorageBackend):
        """A store of another kind."""

        get = get_text = None
        local = LocalBackend()

        def __getattr__(self, name):
            return getattr(self.local, name)

        def put(self, content, path):
            written.append(osp.basename(path))
            self.local.put(content, path)

    register_backend('mmmlo_bucket', Bucket, force=True)
    runner = make(out_dir=str(tmp_path / 'bucket'), backend_args=dict(backend='mmmlo_bucket'))
    assert written == [f'epoch_{n}.pth' for n in range(1, 6)]
    assert sorted(os.listdir(tmp_path / 'bucket/run')) == ['epoch_4.pth', 'epoch_5.pth']
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'bucket/run/epoch_5.pth')
    assert runner.epoch == 5


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_file_saved_between_intervals_is_removed_after_the_next(make, by_epoch):
    seen = []

    def after_epoch(runner):
        if runner.epoch == 2:
            assert saver(runner).save_now(runner) and saver(runner).save_now(runner)
            seen.append(files(runner))
            assert find_resumable(runner.work_dir).endswith(f'iter_{runner.iter + 1}.pth')

    interval = dict(by_epoch=True, interval=1) if by_epoch else dict(by_epoch=False, interval=2)
    runner = make(after_epoch=after_epoch, **interval)
    regular = [f'epoch_{n}.pth' if by_epoch else f'iter_{2 * n}.pth' for n in range(1, 6)]
    assert seen == [sorted([*regular[1:3], 'iter_7.pth'])]
    assert files(runner) == sorted(regular[3:])
