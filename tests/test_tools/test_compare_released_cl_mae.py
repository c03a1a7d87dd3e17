"""The comparison with the released CL-MAE. What runs it needs a checkout, which ``MMMLO_CL_MAE`` names."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'compare_released_cl_mae.py'


@pytest.fixture(scope='module')
def script(load_tool):
    """The script. The released code is not imported."""
    return load_tool('benchmarks/compare_released_cl_mae.py')


def test_a_folder_that_is_no_checkout(refusal, tmp_path):
    message = f'error: {tmp_path} has no engine_pretrain.py; CHECKOUT must be a checkout of '
    assert refusal(tmp_path).startswith(message + 'https://github.com/ristea/cl-mae')
    for name in ('engine_pretrain.py', 'models_mae.py'):  # MAE's own checkout has them too
        (tmp_path / name).touch()
    assert 'has no vit_local.py' in refusal(tmp_path)
    assert 'absent has no engine_pretrain.py' in refusal(tmp_path / 'absent')


@pytest.mark.parametrize(
    ('required', 'difference', 'expected'),
    [(True, 9e-9, True), (True, 1e-8, False), (True, math.nan, False), (False, 1.0, True)],
)
def test_judges_every_row_that_is_required(script, required, difference, expected):
    rows = [dict(required=True, difference=0.0), dict(required=required, difference=difference)]
    assert script.agrees(rows) == expected


@pytest.mark.slow
@pytest.mark.skipif('MMMLO_CL_MAE' not in os.environ, reason='MMMLO_CL_MAE names no checkout of github.com/ristea/cl-mae')
def test_equals_the_released_code(tmp_path):
    out = tmp_path / 'out.json'
    arguments = [os.environ['MMMLO_CL_MAE'], '--seed', '3', '--json', str(out)]
    result = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(out.read_text())
    assert figures['agreed'] and figures['settings']['arguments']['seed'] == 3
    required = [row for row in figures['rows'] if row['required']]
    assert len(required) == 23 and max(row['difference'] for row in required) < 1e-8
    # What is compared is not zero, and the two phases differ.
    assert all(abs(row['ours']) > 1e-3 for row in required if row['ours'] is not None)
    assert len({round(row['ours'], 6) for row in required if row['ours'] is not None}) == 21
    (single,) = [row for row in figures['rows'] if not row['required']]
    assert 1e-10 < single['difference'] < 1e-5
    assert result.stdout.count('raw pixels') == result.stdout.count('normalized pixels') == 9
