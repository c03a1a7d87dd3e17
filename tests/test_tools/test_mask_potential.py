"""tools/analysis_tools/mask_potential.py: what each kind of weights changes, and what is said of gains."""

import json
import os.path as osp

import pytest
from mmengine.config import Config

from mmmlo.evaluation.results import Metric
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIG = osp.join(ROOT, 'configs', 'mae', 'mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py')


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/mask_potential.py')


@pytest.mark.parametrize(
    ('kind', 'model', 'masker'),
    [
        ('none', 'MAE', 'RandomMasker'),
        ('contrast', 'MAE', 'ContrastMasker'),
        ('labels', 'GuidedMAE', 'AttentionMasker'),
        ('worth', 'OracleMAE', 'RandomMasker'),
    ],
)
def test_each_kind_is_a_config_of_its_own(tool, kind, model, masker):
    cfg = load_config(CONFIG)
    tool.with_weights(cfg, kind, num_classes=10)
    built = MODELS.build(cfg.model)
    assert (type(built).__name__, type(built.masker).__name__) == (model, masker)
    assert (built.weighting is not None) == (kind in ('contrast', 'labels'))
    assert ('worth' in str(cfg.train_dataloader)) == (kind == 'worth')
    assert ('masking' in cfg.optim_wrapper.get('levels', {})) == (kind == 'labels')


def test_a_gain_counts_if_it_is_larger_than_what_seeds_differ_by(tool):
    found = dict(none=Metric([20.0, 24.0]), contrast=Metric([30.0, 33.0]), labels=Metric([18.0, 27.0]))
    won, lost = tool.verdict(found).splitlines()
    assert won == '- contrast: +9.5 points, more than seeds differ: worth a long run.'
    assert lost == '- labels: +0.5 points, no more than seeds differ: leave the loss as it is.'
    (alone,) = tool.verdict(dict(none=Metric([20.0]), worth=Metric([21.0]))).splitlines()
    assert alone == '- worth: +1.0 points with one seed; run more to know.'


def test_runs_and_does_not_repeat_what_is_known(tool, tmp_path, monkeypatch, capsys):
    cfg = shrink(load_config(CONFIG))
    cfg.train_dataloader.pop('num_batch_per_epoch')
    cfg.train_dataloader.dataset.dataset.indices = cfg.finetune_dataset.dataset.indices = 120
    path = tmp_path / 'small.py'
    cfg.dump(path)
    arguments = [str(path), '--steps', '20', '--weights', 'labels', '--seeds', '0', '--out', str(tmp_path / 'out')]
    tool.main(arguments)
    known = json.loads((tmp_path / 'out' / 'potential.json').read_text())
    assert {*known['linear_top1']} == {'none', 'labels'} and '- labels: ' in capsys.readouterr().out

    monkeypatch.setattr(tool, 'measure', lambda cfg, seed: 99.0)
    tool.main([*arguments, '--seeds', '0', '1'])
    again = json.loads((tmp_path / 'out' / 'potential.json').read_text())['linear_top1']
    assert again['none'] == dict(known['linear_top1']['none'], **{'1': 99.0})
    with pytest.raises(SystemExit):
        tool.main([*arguments, '--steps', '30'])
    assert 'is of other settings' in capsys.readouterr().err


def test_only_plain_mae_is_varied(tool, tmp_path, capsys):
    path = tmp_path / 'guided.py'
    Config(dict(model=dict(type='mmmlo.GuidedMAE'))).dump(path)
    with pytest.raises(SystemExit):
        tool.main([str(path)])
    assert 'model.type is mmmlo.GuidedMAE, not plain mmmlo.MAE' in capsys.readouterr().err
