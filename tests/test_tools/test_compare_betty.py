"""The comparison with Betty. What runs Betty needs a checkout of it, which ``MMMLO_BETTY`` names."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'compare_betty.py'


@pytest.fixture(scope='module')
def script(load_tool):
    """The script. Betty is not imported."""
    return load_tool('benchmarks/compare_betty.py')


def test_a_folder_that_is_no_checkout(refusal, tmp_path):
    message = f'error: {tmp_path} has no betty/hypergradient/darts.py; BETTY_CHECKOUT must be a checkout of '
    assert refusal(tmp_path).startswith(message + 'https://github.com/leopard-ai/betty')


def test_no_cycles(refusal, tmp_path):
    assert '--cycles must be at least 1, got 0' in refusal(tmp_path, '--cycles', 0)


@pytest.mark.parametrize(
    ('required', 'cosines', 'expected'),
    [
        (True, [1.0, 0.9991], True),
        (True, [1.0, 0.999], False),
        (True, [math.nan, 1.0], False),
        (True, [-1.0], False),
        (False, [0.1], True),
    ],
)
def test_judges_every_cycle_of_the_same_problem_only(script, required, cosines, expected):
    rows = [dict(required=True, cosine=[1.0]), dict(required=required, cosine=cosines)]
    assert script.agrees(rows) == expected


@pytest.mark.slow
@pytest.mark.skipif('MMMLO_BETTY' not in os.environ, reason='MMMLO_BETTY names no checkout of github.com/leopard-ai/betty')
def test_equals_betty(tmp_path):
    out = tmp_path / 'out.json'
    arguments = [os.environ['MMMLO_BETTY'], '--cycles', '2', '--seed', '3', '--json', str(out)]
    result = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(out.read_text())
    assert figures['agreed']
    assert '--seed 3' in figures['settings']['command']
    assert all(len(row[key]) == 2 for row in figures['rows'] for key in ('cosine', 'relative_error', 'norm_ratio'))

    same = [row for row in figures['rows'] if row['wiring'] == 'same problem']
    assert len(same) == 6 and min(min(row['cosine']) for row in same) > 0.999
    # Along one path Betty and FiniteDifference take the same step, so only rounding is between them.
    single = [row for row in same if row['estimator'] == 'FiniteDifference' and len(row['paths']) == 1]
    assert len(single) == 2 and max(max(row['relative_error']) for row in single) < 1e-8

    released = [row for row in figures['rows'] if row['wiring'] == 'released wiring']
    assert len(released) == 3 and not any(row['required'] for row in released)
    assert result.stdout.count('released wiring') == 3
