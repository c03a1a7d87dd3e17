"""The documentation builds, and its build finds what is broken."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / 'docs' / 'build.py'


def test_builds(tmp_path):
    result = subprocess.run([sys.executable, BUILD, '--out', tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / 'docs' / 'index.html').read_text(encoding='utf-8')
    assert 'href="install.html"' in text
    assert (tmp_path / 'README.html').is_file()


@pytest.fixture
def project(tmp_path):
    """A small project without a fault, and the build's functions."""
    files = {
        'README.md': '# Top\n\n[the index](docs/index.md#two-words) ![](docs/images/a.png)\n',
        'docs/index.md': '# Index\n\n## Two `words`\n\n[up](../README.md) [site](https://example.org/x) [here](#index)\n',
        'docs/images/a.png': '',
        'configs/mae/a.py': '',
        'configs/mae/metafile.yml': 'Config: configs/mae/a.py\n',
        'mmmlo/__init__.py': '',
        'mmmlo/models/__init__.py': '',
        'mmmlo/models/mae.py': 'class MAE:\n    pass\n',
        'mmmlo/registry.py': '',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding='utf-8')
    return tmp_path, runpy.run_path(str(BUILD))


def problems_of(project):
    root, build = project
    return build['find_problems'](root, build['find_pages'](root))


def test_no_false_alarm(project):
    root, build = project
    with (root / 'docs' / 'index.md').open('a', encoding='utf-8') as file:
        file.write('\n`mmmlo.MAE`, `mmmlo.models.MAE`, mmmlo.registry. `configs/mae/a.py`, `[not](a-link.md)`\n')
    assert problems_of(project) == []
    build['write'](root, build['find_pages'](root), root / 'site')
    assert 'href="docs/index.html#two-words"' in (root / 'site' / 'README.html').read_text(encoding='utf-8')
    assert (root / 'site' / 'docs' / 'images' / 'a.png').is_file()


@pytest.mark.parametrize(
    ('file', 'planted', 'message'),
    [
        ('docs/index.md', '[x](gone.md)', 'docs/index.md:7: gone.md: there is no such file in the project'),
        ('docs/index.md', '![x](images/gone.png)', 'images/gone.png: there is no such file'),
        ('docs/index.md', '[x](../../outside.md)', 'no such file in the project'),
        ('docs/index.md', '[x](#gone)', 'docs/index.md has no heading #gone'),
        ('README.md', '[x](docs/index.md#gone)', 'docs/index.md has no heading #gone'),
        ('README.md', 'run configs/mae/gone.py', 'there is no configs/mae/gone.py'),
        ('README.md', '`mmmlo.Gone`', 'the source has no mmmlo.Gone'),
        ('README.md', '`mmmlo.gone.MAE`', 'the source has no mmmlo.gone.MAE'),
        ('configs/mae/metafile.yml', 'Config: configs/mae/gone.py', 'there is no configs/mae/gone.py'),
    ],
)
def test_finds_a_planted_fault(project, file, planted, message):
    with (project[0] / file).open('a', encoding='utf-8') as handle:
        handle.write(f'\n{planted}\n')
    problems = problems_of(project)
    assert len(problems) == 1 and message in problems[0]
