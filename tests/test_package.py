import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mmmlo

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 'mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'
REQUIREMENTS = sorted((ROOT / 'requirements').glob('*.txt'))


def run(*arguments: str) -> subprocess.CompletedProcess:
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


def test_import_is_light():
    result = run('-W', 'error', '-c', 'import sys, mmmlo, mmmlo.utils, mmmlo.compat; print(*sys.modules)')
    assert result.returncode == 0, result.stderr
    loaded = result.stdout.split()
    assert 'mmmlo.compat' in loaded
    assert not {'torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmpretrain'}.intersection(loaded)


def test_everything_missing_is_said_in_one_warning():
    result = run('-S', '-c', 'import mmmlo; print(mmmlo.__version__)')  # -S: without site-packages
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == mmmlo.__version__
    assert result.stderr.count('RuntimeWarning') == 1
    assert 'missing: torch, mmengine, mmcv, mmpretrain.' in result.stderr
    assert 'bash tools/install.sh' in result.stderr


def test_only_what_is_missing_is_named():
    result = run(
        '-c', 'import importlib.util as util\n'
        'find = util.find_spec\n'
        "util.find_spec = lambda name, *args: None if name == 'mmpretrain' else find(name, *args)\n"
        'import mmmlo')
    assert 'missing: mmpretrain.' in result.stderr


def test_version_is_the_same_everywhere():
    declared = runpy.run_path(str(ROOT / 'mmmlo' / 'version.py'))['__version__']
    assert mmmlo.__version__ == declared
    assert run('setup.py', '--quiet', '--version').stdout.split()[-1] == declared
    assert re.search(rf'^## \[.*{re.escape(declared)}', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)


def test_metadata(tmp_path):
    result = run('setup.py', '--quiet', 'egg_info', '--egg-base', str(tmp_path))
    assert result.returncode == 0, result.stderr
    dist = metadata.Distribution.at(tmp_path / 'mmmlo.egg-info')
    assert dist.metadata['Name'] == 'mmmlo'
    assert (dist.metadata['License-Expression'] or dist.metadata['License']) == 'Apache-2.0'
    assert dist.metadata['Requires-Python'] == '>=3.10'
    required = [Requirement(line) for line in dist.requires]
    assert {req.name for req in required if req.marker is None} == {req.name for req in requirements('runtime.txt')}
    extras = {
        extra: {req.name
                for req in required if req.marker and req.marker.evaluate({'extra': extra})}
        for extra in ('tests', 'docs', 'browser', 'all')
    }
    assert extras['tests'] == {req.name for req in requirements('tests.txt')}
    assert extras['all'] == extras['tests'] | extras['docs'] | extras['browser']
    assert not any(re.match(r'(onedl-)?mm', req.name) for req in required)


@pytest.mark.parametrize('path', REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_parse(path):
    assert requirements(path.name)


@pytest.mark.parametrize('name', ['mminstall.txt', 'torch.txt'])
def test_frameworks_are_pinned(name):
    for requirement in requirements(name):
        assert re.fullmatch(r'==[\d.]+', str(requirement.specifier)), requirement


def listed(folder: str) -> set[str]:
    """Files of a folder that are under version control, or would be."""
    command = ['git', 'ls-files', '-co', '--exclude-standard', folder]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split())


def test_a_wheel_has_the_configs_and_tools(tmp_path):
    source, site = tmp_path / 'source', tmp_path / 'site'
    for name in ('mmmlo', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', 'CHANGELOG.md', 'pyproject.toml', 'model-index.yml'):
        shutil.copy(ROOT / name, source)
    result = run('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(tmp_path), str(source))
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        wheel.extractall(site)
    found = {str(path.relative_to(site / 'mmmlo/.mim')) for path in (site / 'mmmlo/.mim').rglob('*') if path.is_file()}
    of_checkout = re.compile(r'tools/(install|quickstart\.sh|run_tests|wheel_check)')
    assert (site / 'mmmlo/visualization/report/page.html').is_file()
    expected = {path for path in listed('configs') | listed('tools') if not of_checkout.match(path)}
    assert found == expected | {'model-index.yml'}

    (tmp_path / 'own.py').write_text(f"_base_ = 'mmmlo::{DIGITS}'\nmodel = dict(mask_ratio=0.5)\n")
    result = subprocess.run(
        [sys.executable, '-m', 'mmmlo', 'check_config', 'own.py'], cwd=tmp_path, capture_output=True, text=True,
        env=dict(os.environ, PYTHONPATH=str(site)))
    assert (result.returncode, result.stdout) == (0, 'own.py: nothing wrong was found.\n'), result.stderr


def test_every_folder_of_configs_with_a_metafile_is_in_the_index():
    index = (ROOT / 'model-index.yml').read_text()
    assert re.findall(r'- (\S+)', index) == sorted(path for path in listed('configs') if path.endswith('metafile.yml'))


def test_every_folder_with_code_is_packaged():
    folders = {path.parent for path in (ROOT / 'mmmlo').rglob('*.py')}
    assert {folder for folder in folders if not (folder / '__init__.py').exists()} == set()


def test_no_folder_imports_one_above_it():
    lint = Path(sys.executable).with_name('lint-imports')
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
