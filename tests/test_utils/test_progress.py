import re
import sys

import pytest

from mmmlo.utils import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: ``clock.now``."""
    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, 'monotonic', lambda: Clock.now)
    return Clock


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(progress, 'print_log', lambda line, logger: found.append(line))
    return found


def test_a_line_every_thirty_seconds_with_rate_and_time_left(clock, lines, capsys):
    for _ in progress.track(range(100), 'images'):
        clock.now += 11
    # After 3, 6, 9, ... of them 33 s have passed.
    assert len(lines) == 33 and lines[0] == 'images: 3/100 (3 %), 0.0909/s, 17:47 left'
    assert lines[-1] == 'images: 99/100 (99 %), 0.0909/s, 00:11 left' and capsys.readouterr().err == ''


def test_what_was_done_before_does_not_count_for_the_rate(clock, lines):
    tell = progress.progress('training', start=500)
    clock.now += 40
    tell(520, 600)
    assert lines == ['training: 520/600 (87 %), 0.5/s, 02:40 left']


def test_a_terminal_gets_a_bar(clock, lines, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    assert [*progress.track([1, 2, 3], 'images')] == [1, 2, 3]
    assert re.search(r'images: +0%.* 0/3 ', capsys.readouterr().err) and lines == []
    tell = progress.progress('training', bar=False)
    clock.now += 40
    tell(1, 2)
    assert len(lines) == 1 and capsys.readouterr().err == ''
