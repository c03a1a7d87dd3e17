"""Runs of tools/train.py that are killed, asked to stop, or robbed of a worker, the disk or a checkpoint, and go on."""

import json
import os
import os.path as osp
import random
import signal
import socket
import time

import pytest

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import read_content

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
LOADERS = dict(
    mae=['train_dataloader'],
    mlo_mae=['train_dataloader', 'train_cfg.dataloaders.finetune', 'train_cfg.dataloaders.masking'],
    cl_mae=['train_dataloader'],
)


class Run:
    """A run in a folder of its own, as often as it takes."""

    def __init__(self, launcher, folder, method, *options):
        self.launcher, self.folder, self.method, self.options = launcher, folder, method, options
        folder.mkdir()
        self.process = None

    def start(self, *arguments, **environment):
        config = f'{self.folder.parent}/{self.method}.py'
        self.process = self.launcher.start(
            config, '--work-dir', 'run', *arguments, *self.options, cwd=self.folder, environment=environment
        )

    def wait(self):
        return self.launcher.wait(self.process)

    def finish(self, *arguments):
        self.start(*arguments)
        assert self.wait() == 0, self.output
        return read_content(self.newest)

    def kill(self, number, group=False):
        assert self.launcher.wait(self.process, block=False) is None, f'ended before it was killed: {self.output}'
        (os.killpg if group else os.kill)(self.process, number)

    def pass_checkpoints(self, count):
        """Wait until so many more are there."""
        seen, deadline = {self.newest}, time.monotonic() + 120
        while len(seen) <= count:
            assert self.launcher.wait(self.process, block=False) is None, f'ended too early: {self.output}'
            assert time.monotonic() < deadline
            time.sleep(0.002)
            seen.add(self.newest)

    def pass_into_writing(self):
        deadline = time.monotonic() + 120
        while not list(self.folder.glob('run/*.pth.*.tmp')):
            assert time.monotonic() < deadline

    @property
    def newest(self):
        pointer = self.folder / 'run/last_checkpoint'
        return str(self.folder / pointer.read_text()) if pointer.exists() else ''

    @property
    def output(self):
        return (self.folder / 'output.txt').read_text()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The three methods' configs of digits, shrunken: epochs of 11 iterations, a checkpoint every third."""
    folder = tmp_path_factory.mktemp('interrupted')
    for method in LOADERS:
        name = f'{method.replace("_", "-")}_vit-nano-p4_1xb64-coslr-20e_digits.py'
        cfg = shrink(load_config(osp.join(ROOT, 'configs', method, name)))
        cfg.train_dataloader.batch_size = 96
        cfg.train_dataloader.pop('num_batch_per_epoch', None)
        cfg.train_cfg.pop('max_iters', None)
        cfg.train_cfg.update(max_epochs=3, val_interval=2)
        cfg.val_dataloader.batch_size = 288
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
        cfg.auto_scale_lr.base_batch_size = 96
        cfg.dump(folder / f'{method}.py')
    return folder


@pytest.fixture(scope='module')
def whole(folder, fork_server):
    """The last checkpoint of a run that is not interrupted; ``whole(method, epochs=3)``."""
    made = {}

    def get(method, epochs=3):
        if (method, epochs) not in made:
            options = ['--cfg-options', f'train_cfg.max_epochs={epochs}']
            made[method, epochs] = Run(fork_server, folder / f'whole_{method}_{epochs}', method, *options).finish()
        return made[method, epochs]

    return get


def options(method, workers=0, epochs=3):
    return ['--cfg-options', f'train_cfg.max_epochs={epochs}'] + [
        f'{loader}.num_workers={workers}' for loader in LOADERS[method] if workers
    ]


