"""tools/benchmarks/loader_speed.py as a user runs it."""

import json
import os.path as osp

import pytest

TOOL = osp.join('benchmarks', 'loader_speed.py')


@pytest.mark.slow
def test_all_loaders_are_timed(run_tool, tmp_path):
    sizes = ['--small', 32, '--large', 16, '--batch-size', 8, '--repeats', 1, '--workers', 0, 1, '--gpu-workers', 4]
    output = run_tool(TOOL, *sizes, '--out', 'figures.json', cwd=tmp_path)
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert len(figures['rows']) == 5 * 2
    assert all(row['loader'] in output and row['images_per_second'] > 0 for row in figures['rows'])
    assert 11_000 < figures['gpu_images_per_second'] < 12_000  # 45 % of 989 TFLOP/s over 39 GFLOP
    for row in figures['calculated']:
        one = next(r for r in figures['rows'] if (r['loader'], r['workers']) == (row['loader'], 1))
        assert row['images_per_second'] == min(4 * one['images_per_second'], 1e6 / one['main_process_us'])
        assert row['share'] == row['images_per_second'] / figures['gpu_images_per_second']


@pytest.mark.slow
def test_own_photos_and_bad_input(run_tool, labelled_folder, tmp_path):
    sizes = ['--small', 32, '--large', 16, '--batch-size', 8, '--repeats', 1, '--workers', 0]
    photos = ['--photos', labelled_folder, '--gpu-images-per-second', 1]
    assert 'feed it' in run_tool(TOOL, *sizes, *photos, cwd=tmp_path)
    (tmp_path / 'empty').mkdir()
    assert 'holds no .jpg' in run_tool(TOOL, *sizes, '--photos', 'empty', cwd=tmp_path, code=1)
    assert 'there is no folder gone' in run_tool(TOOL, '--photos', 'gone', cwd=tmp_path, code=2)
