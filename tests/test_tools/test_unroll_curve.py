"""tools/analysis_tools/unroll_curve.py: curves of tiny runs from one point."""

import json
import os.path as osp

import pytest
import torch

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
NAME = '{}_vit-nano-p4_1xb128-coslr-188e_cluttered-digits'


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/unroll_curve.py')


@pytest.fixture
def configs(tmp_path):
    """Arguments: MAE, its oracle and MLO-MAE with a solved head, shrunken, and a checkpoint."""
    paths = []
    for folder, name in (('mae', 'mae'), ('mae', 'oracle-mae'), ('mlo_mae', 'mlo-mae-ridge')):
        cfg = shrink(load_config(osp.join(ROOT, 'configs', folder, f'{NAME.format(name)}.py')), cycles=4)
        paths.append(str(tmp_path / f'{name}.py'))
        cfg.dump(paths[-1])
        if name == 'mae':
            torch.manual_seed(0)
            torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'start.pth')
    return [*paths, '--checkpoint', str(tmp_path / 'start.pth')]


def test_curves_begin_at_one_point_and_part(tool, configs, tmp_path, capsys):
    out = tmp_path / 'out'
    tool.main([*configs, '--steps', '4', '1', '--seeds', '0', '--lr', '0.003', '--out', str(out)])
    found = json.loads((out / 'unroll_curve.json').read_text())['loss_and_accuracy']
    (mae,), (oracle,), (learned,) = (found[name] for name in ('mae', 'oracle-mae', 'mlo-mae-ridge'))
    assert list(mae) == ['0', '1', '4']
    assert mae['0'] == oracle['0'] == learned['0']
    assert len({curve['4'][0] for curve in (mae, oracle, learned)}) == 3 and mae['4'] != mae['1'] != mae['0']
    assert (out / 'unroll_curve.png').stat().st_size > 5000
    printed = capsys.readouterr().out
    assert f'{mae["4"][0]:.3f}' in printed and 'oracle-mae: ' in printed


def test_the_horizon_is_where_a_curve_stays_below(tool):
    base = {0: 9.0, 1: 2.0, 4: 2.0, 16: 2.0, 64: 2.0}
    assert tool.horizon({0: 9.0, 1: 1.0, 4: 3.0, 16: 1.9, 64: 1.5}, base) == 16
    assert tool.horizon({0: 9.0, 1: 1.0, 4: 1.0, 16: 1.0, 64: 2.0}, base) is None
    assert tool.horizon(dict.fromkeys(base, 1.0), base) == 1


def test_an_unroll_longer_than_the_run(tool, configs, capsys):
    with pytest.raises(SystemExit):
        tool.main([*configs, '--steps', '1', '400'])
    assert '--steps must be from 1 to the length of the run of' in capsys.readouterr().err
