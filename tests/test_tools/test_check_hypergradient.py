"""tools/check_hypergradient.py: every pretraining config passes, and what is wrong does not."""

import glob
import json
import os
import os.path as osp
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmmlo.engine import ForwardMode
from mmmlo.launch.config import load_config
from mmmlo.registry import HYPERGRADIENTS

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
SCRIPT = osp.join(ROOT, 'tools', 'check_hypergradient.py')
CONFIGS = sorted(glob.glob(osp.join(ROOT, 'configs', 'mlo_mae', '*.py')))
RIDGE = osp.join(ROOT, 'configs', 'mlo_mae', 'mlo-mae-ridge_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py')
DIGITS = osp.join(ROOT, 'configs', 'mlo_mae', 'mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')


@pytest.fixture(scope='module')
def tool(load_tool):
    """The script as a module."""
    yield load_tool('check_hypergradient.py')
    HYPERGRADIENTS.module_dict.pop('_ExactSolve')


@pytest.fixture(autouse=True)
def quick(tool, monkeypatch):
    """Less training than the command's."""
    monkeypatch.setattr(tool, 'CYCLES', 1)


@pytest.fixture
def run(tool, tmp_path):
    """The exit status and the report; ``run(*arguments, config=DIGITS)``."""

    def call(*arguments, config=DIGITS):
        path = tmp_path / 'report.json'
        status = tool.main([config, '--json', str(path), *arguments])
        return status, json.loads(path.read_text())

    return call


@pytest.mark.parametrize('config', CONFIGS, ids=osp.basename)
def test_every_config_passes(run, config, capsys):
    status, report = run(config=config)
    assert status == 0
    paths = list(load_config(config).optim_wrapper.levels.masking.paths)
    assert [row['paths'] for row in report['rows']] == [[path] for path in paths] + ([paths] if len(paths) > 1 else [])
    for row in report['rows']:
        assert row['cosine'] == pytest.approx(1)
        assert row['relative_error'] < 1e-10
        assert min(row['ms'], row['reference_ms'], row['peak_mib'], row['reference_peak_mib']) > 0
    text = capsys.readouterr().out
    assert 'masking: PASSED' in text
    if config == DIGITS:  # scikit-learn brings its images
        assert report['data'] == "mmmlo.Digits, the config's own"
    elif 'cluttered-digits' not in config and not glob.glob(osp.join(ROOT, 'data', '*')):
        assert 'data: synthetic images, because data/' in text


def test_as_a_command(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT, DIGITS, '--json', '-', '--dtype', 'float32', '--seed', '5'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)  # and nothing else stands there
    assert report['config'] == DIGITS
    lowers = ('pretrain', 'finetune')
    assert report['estimators'] == dict(masking=dict.fromkeys(lowers, dict(type='mmmlo.ForwardMode')))
    dense = dict(type='mmmlo.DoubleBackward', precondition='identity')
    assert report['references'] == dict(masking=dict.fromkeys(lowers, dense))
    assert (report['dtype'], report['seed'], report['torch']) == ('float32', 5, torch.__version__)
    assert report['device']
    assert report['passed'] == dict(masking=True)
    assert [row['passed'] for row in report['rows']] == [True] * 3
    assert all(1e-9 < row['relative_error'] < 1e-4 for row in report['rows'])
    assert 'masking: PASSED' in result.stderr
    assert not list(tmp_path.iterdir())


class Flipped(ForwardMode):
    """The wrong sign."""

    def product(self, *args):
        return [None if p is None else -p for p in super().product(*args)]


class Random(ForwardMode):
    """Anything."""

    def product(self, *args):
        return [None if p is None else torch.randn_like(p) for p in super().product(*args)]


class NotANumber(ForwardMode):
    """Overflow."""

    def product(self, *args):
        return [None if p is None else p * torch.nan for p in super().product(*args)]


@pytest.mark.parametrize('broken', [Flipped, Random, NotANumber])
def test_a_broken_estimator_fails(run, broken, capsys):
    HYPERGRADIENTS.register_module(name='Broken', module=broken)
    try:
        status, report = run('--estimator', 'Broken')
    finally:
        HYPERGRADIENTS.module_dict.pop('Broken')
    assert status == 1
    assert report['passed'] == dict(masking=False)
    first, second, _ = (row['cosine'] for row in report['rows'])
    if broken is Flipped:
        # One sign for each edge.
        assert (first, second) == pytest.approx((-1, 1))
    elif broken is Random:
        assert max(abs(first), abs(second)) < 0.3
    else:
        assert first is second is None
    assert 'masking: FAILED' in capsys.readouterr().out


def test_a_step_that_is_too_long_fails(run):
    worst = {}
    for alpha, expected in ((1e-3, 0), (10, 1)):
        status, report = run('--estimator', f'type=mmmlo.FiniteDifference,alpha={alpha}', '--dtype', 'float32')
        assert status == expected
        worst[alpha] = max(row['relative_error'] for row in report['rows'])
    assert worst[1e-3] < 0.01 < 0.1 < worst[10]


def test_bfloat16_is_less_exact(run):
    _, report = run('--dtype', 'bfloat16')
    # How much less is a matter of kernels: where scores are almost equal, rounding may choose other patches.
    assert all(1e-4 < row['relative_error'] < 0.5 for row in report['rows'])


