"""tools/benchmarks/profile_cycle.py: operations against formulas, and the table as a user gets it."""

import importlib
import json
import os.path as osp
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIG = osp.join(ROOT, 'configs', 'mlo_mae', 'mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')

CLASSIFIER = osp.join(ROOT, 'configs', 'mae', 'benchmarks', 'vit-nano-p4_1xb64-coslr-20e_digits.py')


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the script in this process; its JSON and what it printed."""
    monkeypatch.syspath_prepend(osp.join(ROOT, 'tools', 'benchmarks'))

    def run(*options):
        out = str(tmp_path / 'profile.json')
        monkeypatch.setattr(sys, 'argv', ['profile_cycle.py', *options, '--device', 'cpu', '--out', out])
        importlib.import_module('profile_cycle').main()
        with open(out) as file:
            return json.load(file), capsys.readouterr().out

    return run


def encoder(batch, tokens, dims=96, layers=4, class_token_only=False):
    """Operations of a forward pass, a multiplication and an addition counted as two."""
    layer = tokens * 24 * dims**2 + 4 * tokens**2 * dims
    last = tokens * 4 * dims**2 + (2 + 2 + 16) * dims**2 + 4 * tokens * dims if class_token_only else layer
    return batch * ((layers - 1) * layer + last)


def test_operations_and_shares(run):
    figures, output = run(CONFIG, '--batch-size', '4', '--cycles', '1', '--warmup', '1', '--threads', '1')
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


def test_one_level_and_loaders(run):
    mae = osp.join(ROOT, 'configs', 'mae', 'mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
    figures, output = run(mae, '--batch-size', '4', '--cycles', '1', '--loader')
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
def test_bad_input(run, capsys, options, words):
    with pytest.raises(SystemExit) as error:
        run(*options)
    assert words in f'{error.value}{capsys.readouterr().err}'
