"""tools/benchmarks/: operations and bytes against formulas, and what they print and write."""

import json
import os.path as osp
import sys

import pytest

from mmmlo.launch.config import load_config

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIG = osp.join(ROOT, 'configs', 'mlo_mae', 'mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
CLASSIFIER = osp.join(ROOT, 'configs', 'benchmarks', 'vit-nano-p4_1xb64-coslr-20e_digits.py')
SMALL = ['--dims', 24, '--heads', 2, '--depth', 1, '--decoder-dims', 16, '--decoder-depth', 1, '--batch-size', 4]


@pytest.fixture
def profiled(load_tool, monkeypatch, capsys, tmp_path):
    """Profile in this process; the JSON and what was printed."""

    def profiled(*options):
        out = str(tmp_path / 'profile.json')
        monkeypatch.setattr(sys, 'argv', ['profile_cycle.py', *options, '--device', 'cpu', '--json', out])
        load_tool('benchmarks/profile_cycle.py', status=1).main()
        with open(out) as file:
            return json.load(file), capsys.readouterr().out

    return profiled


def test_operations_and_shares(profiled):
    figures, output = profiled(CONFIG, '--batch-size', '4', '--cycles', '1', '--warmup', '1', '--threads', '1')
    rows = {(row['level'], row['phase']): row for row in figures['rows']}
    # The encoder's forward pass: the head's own backward pass ends at its input, the class token.
    finetune = operations(65)
    assert rows['finetune', 'loss']['operations'] == pytest.approx(finetune, rel=0.05)
    # The pass of the finetune level serves its edge: what is left there is its backward pass, by inputs and weights.
    assert 1.9 * finetune < rows['masking', 'edge: from finetune']['operations'] < 2.2 * finetune
    # Values, and tangents by inputs and weights.
    forward = rows['pretrain', 'loss']['operations'] / 2 / 3
    assert 2 * forward < rows['masking', 'edge: from pretrain']['operations'] < 3 * forward
    assert sum(row['seconds'] for row in figures['rows']) == pytest.approx(figures['seconds'][0])
    assert all(0 <= row['products'] <= row['seconds'] for row in figures['rows'])
    assert ('pretrain', 'step') in rows and 'edge: from pretrain' in output and '1 threads' in output


def operations(tokens, batch=4, dims=96, layers=4):
    """Of an encoder's forward pass whose class token alone is read; a multiplication and an addition are two."""
    layer = tokens * 24 * dims**2 + 4 * tokens**2 * dims
    last = tokens * 4 * dims**2 + (2 + 2 + 16) * dims**2 + 4 * tokens * dims
    return batch * ((layers - 1) * layer + last)


def test_one_level(profiled):
    figures, _ = profiled(osp.join(ROOT, 'configs', 'mae', 'mae_vit-nano-p4_1xb64-coslr-20e_digits.py'), '--cycles', '1')
    assert [(row['level'], row['phase']) for row in figures['rows']] == [('pretrain', 'loss')]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['nowhere.py'], 'nowhere.py'),
        ([CLASSIFIER], 'a ImageClassifier, not'),
        ([CONFIG, '--batch-size', '0'], '--batch-size must be at least 1, got 0'),
    ],
)
def test_bad_input(profiled, capsys, options, words):
    with pytest.raises(SystemExit):
        profiled(*options)
    assert words in capsys.readouterr().err


def test_bytes(load_tool):
    module = load_tool('benchmarks/weak_scaling.py')
    training = module.Training(load_config(CONFIG), 1, 'cpu')

    def size(*names):
        parameters = [p for name in names for p in getattr(training.model, name).parameters() if p.requires_grad]
        return 4 * sum(p.numel() for p in parameters)

    head, encoder = size('downstream'), size('backbone')
    # Two pretrain steps; the hypergradient of the masker, and the vectors by the head and by the encoder.
    assert module.reduced_bytes(training) == dict(
        pretrain=(2 * size('backbone', 'neck'), 0), finetune=(head, 0), masking=(0, size('masker') + head + encoder)
    )


@pytest.fixture
def figures(run_tool, tmp_path):
    """Run a benchmark as a user does: its JSON and what it printed."""

    def run(name, *options):
        output = run_tool(osp.join('benchmarks', name), *options, '--json', 'figures.json', cwd=tmp_path)
        return json.loads((tmp_path / 'figures.json').read_text()), output

    return run


@pytest.mark.slow
@pytest.mark.dist
def test_processes_are_timed(figures):
    seconds = figures('weak_scaling.py', CONFIG, '--batch-size', 2, '--cycles', 1)[0]['seconds']
    assert list(seconds) == ['one process', 'several, apart', 'several']
    assert all(len(values) == 1 and values[0] > 0 for values in seconds.values())


@pytest.mark.slow
def test_every_variant_of_pretraining_is_timed(figures):
    found, output = figures('pretrain_speed.py', *SMALL, '--cycles', 2, '--warmup', 1, '--device', 'cpu')
    names = [row['name'] for row in found['rows']]
    assert names[:2] == ['mmpretrain MAE', 'MAE']
    assert {'MLO-MAE ForwardMode', 'MLO-MAE FiniteDifference'} <= set(names) and all(name in output for name in names)
    assert all(row['ms_per_cycle'] > 0 and row['peak_memory_mib'] > 0 for row in found['rows'])


@pytest.mark.slow
def test_waiting_threads_are_compared_beside_a_busy_process(figures):
    found, output = figures('waiting_threads.py', *SMALL, '--cycles', 2, '--warmup', 0, '--threads', 2)
    assert [row['name'] for row in found['rows']] == ['alone', 'beside 1 busy processes']
    assert [row['goal'] for row in found['rows']] == [1.03, None] and 'spinning' in output
    assert all(row['ratio'] > 0 for row in found['rows'])


@pytest.mark.slow
def test_a_windowed_vit_is_compared(figures):
    found, _ = figures('windowed_vit.py', '--arch', 'deit-tiny', '--size', 256, '--cycles', 1, '--device', 'cpu')
    (plain,), (windowed,), (checkpointed,) = found['peak_memory_mib'].values()
    assert min(plain, windowed) > checkpointed > 0 and all(len(seconds) == 1 for seconds in found['seconds'].values())


@pytest.mark.slow
def test_loaders_are_timed(figures, run_tool, labelled_folder, tmp_path):
    sizes = ['--small', 32, '--large', 16, '--batch-size', 8, '--repeats', 1]
    found, output = figures('loader_speed.py', *sizes, '--workers', 0, 1)
    assert len(found['rows']) == 4 * 2
    assert all(row['loader'] in output and row['images_per_second'] > 0 for row in found['rows'])
    rates = {(row['loader'], row['workers']): row['images_per_second'] for row in found['rows']}
    assert found['ratios']['1'] == pytest.approx(rates['224 px, ours', 1] / rates["224 px, mmpretrain's", 1])
    figures('loader_speed.py', *sizes, '--workers', 0, '--photos', labelled_folder)
    (tmp_path / 'empty').mkdir()
    tool = osp.join('benchmarks', 'loader_speed.py')
    assert 'empty holds no image' in run_tool(tool, *sizes, '--photos', 'empty', cwd=tmp_path, code=1)
    assert 'there is no folder gone' in run_tool(tool, '--photos', 'gone', cwd=tmp_path, code=2)
