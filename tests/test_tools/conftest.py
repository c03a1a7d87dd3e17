"""What the tests of the tools share."""

import sys

import pytest


@pytest.fixture
def refusal(script, monkeypatch, capsys):
    """Call the module's ``script``, which has to refuse with one line before it does anything; returns the line."""

    def call(*arguments) -> str:
        monkeypatch.setattr(sys, 'argv', ['script.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            script.main()
        output = capsys.readouterr()
        assert (stopped.value.code, output.out, output.err.count('\n')) == (2, '', 1)
        return output.err

    return call
