"""Wrong configs are in tests/test_reliability/test_wrong_configs.py; here is what must not be complained of."""

import glob
import os.path as osp

import pytest
from mmengine.config import Config

from mmmlo.launch.config import load_config
from mmmlo.preflight.check_config import find_config_problems

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIGS = [
    path
    for path in sorted(glob.glob(osp.join(ROOT, 'configs', '**', '*.py'), recursive=True))
    if f'{osp.sep}_base_{osp.sep}' not in path
]


@pytest.mark.parametrize('step', [10, pytest.param(1, marks=pytest.mark.slow)])
def test_all_configs_of_the_project_pass(step):
    assert len(CONFIGS) > 50
    problems = {path: find_config_problems(load_config(path)) for path in CONFIGS[::step]}
    assert {path: [str(problem) for problem in found] for path, found in problems.items() if found} == {}


@pytest.mark.parametrize(
    'cfg',
    [
        # Variables of a config's own; several evaluators.
        dict(split={}, data_root='x', optimizer={}, train_split={}, val_evaluator_full=[], runtime='x', hooks=3),
        dict(fp16=None),
        # A frozen part of another framework, by the scope of its base.
        dict(model=dict(type='VisionTransformer', _scope_='mmpretrain', arch='b')),
        # A mode, not a type.
        dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', up_cfg=dict(type='conv'))),
        # Arguments of the averaged model, which the hook's signature does not have.
        dict(custom_hooks=[dict(type='mmengine.EMAHook', momentum=0.1, priority='LOW')]),
        # Of the optimizer's groups, and of a constructor that reads them.
        dict(optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1), paramwise_cfg=dict(custom_keys=dict(head=dict(betas=(0, 1)))))),
        dict(optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1), constructor='mmmlo.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5))),
        dict(
            optim_wrapper=dict(
                type='AmpOptimWrapper', loss_scale=1., optimizer=dict(type='SGD', lr=1, momentum=0.9),
                clip_grad=dict(type='value', clip_value=1)),
            train_cfg=dict(by_epoch=False, max_iters=10, val_interval=5),
            param_scheduler=[dict(type='PolyLR', power=1, begin=0, end=10, by_epoch=False)]),
        # Iterations of an upper level are its own steps, and epochs of a run in iterations are not known.
        dict(
            train_cfg=dict(by_epoch=False, max_iters=10),
            param_scheduler=dict(type='CosineAnnealingLR', T_max=50, convert_to_iter_based=True)),
    ],
)
def test_what_is_right_passes(cfg):
    assert [str(problem) for problem in find_config_problems(Config(cfg))] == []


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('check_config.py')


def test_the_command_says_what_it_found(tool, tmp_path, capsys):
    config = osp.join(ROOT, 'configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py')
    assert tool.main([config]) == 0
    assert capsys.readouterr().out == f'{config}: nothing wrong was found.\n'
    assert tool.main([config, '--cfg-options', 'train_cfg.max_epochs=4']) == 0
    assert 'warning: param_scheduler.1.end: it ends at 20, and the run has 4 epochs' in capsys.readouterr().out
    assert tool.main([config, '--cfg-options', 'train_cfg.max_epoch=4']) == 1
    assert capsys.readouterr().out.startswith('PROBLEM: train_cfg.max_epoch: ResumableTrainLoop has no such field')
    (tmp_path / 'torn.py').write_text('model = dict(')
    with pytest.raises(SystemExit) as error:
        tool.main([str(tmp_path / 'torn.py')])
    assert error.value.code == 2
    assert 'torn.py cannot be read: SyntaxError' in capsys.readouterr().err
