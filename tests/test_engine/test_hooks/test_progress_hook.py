from types import SimpleNamespace

import pytest

from mmmlo.engine import ProgressHook
from mmmlo.utils import progress


@pytest.fixture
def lines(monkeypatch):
    """What is said, by a clock that goes on ten seconds each time that it is asked."""
    found, seconds = [], iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress, 'print_log', lambda line, logger: found.append(line))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(seconds))
    return found


def test_training_validation_and_test_are_told_apart(lines):
    runner = SimpleNamespace(iter=100, max_iters=109, val_dataloader=range(4), test_dataloader=range(5))
    hook = ProgressHook()
    hook.before_train(runner)
    for runner.iter in range(100, 109):
        hook.after_train_iter(runner, 0)
    assert lines == [f'training: {n}/109 ({n / 1.09:.0f} %), 0.1/s, {left} left' for n, left in (
        (103, '01:00'), (106, '00:30'), (109, '00:00'))]
    lines.clear()
    for stage, count in (('val', 4), ('test', 5)):
        getattr(hook, f'before_{stage}_epoch')(runner)
        for i in range(count):
            getattr(hook, f'after_{stage}_iter')(runner, i)
    assert lines == ['validation: 3/4 (75 %), 0.1/s, 00:10 left', 'test: 3/5 (60 %), 0.1/s, 00:20 left']
