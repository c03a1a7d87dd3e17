import subprocess

from mmmlo.utils.provenance import git_state, loaded_versions


def git(folder, *arguments):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    subprocess.run(['git', *identity, '-C', str(folder), *arguments], check=True, capture_output=True)


def test_the_state_of_a_repository(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, 'init')
    assert git_state(tmp_path) is None  # without a commit
    (tmp_path / 'a.py').write_text('a')
    git(tmp_path, 'add', 'a.py')
    git(tmp_path, 'commit', '-m', 'a')
    clean = git_state(tmp_path)
    assert len(clean['commit']) == 40 and clean['changed'] == [] and clean['diff_sha256'] is None
    (tmp_path / 'b.py').write_text('b')
    assert git_state(tmp_path) == dict(clean, changed=['?? b.py'])
    (tmp_path / 'a.py').write_text('b')
    changed = git_state(tmp_path)
    assert changed['changed'] == [' M a.py', '?? b.py'] and len(changed['diff_sha256']) == 64
    (tmp_path / 'a.py').write_text('c')
    assert git_state(tmp_path)['diff_sha256'] != changed['diff_sha256']
    for i in range(150):
        (tmp_path / f'{i}.txt').write_text('')
    assert len(git_state(tmp_path)['changed']) == 101 and git_state(tmp_path)['changed'][-1] == 'and 52 more'


def test_without_git(tmp_path, monkeypatch):
    git(tmp_path, 'init')
    monkeypatch.setenv('PATH', str(tmp_path))
    assert git_state(tmp_path) is None


def test_versions_are_of_what_is_imported():
    versions = loaded_versions()
    assert {'python', 'platform', 'mmmlo', 'torch'} <= set(versions)
    assert all(isinstance(version, str) for version in versions.values())
