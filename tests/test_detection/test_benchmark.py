"""The benchmark of the windowed ViT, on a model that takes no time."""

import importlib.util
import json
import os.path as osp
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


def test_figures_and_their_ratios(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('benchmark', osp.join(ROOT, 'tools', 'benchmarks', 'windowed_vit.py'))
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    path = tmp_path / 'figures.json'
    settings = ['--arch', 'deit-tiny', '--size', '240', '--repeats', '1', '--device', 'cpu', '--json', str(path)]
    monkeypatch.setattr(sys, 'argv', ['windowed_vit.py', *settings])
    benchmark.main()
    figures = json.loads(path.read_text())
    assert figures['settings']['size'] == 240 and 'json' not in figures['settings']
    assert {name: len(seconds) for name, seconds in figures['seconds'].items()} == dict.fromkeys(benchmark.VARIANTS, 1)
    memory = figures['peak_memory_mib']
    # What twelve blocks keep goes; weights' gradients stay, and on a small image they are a good part of the rest.
    assert memory['windowed, checkpointed'] < 0.6 * memory['windowed']
    table = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    assert table['plain'][2] == table['windowed'][4] == '1.00'
    ratio = memory['windowed, checkpointed'] / memory['windowed']
    assert float(table['windowed, checkpointed'][4]) == pytest.approx(ratio, abs=0.005)
