"""tools/benchmarks/weak_scaling.py."""

import importlib
import json
import os.path as osp
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIG = osp.join(ROOT, 'configs', 'mlo_mae', 'mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')


def test_bytes_and_arithmetic(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(osp.join(ROOT, 'tools', 'benchmarks'))
    out = str(tmp_path / 'scaling.json')
    options = ['--arithmetic-only', '--gpus', '8', '16', '--node-bandwidth', '100', '--bandwidth', '10']
    monkeypatch.setattr(sys, 'argv', ['weak_scaling.py', CONFIG, *options, '--cycle-seconds', '1', '--json', out])
    module = importlib.import_module('weak_scaling')
    module.main()
    with open(out) as file:
        figures = json.load(file)
    model = module.Training(module.load_config(CONFIG), 1, 'cpu', 0).model

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


@pytest.mark.slow
@pytest.mark.dist
def test_processes_are_timed(run_tool, tmp_path):
    options = ['--batch-size', 2, '--cycles', 1, '--json', 'scaling.json']
    output = run_tool(osp.join('benchmarks', 'weak_scaling.py'), CONFIG, *options, cwd=tmp_path)
    seconds = json.loads((tmp_path / 'scaling.json').read_text())['seconds']
    assert list(seconds) == ['one process', 'several, apart', 'several']
    assert all(len(values) == 1 and values[0] > 0 for values in seconds.values())
    assert 'several, apart' in output
