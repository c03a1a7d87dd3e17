"""The comparison of speed with the released codes. What runs those needs checkouts, which ``MMMLO_MLO_MAE``,
``MMMLO_CL_MAE`` and ``MMMLO_BETTY`` name."""

import json
import math
import operator
import os
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'compare_released.py'
TINY = dict(dims=24, depth=1, heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2, img_size=32, patch_size=4)
TINY_OPTIONS = [f'--{name.replace("_", "-")}={value}' for name, value in TINY.items()]
CHECKOUTS = dict(mlo_mae='MMMLO_MLO_MAE', cl_mae='MMMLO_CL_MAE', betty='MMMLO_BETTY')


@pytest.fixture(scope='module')
def script(load_tool):
    """The script. Nothing released is imported."""
    return load_tool('benchmarks/compare_released.py')


@pytest.fixture(scope='module')
def measure(script):
    """The module beside the script."""
    return sys.modules['measure']


@pytest.mark.parametrize(
    ('option', 'file', 'url'),
    [
        ('--mlo-mae', 'main_cifar10.py', 'https://github.com/Alexiland/MLO-MAE'),
        ('--cl-mae', 'vit_local.py', 'https://github.com/ristea/cl-mae'),
        ('--betty', 'betty/hypergradient/darts.py', 'https://github.com/leopard-ai/betty'),
    ],
)
def test_a_folder_that_is_no_checkout(refusal, tmp_path, option, file, url):
    assert refusal(option, tmp_path) == f'error: {tmp_path} has no {file}; {option} must be a checkout of {url}\n'


def test_options_that_make_no_sense(refusal, tmp_path):
    (tmp_path / 'main_cifar10.py').touch()
    assert '--mlo-mae needs --betty' in refusal('--mlo-mae', tmp_path)
    assert '--cycles must be at least 1, got 0' in refusal('--cycles', 0)
    assert '--warmup must be at least 0, got -1' in refusal('--warmup', -1)


def test_definitions_of_a_script_that_would_do_more(script, tmp_path):
    definitions = sys.modules['released'].definitions
    path = tmp_path / 'script.py'
    path.write_text('import absent\n1 / 0\ndef double(x):\n    return helper(x)\ndef other():\n    pass\n')
    found = definitions(str(path), ['double'], dict(helper=lambda x: 2 * x))
    assert set(found) == {'double'} and found['double'](3) == 6
    with pytest.raises(RuntimeError, match=r"script.py does not define \['main'\]"):
        definitions(str(path), ['double', 'main'], {})


@pytest.mark.parametrize(('difference', 'expected'), [(9e-9, True), (1e-8, False), (math.nan, False)])
def test_judges_every_loss(script, difference, expected):
    check = script.Check()
    check.rows = [dict(difference=0.0), dict(difference=difference)]
    assert check.agrees == expected


def test_worker_in_a_process_of_its_own(measure, monkeypatch):
    monkeypatch.setenv('MALLOC_ARENA_MAX', '7')
    before = dict(os.environ)
    seen = '[ "$MALLOC_ARENA_MAX$KMP_BLOCKTIME$OMP_WAIT_POLICY" = 5 ] && sleep 0.1'
    build = partial(partial, subprocess.run, seen, shell=True, check=True)
    worker = measure.Worker(build, waiting=dict(OMP_WAIT_POLICY='5'))
    broken = measure.Worker(partial(partial, operator.truediv, 1, 0))
    assert dict(os.environ) == before
    assert worker.answer() == 0
    assert 0.1 < worker.get('cycle') < 10
    assert 0 <= worker.get('peak') < 1000
    assert broken.answer() == 0
    with pytest.raises(RuntimeError, match='a variant failed in its process:\n(.|\n)*ZeroDivisionError'):
        broken.get('cycle')
    for each in (worker, broken):
        each.close()
        assert not each._process.is_alive()


class Local:
    """A worker in this process."""

    def __init__(self, build, **settings):
        self._cycle = build()

    def answer(self):
        return 0.0

    def get(self, what):
        if what != 'cycle':
            return dict(peak=1.0, tensors=2.0)[what]
        start = time.perf_counter()
        self._cycle()
        return time.perf_counter() - start

    def close(self):
        pass


def test_in_turns(measure):
    order = []

    def build(name):
        return lambda: order.append(name)

    starts = {name: partial(Local, partial(build, name)) for name in 'abc'}
    times = measure.in_turns(starts, cycles=2, warmup=1)
    assert ''.join(order) == 'abc' + 'cba' + 'abc'
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == dict(a=2, b=2, c=2)
    assert (times.memory, times.tensors) == (dict(a=[1], b=[1], c=[1]), dict(a=[2], b=[2], c=[2]))


