"""tools/benchmarks/: operations and bytes against formulas, and what they print and write."""

import json
import os.path as osp
import sys

import pytest

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


def encoder(batch, tokens, dims=96, layers=4, class_token_only=False):
    """Operations of a forward pass, a multiplication and an addition counted as two."""
    layer = tokens * 24 * dims**2 + 4 * tokens**2 * dims
    last = tokens * 4 * dims**2 + (2 + 2 + 16) * dims**2 + 4 * tokens * dims if class_token_only else layer
    return batch * ((layers - 1) * layer + last)


def test_operations_and_shares(profiled):
    figures, output = profiled(CONFIG, '--batch-size', '4', '--cycles', '1', '--warmup', '1', '--threads', '1')
    rows = {(row['level'], row['phase'], row['part']): row for row in figures['rows']}
    assert rows['finetune', 'forward', 'encoder']['operations'] == encoder(4, 65, class_token_only=True)
    assert rows['masking', 'forward', 'encoder']['operations'] == encoder(4, 65, class_token_only=True)
    assert rows['pretrain', 'forward', 'encoder']['operations'] == 2 * encoder(4, 17)
    # By inputs and by weights, but attention: its kernel multiplies the scores once more.
    backward = rows['pretrain', 'backward', 'encoder']['operations'] / (2 * encoder(4, 17))
    assert 2 <= backward < 2.1
    # The pass of the finetune level serves its edge: what is left there is its backward pass.
    edge = rows['masking', 'edge: from finetune', 'encoder']['operations'] / encoder(4, 65, class_token_only=True)
    assert 1.9 < edge < 2.2
    # Values, tangents by inputs, and in the encoder by weights: the downstream loss has no gradient for the decoder's.
    for part, times in (('encoder', 3), ('decoder', 2)):
        forward = rows['pretrain', 'forward', part]['operations'] / 2
        edge = rows['masking', 'edge: from pretrain', part]['operations']
        assert edge / forward == pytest.approx(times, rel=0.1), part
    assert sum(row['seconds'] for row in figures['rows']) == pytest.approx(figures['seconds'][0], rel=0.05)
    assert {'step', 'masker', 'downstream', 'loss'} <= {part for _, _, part in rows}
    assert 'edge: from pretrain' in output and '1 threads' in output


def test_one_level_and_loaders(profiled):
    mae = osp.join(ROOT, 'configs', 'mae', 'mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
    figures, output = profiled(mae, '--batch-size', '4', '--cycles', '1', '--loader')
    assert {row['level'] for row in figures['rows']} == {'pretrain'}
    assert figures['loader_seconds'] > 0 and 'the loaders alone' in output


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


def test_bytes_and_arithmetic(load_tool, monkeypatch, capsys, tmp_path):
    out = str(tmp_path / 'scaling.json')
    options = ['--arithmetic-only', '--gpus', '8', '16', '--node-bandwidth', '100', '--bandwidth', '10']
    monkeypatch.setattr(sys, 'argv', ['weak_scaling.py', CONFIG, *options, '--cycle-seconds', '1', '--json', out])
    module = load_tool('benchmarks/weak_scaling.py')
    module.main()
    with open(out) as file:
        figures = json.load(file)
    model = module.Training(module.load_config(CONFIG), 1, 'cpu').model

    def size(*names):
        parameters = [p for name in names for p in getattr(model, name).parameters() if p.requires_grad]
        return 4 * sum(p.numel() for p in parameters)

    head, encoder = size('downstream'), size('backbone')
    # Two pretrain steps; the hypergradient of the masker, and the vectors by the head and by the encoder.
    assert figures['bytes'] == dict(
        pretrain=[2 * size('backbone', 'neck'), 0], finetune=[head, 0], masking=[0, size('masker') + head + encoder]
    )
    eight, sixteen = figures['calculated']
    waited = figures['bytes']['masking'][1]
    assert eight['waited_seconds'] == pytest.approx(2 * 7 / 8 * waited / 100e9)
    assert sixteen['waited_seconds'] == pytest.approx(2 * 15 / 16 * waited / 10e9)
    assert sixteen['efficiency_with_overlap'] == pytest.approx(1 / (1 + sixteen['waited_seconds']))
    assert sixteen['efficiency_without'] < sixteen['efficiency_with_overlap'] < eight['efficiency_with_overlap'] < 1
    assert 'waited for MB' in capsys.readouterr().out


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
    plain, windowed, checkpointed = found['peak_memory_mib'].values()
    assert plain > windowed > checkpointed > 0 and all(len(seconds) == 1 for seconds in found['seconds'].values())


@pytest.mark.slow
def test_loaders_are_timed(figures, run_tool, labelled_folder, tmp_path):
    sizes = ['--small', 32, '--large', 16, '--batch-size', 8, '--repeats', 1]
    found, output = figures('loader_speed.py', *sizes, '--workers', 0, 1, '--gpu-workers', 4)
    assert len(found['rows']) == 5 * 2
    assert all(row['loader'] in output and row['images_per_second'] > 0 for row in found['rows'])
    assert 11_000 < found['gpu_images_per_second'] < 12_000  # 45 % of 989 TFLOP/s over 39 GFLOP
    for row in found['calculated']:
        one = next(r for r in found['rows'] if (r['loader'], r['workers']) == (row['loader'], 1))
        assert row['images_per_second'] == min(4 * one['images_per_second'], 1e6 / one['main_process_us'])
        assert row['share'] == row['images_per_second'] / found['gpu_images_per_second']
    photos = ['--workers', 0, '--photos', labelled_folder, '--gpu-images-per-second', 1]
    assert 'feed it' in figures('loader_speed.py', *sizes, *photos)[1]
    (tmp_path / 'empty').mkdir()
    tool = osp.join('benchmarks', 'loader_speed.py')
    assert 'holds no .jpg' in run_tool(tool, *sizes, '--photos', 'empty', cwd=tmp_path, code=1)
    assert 'there is no folder gone' in run_tool(tool, '--photos', 'gone', cwd=tmp_path, code=2)
