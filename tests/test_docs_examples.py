"""The examples in docs/examples run as they stand, stay short, and find what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / 'docs' / 'examples'
SCRIPTS = sorted(EXAMPLES.glob('*.py'))


def run(name: str, *arguments: str) -> str:
    """What an example prints."""
    # What is tested is this checkout, whatever mmmlo is installed.
    folders = [str(EXAMPLES.parents[1]), *filter(None, sys.path)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(folders))
    command = [sys.executable, str(EXAMPLES / f'{name}.py'), *arguments]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers where a pattern has a #."""
    found = re.findall(pattern.replace('#', r'([\d.]+(?:e[+-]\d+)?)'), text)
    assert found, f'{pattern!r} is not in\n{text}'
    return [float(number) for number in found]


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_is_short_and_listed(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) < 60
    assert f'({path.name})' in (EXAMPLES / 'README.md').read_text(encoding='utf-8')


def test_there_are_three():
    assert len(SCRIPTS) == 3


def test_ridge_hyperparameters():
    text = run('ridge_hyperparameters')
    (exact,) = numbers(text, '100 CG steps for the inverse Hessian: relative error #')
    (fair,) = numbers(text, '20 CG steps for the inverse Hessian: relative error #')
    (rough,) = numbers(text, 'identity for the inverse Hessian: relative error #')
    assert exact < 1e-8 < fair < 0.1 < rough
    losses = numbers(text, 'validation loss #')
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.75 * losses[0]


def test_reweight_noisy_digits():
    text = run('reweight_noisy_digits', '0', '1', '2')
    assert numbers(text, 'seed #') == [0, 1, 2]
    equal, alone, learned = (
        numbers(text, pattern) for pattern in ('without reweighting #', 'samples alone #', ', with reweighting #')
    )
    assert mean(learned) > mean(equal) + 0.2
    # Otherwise the clean samples would do, and the noisy ones with their weights add nothing.
    assert mean(learned) > mean(alone) + 0.02
    assert min(numbers(text, 'right labels #')) > 0.7 and max(numbers(text, 'wrong labels #')) < 0.2


def test_three_levels():
    text = run('three_levels')
    assert max(numbers(text, 'relative error to plain autograd #')) < 1e-10
    losses = dict(zip(numbers(text, 'iteration #'), numbers(text, 'validation loss #')))
    # While the weights are equal the classes are told no better than by chance, whose loss is log 2 = 0.69.
    assert min(losses[100], losses[200]) > 0.6
    assert losses[500] < 0.1
    told, others = numbers(text, 'tell the class #')[-1], numbers(text, 'of others #')[-1]
    assert told > 0.8 and others < 0.5