def test_rows(measure, capsys):
    seconds = dict(ours=[1.0, 2.0, 9.0], other=[2.0, 5.0, 10.0])
    times = measure.Times(seconds, dict(ours=[30.0], other=[40.0]), dict(ours=[1.0], other=[4.0]))
    time_row = times.row('a cycle', 'ours', 'other', 0.6)
    memory_row = times.row('memory', 'ours', 'other', 0.6, 'memory')
    # The median of the ratios, not the ratio of the medians, which would be 0.4.
    assert (time_row.ours, time_row.other, time_row.ratio) == (2000, 5000, 0.5)
    assert time_row.quartiles == pytest.approx((0.45, 0.7))
    assert times.row('tensors', 'ours', 'other', what='tensors').ratio == 0.25
    assert memory_row.ratio == 0.75 and memory_row.quartiles == (0.75, 0.75)
    measure.print_rows([time_row, memory_row], 'the other')
    head, *lines = capsys.readouterr().out.splitlines()
    assert 'the other' in head
    assert lines[0].split()[-4:] == ['0.45-0.70', '<=', '0.6', 'reached'] and lines[1].endswith('missed')


def test_mae_beside_mmpretrain(script, monkeypatch):
    shape = sys.modules['variants'].Shape(**TINY, batch_size=4)
    check = script.Check()
    script.check_mae(shape, check)
    assert check.agrees and len(check.rows) == 1 and check.rows[0]['ours'] > 0.1

    monkeypatch.setattr(script, 'Worker', Local)
    rows, times = script.time_mae(Namespace(device='cpu', threads=None, cycles=2, warmup=1), shape)
    assert set(times.seconds) == {'ours', 'same settings', 'as documented'}
    assert [row.goal for row in rows] == [0.95, 0.8]
    assert all(0 < row.ratio < 20 and len(row.ratios) == 2 for row in rows)


def test_variants_take_their_optimizers_from_the_configs(script):
    variants = sys.modules['variants']
    shape = script.Shape(**TINY, batch_size=4)
    for method, path in variants.NAMES.items():
        ours = variants.config(method, shape)
        assert ours.optim_wrapper == variants.Config.fromfile(f'{variants.CONFIGS}/{path}').optim_wrapper
        assert ours.model.backbone.arch.embed_dims == 24 and ours.model.neck.decoder_embed_dim == 16
    theirs = variants.mmpretrain_config(shape).optim_wrapper
    ours = variants.config('MAE', shape).optim_wrapper
    assert (theirs.optimizer.lr, theirs.optimizer.betas) == (ours.optimizer.lr, ours.optimizer.betas)


@pytest.mark.slow
def test_without_checkouts(run_tool, tmp_path):
    options = [*TINY_OPTIONS, '--cycles', 1, '--batch-sizes', 4, '--device', 'cpu', '--json', 'o.json']
    output = run_tool(SCRIPT, *options, cwd=tmp_path)
    assert 'the released MLO-MAE is left out' in output and 'CL-MAE is left out' in output
    figures = json.loads((tmp_path / 'o.json').read_text())
    assert figures['agreed'] and [row['name'] for row in figures['losses']] == ["MAE, beside mmpretrain's"]
    names = [row['name'] for part in figures['timed'] for row in part['rows']]
    assert names[-1] == 'MLO-MAE cycle, batch 4, over two steps of our MAE' and len(names) == 3
    assert all(name in output for name in names)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(name in os.environ for name in CHECKOUTS.values()), reason=f'{", ".join(CHECKOUTS.values())} name no checkouts'
)
def test_with_checkouts(run_tool, tmp_path):
    checkouts = [f'--{option.replace("_", "-")}={os.environ[name]}' for option, name in CHECKOUTS.items()]
    options = [*checkouts, *TINY_OPTIONS, '--cycles', 2, '--warmup', 0, '--batch-sizes', 4, '--device', 'cpu', '--bf16']
    output = run_tool(SCRIPT, *options, '--json', 'o.json', cwd=tmp_path)
    assert 'left out' not in output
    figures = json.loads((tmp_path / 'o.json').read_text())
    assert figures['agreed'] and len(figures['losses']) == 27
    assert max(row['difference'] for row in figures['losses']) < 1e-8
    # What is compared is not zero, and no two of them are the same.
    assert min(row['ours'] for row in figures['losses']) > 1e-3
    assert len({round(row['ours'], 6) for row in figures['losses']}) == 27
    rows = [row for part in figures['timed'] for row in part['rows']]
    assert [sum(method in row['name'] for row in rows) for method in ('mmpretrain', 'MLO-MAE', 'CL-MAE')] == [2, 10, 5]
    assert all(row['ratio'] > 0 for row in rows)
    assert sorted(os.listdir(tmp_path)) == ['o.json']  # the released script makes no folders here
