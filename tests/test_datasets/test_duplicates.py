from mmmlo.datasets import duplicates
from mmmlo.datasets.duplicates import shared_files


def test_files_are_compared_by_their_bytes(tmp_path):
    contents = dict(a=b'one', b=b'two', c=b'one', d=b'three', e=b'two', f=b'six')
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    train, test = ([str(tmp_path / name) for name in names] for names in ('abd', 'cef'))
    assert shared_files(train, test) == [(train[0], test[0]), (train[1], test[1])]
    assert shared_files(train, []) == shared_files([], test) == []


def test_only_files_of_sizes_in_both_are_read(tmp_path, monkeypatch):
    read = []
    hash_file = duplicates._hash_file
    monkeypatch.setattr(duplicates, '_hash_file', lambda path: read.append(path) or hash_file(path))
    paths = {name: str(tmp_path / name) for name in ('long', 'short', 'other')}
    for name in paths:
        (tmp_path / name).write_text(name)
    assert shared_files([paths['long'], paths['short']], [paths['other']]) == []
    assert sorted(read) == sorted([paths['short'], paths['other']])
