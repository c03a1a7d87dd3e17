import os

import pytest

from mmmlo.utils.whole_file import write_whole


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / 'file.txt'
    for text in ('first', 'zweite Zeile: äöü\n'):
        write_whole(str(path), text)
        assert path.read_text(encoding='utf-8') == text
    assert os.listdir(tmp_path) == ['file.txt']


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError('disk full')

    path = tmp_path / 'file.txt'
    write_whole(str(path), 'old')
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='disk full'):
        write_whole(str(path), 'new')
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file.txt']