def kill_and_resume(run, moments, rng):
    """Kill a run at random moments, each time resume it, and let it end.

    Args:
        run (Run): The run.
        moments (list[str]): 'anywhere' or 'writing', a checkpoint that is.
        rng (random.Random): For the moments.

    Returns:
        tuple[dict, int]: The last checkpoint, and how many torn files were left on the way.
    """
    torn = 0
    for moment in moments:
        run.start('--resume')
        if moment == 'anywhere':
            # From before the first iteration to after a few checkpoints.
            run.pass_checkpoints(rng.randrange(4))
            time.sleep(rng.uniform(0, 0.3))
        else:
            run.pass_checkpoints(rng.randrange(1, 3))
            run.pass_into_writing()
        run.kill(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        torn += len(list(run.folder.glob('run/*.pth.*.tmp')))
    return run.finish('--resume'), torn


@pytest.mark.parametrize(
    ('method', 'workers', 'moments'),
    [('mae', 0, ['anywhere']), ('mlo_mae', 2, ['writing', 'anywhere']), ('cl_mae', 0, ['writing'])],
)
def test_a_killed_run_ends_as_one_that_was_not(method, workers, moments, folder, fork_server, whole, assert_same_state):
    run = Run(fork_server, folder / f'killed_{method}', method, *options(method, workers))
    last, _ = kill_and_resume(run, moments, random.Random(method))
    assert_same_state(last, whole(method))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'workers', 'kills'),
    [('mae', 0, 3), ('mae', 2, 3), ('mlo_mae', 0, 4), ('mlo_mae', 2, 4), ('cl_mae', 0, 3), ('cl_mae', 2, 3)],
)
def test_twenty_kills(method, workers, kills, folder, programs, whole, assert_same_state):
    """Twenty in all, every second one during a write, of programs that import everything."""
    seed = f'{method}{workers}'
    run = Run(programs, folder / f'twenty_{method}_{workers}', method, *options(method, workers, epochs=8))
    begin = time.monotonic()
    last, torn = kill_and_resume(run, [('writing', 'anywhere')[i % 2] for i in range(kills)], random.Random(seed))
    print(f'\n{method}, {workers} workers: {kills} kills, {torn} torn files, {time.monotonic() - begin:.0f} s')
    assert_same_state(last, whole(method, epochs=8))