def test_noise_is_the_same_in_every_precision(run):
    """Masks are drawn with Gumbel noise here: other noise would be other masks, and another hypergradient."""
    (config,) = [config for config in CONFIGS if 'conv-masker' in config]
    options = ['--cfg-options', 'model.backbone.drop_path_rate=0.2', 'model.backbone.drop_rate=0.1']
    status, report = run('--dtype', 'float32', *options, config=config)
    assert status == 0
    assert all(row['relative_error'] < 1e-3 for row in report['rows'])


@pytest.mark.parametrize('draw', [torch.rand_like, lambda x: torch.empty_like(x).exponential_(), F.dropout])
def test_draws_do_not_depend_on_the_precision(tool, draw):
    drawn = []
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        with tool.SameDraws():
            drawn.append(draw(torch.ones(50, dtype=dtype)))
        assert drawn[-1].dtype == dtype
    torch.testing.assert_close(drawn[1].double(), drawn[0], rtol=1e-6, atol=1e-6)


def test_preconditioning_by_adam(run, tool, monkeypatch):
    """The reference's optimizers have the same state and remember the same gradients."""
    monkeypatch.setattr(tool, 'CYCLES', 2)  # after a single step, Adam's derivative is zero
    status, report = run('--estimator', 'ForwardMode,precondition=adam')
    assert status == 0
    assert report['references']['masking']['pretrain']['precondition'] == 'adam'
    assert all(row['relative_error'] < 1e-10 for row in report['rows'])


def test_an_inverse_hessian_against_an_exact_solve(run, tool, monkeypatch, capsys):
    status, report = run('--estimator', 'ConjugateGradient,damping=10,steps=10')
    assert status == 0
    assert report['references']['masking']['finetune'] == dict(type='_ExactSolve', damping=10, matrix='hessian')
    assert all(row['relative_error'] < 1e-6 for row in report['rows'])
    status, report = run('--estimator', 'ConjugateGradient,damping=3.0,steps=50,matrix=gauss_newton', config=RIDGE)
    assert status == 0
    assert report['rows'][0]['relative_error'] < 1e-6

    monkeypatch.setattr(tool._ExactSolve, 'most_steps', 10)
    status, report = run('--estimator', 'Neumann')  # of H itself, which is nearly singular
    assert status == 1
    assert all('MINRES reached a residual of' in row['error'] and 'cosine' not in row for row in report['rows'])
    assert 'no reference' in capsys.readouterr().out


def test_the_choice_of_patches_may_be_differentiated(run):
    status, report = run('--cfg-options', 'model.selection_gradient=straight_through', config=RIDGE)
    assert status == 0
    assert report['rows'][0]['relative_error'] < 1e-10


def test_an_estimator_for_each_lower_level(tool):
    cfg = load_config(DIGITS)
    cfg.optim_wrapper.levels.masking.pop('hypergradient')
    cfg.optim_wrapper.levels.masking.hypergradient = dict(
        pretrain=dict(type='mmmlo.FiniteDifference'), finetune=dict(type='mmmlo.ForwardMode')
    )
    report = tool.check(cfg, 'digits', None, 'float64', 0)
    assert report['passed'] == dict(masking=True)
    assert report['references']['masking']['finetune'] == dict(type='mmmlo.DoubleBackward', precondition='identity')
    assert all(1e-12 < row['relative_error'] < 1e-3 for row in report['rows'])
    assert "edges from pretrain: {'type': 'mmmlo.FiniteDifference'} against" in tool.render(report)


def test_minres(tool):
    random = np.random.RandomState(0)
    root = random.randn(30, 30)
    indefinite = root + root.T
    right = random.randn(30)
    solution, residual = tool._minres(lambda x: indefinite @ x, right, 200)
    assert residual < 1e-8
    np.testing.assert_allclose(solution, np.linalg.solve(indefinite, right), rtol=1e-5, atol=1e-7)
    singular = np.diag([1.0, 2.0, 0.0])
    _, residual = tool._minres(lambda x: singular @ x, np.ones(3), 200)
    assert 3**-0.5 <= residual < 1  # the part of the right-hand side that no x gives


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([osp.join(ROOT, 'configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py')], 'has no level with paths'),
        (['absent.py'], 'config absent.py does not exist'),
        ([DIGITS, '--estimator', 'Nothing'], "'mmmlo.Nothing' is unknown; estimators are"),
        ([DIGITS, '--estimator', 'FiniteDifference,alpha=0'], 'alpha must be positive'),
        ([DIGITS, '--estimator', 'ForwardMode,alpha=1'], 'alpha'),
        ([DIGITS, '--dtype', 'float16'], 'invalid choice'),
        ([DIGITS, '--cfg-options', 'optim_wrapper.levels.masking.hypergradient.type=Nothing'], "'Nothing' is unknown"),
    ],
)
def test_wrong_usage(tool, arguments, words, capsys):
    with pytest.raises(SystemExit) as error:
        tool.main(arguments)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    if 'unknown' in words:
        assert "'mmmlo.ConjugateGradient'" in message and '_ExactSolve' not in message
