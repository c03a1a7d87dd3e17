"""tools/benchmarks/reliability_overhead.py as a user runs it."""

import json
import os.path as osp

import pytest


@pytest.mark.slow
def test_all_kinds_are_timed(run_tool, tmp_path):
    options = ['--images', 128, '--repeats', 1, '--workers', 0, '--out', 'figures.json']
    output = run_tool(osp.join('benchmarks', 'reliability_overhead.py'), *options, cwd=tmp_path)
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert [row['name'] in output for row in figures['rows']] == 3 * [True]
    assert all(row['ms_an_iteration'] > 0 and row['ms_a_checkpoint'] > 0 for row in figures['rows'])
    assert 0 < figures['loading_us'] < figures['training_us']