@pytest.mark.parametrize(
    ('method', 'workers', 'number', 'code'),
    [('mlo_mae', 2, signal.SIGTERM, 143), pytest.param('mae', 2, signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_to_the_whole_group_saves_and_ends(
    method, workers, number, code, folder, fork_server, whole, assert_same_state
):
    """As Ctrl-C and schedulers send it, to the loaders' workers too."""
    run = Run(fork_server, folder / f'signal_{method}', method, *options(method, workers))
    run.start()
    run.pass_checkpoints(2)
    run.kill(number, group=True)
    assert run.wait() == code, run.output
    assert f'{signal.Signals(number).name}: {osp.realpath(run.newest)} is saved' in run.output
    saved = read_content(run.newest)['meta']['iter']
    assert saved >= 6
    assert_same_state(run.finish('--resume'), whole(method))
    assert f'resumed epoch: {saved // 11}, iter: {saved}' in run.output
    # That of the signal has had its day, unless it was one of the interval.
    assert {path.name for path in run.folder.glob('run/*.pth')} == {'iter_27.pth', 'iter_30.pth', 'iter_33.pth'}


def test_a_second_signal_ends_at_once(folder, fork_server):
    """In an iteration that does not come to its end: the first image waits for a writer that never comes."""
    os.mkfifo(folder / 'pipe')
    (folder / 'never_ending.py').write_text(
        f"""from mmengine.registry import TRANSFORMS

@TRANSFORMS.register_module()
class NeverEnding:
    def __call__(self, results):
        print('waiting', flush=True)
        open('{folder}/pipe').read()
"""
    )
    (folder / 'waiting.py').write_text(
        """_base_ = 'mae.py'
custom_imports = dict(imports=['never_ending'])
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=[dict(type='NeverEnding')])))
"""
    )
    run = Run(fork_server, folder / 'twice', 'waiting')
    run.start(PYTHONPATH=str(folder))
    deadline = time.monotonic() + 60
    while 'waiting\n' not in (run.output if (run.folder / 'output.txt').exists() else ''):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.kill(signal.SIGTERM)
    time.sleep(0.3)
    run.kill(signal.SIGTERM)
    assert run.wait() == -signal.SIGTERM
    assert 'SIGTERM: saving at the end of the iteration; once more ends at once' in run.output


def test_a_torn_newest_checkpoint_is_passed_over(folder, fork_server, whole, assert_same_state):
    run = Run(fork_server, folder / 'torn', 'cl_mae', *options('cl_mae'))
    run.start()
    run.pass_checkpoints(4)
    run.kill(signal.SIGKILL)
    run.wait()
    torn = run.newest
    before = int(osp.basename(torn)[5:-4]) - 3
    os.truncate(torn, os.path.getsize(torn) // 2)
    last = run.finish('--resume')
    assert f'{osp.basename(torn)} is no PyTorch checkpoint, or only a part of one' in run.output
    assert f'iter_{before}.pth, the newest checkpoint that is whole' in run.output
    assert_same_state(last, whole('cl_mae'))


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_in_one_line(folder, fork_server, whole, assert_same_state):
    """As when memory is short. PyTorch raises wherever the main process is, so the iteration cannot be finished."""
    run = Run(fork_server, folder / 'worker', 'mlo_mae', *options('mlo_mae', workers=2))
    run.start()
    run.pass_checkpoints(2)
    with open(f'/proc/{run.process}/task/{run.process}/children') as file:
        worker = int(file.read().split()[0])
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 1
    last = run.output.splitlines()[-1]
    # PyTorch notices it, or a connection to the worker breaks.
    assert last.startswith('error: a worker of a loader was lost (')
    assert last.endswith(
        '. If memory was short, take fewer num_workers or smaller batches. --resume goes on from ' + osp.realpath(run.newest)
    )
    assert 'Traceback' not in run.output
    assert_same_state(run.finish('--resume'), whole('mlo_mae'))


def test_a_full_disk_costs_the_checkpoints_of_the_time_and_nothing_else(folder, fork_server, whole, assert_same_state):
    """No file grows by a byte in iterations 7 and 8, and none over 200 kB, of which a checkpoint is four times, until 13."""
    (folder / 'full_disk.py').write_text(
        """import json
import os
import resource

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

ROOM = {6: 0, 8: 200_000, 13: resource.RLIM_INFINITY}

@HOOKS.register_module()
class FullDisk(Hook):
    priority = 'LOWEST'
    seen = []

    def after_train_iter(self, runner, *_, **__):
        iteration = runner.iter + 1
        self.seen.append(sorted(name for name in os.listdir(runner.work_dir) if '.pth' in name))
        if iteration in ROOM:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM[iteration], resource.RLIM_INFINITY))

    def after_train(self, runner):
        with open('seen.json', 'w') as file:
            json.dump(self.seen, file)
"""
    )
    (folder / 'full.py').write_text(
        """_base_ = 'mae.py'
custom_imports = dict(imports=['full_disk'])
custom_hooks = [dict(type='FullDisk')]
default_hooks = dict(logger=dict(interval=1))
"""
    )
    run = Run(fork_server, folder / 'full', 'full', *options('mae'))
    run.start(PYTHONPATH=str(folder))
    assert run.wait() == 0, run.output
    for name in ('iter_9.pth', 'iter_12.pth'):
        assert f'{name} is not saved: [Errno 27] File too large. Earlier checkpoints are left as they are' in run.output
    seen = json.loads((run.folder / 'seen.json').read_text())
    assert seen[5:14] == 9 * [['iter_3.pth', 'iter_6.pth']]
    assert seen[14] == ['iter_15.pth', 'iter_3.pth', 'iter_6.pth']
    assert seen[32] == ['iter_27.pth', 'iter_30.pth', 'iter_33.pth']
    assert_same_state(read_content(run.newest), whole('mae'))
    # What is logged meanwhile is lost, in whole lines.
    (scalars,) = run.folder.glob('run/*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['step'] for line in lines if 'loss' in line] == [i for i in range(1, 34) if i not in (7, 8)]


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(folder, fork_server, assert_same_state):
    """One of them gets the signal. Accumulated gradients, which are each process's own, go on too."""
    more = ['optim_wrapper.levels.pretrain.accumulative_counts=3', 'optim_wrapper.levels.pretrain.steps=1']

    def start(run, *arguments):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = str(probe.getsockname()[1])
        started = []
        for rank in ('1', '0'):
            place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            run.start('--launcher', 'pytorch', *arguments, **place)
            started.append(run.process)
        return started

    settings = [*options('mlo_mae'), 'train_dataloader.batch_size=48', *more, 'default_hooks.stop_signal.interval=2']
    run = Run(fork_server, folder / 'two_whole', 'mlo_mae', *settings)
    assert [fork_server.wait(process) for process in start(run)] == [0, 0], run.output
    whole = read_content(run.newest)
    assert len(whole['train_loop']['processes']) == 2

    run = Run(fork_server, folder / 'two', 'mlo_mae', *settings)
    processes = start(run)
    run.pass_checkpoints(2)
    os.kill(processes[0], signal.SIGTERM)
    assert [fork_server.wait(process) for process in processes] == [143, 143], run.output
    assert [fork_server.wait(process) for process in start(run, '--resume')] == [0, 0], run.output
    assert_same_state(read_content(run.newest), whole)
