"""The documentation builds without a warning, and what it names is there."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import copy
from statistics import mean

import pytest

from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.preflight.check_config import check_config

ROOT = Path(__file__).resolve().parents[1]
# The changelog may name what is gone.
NAMING = sorted(path for path in ROOT.glob('*.md') if path.name != 'CHANGELOG.md') + sorted(
    [*ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/**/README.md'), *ROOT.glob('configs/*/metafile.yml')]
)
FILE = re.compile(r'(?<![\w/.*-])(?:configs|docs|mmmlo|requirements|tests|tools)/[\w./-]+\.(?:md|py|sh|txt|yml)\b')
NAME = re.compile(r'(?<![\w/.-])mmmlo((?:\.\w+)+)')


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-c', source / 'docs', source, out]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_builds(tmp_path):
    result = build(ROOT, tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'href="install.html"' in (tmp_path / 'docs' / 'index.html').read_text(encoding='utf-8')
    reference = (tmp_path / 'docs' / 'api' / 'mmmlo.models.selfsup.mlo_mae.html').read_text(encoding='utf-8')
    assert 'id="mmmlo.models.selfsup.mlo_mae.MLOMAE.level_loss"' in reference


def test_the_build_finds_broken_links(tmp_path):
    (tmp_path / 'docs').mkdir()
    copy(ROOT / 'docs' / 'conf.py', tmp_path / 'docs')
    readme = '---\norphan: true\n---\n# Top\n\n[the index](docs/index.md#two-words)\n'
    (tmp_path / 'README.md').write_text(readme, encoding='utf-8')
    good = '# Index\n\n## Two `words`\n\n[up](../README.md) [site](https://example.org/x) [here](#index)\n'
    (tmp_path / 'docs' / 'index.md').write_text(good, encoding='utf-8')
    result = build(tmp_path, tmp_path / 'site')
    assert result.returncode == 0, result.stderr

    planted = '[x](gone.md) ![x](images/gone.png) [x](#gone) [x](../README.md#gone)\n'
    (tmp_path / 'docs' / 'index.md').write_text(f'{good}\n{planted}', encoding='utf-8')
    result = build(tmp_path, tmp_path / 'site')
    assert result.returncode != 0 and result.stderr.count('WARNING') == 4, result.stderr


def unknown(text: str) -> list[str]:
    """What a text names and the project does not have: files, and ``mmmlo`` names."""
    sources = [*(ROOT / 'mmmlo').rglob('*.py')]
    modules = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__') for path in sources}
    definition = re.compile(r'^\s*(?:class|def) (\w+)|^(\w+)(?::[^=]*)? =', re.MULTILINE)
    defined = {name for path in sources for match in definition.findall(path.read_text(encoding='utf-8')) for name in match}

    def known(dotted: str) -> bool:
        parent, name = f'mmmlo{dotted}'.rsplit('.', 1)
        return f'{parent}.{name}' in modules or (name in defined and parent in {'mmmlo', *modules})

    names = [f'mmmlo{dotted}' for dotted in NAME.findall(text) if not known(dotted)]
    return [file for file in FILE.findall(text) if not (ROOT / file).exists()] + names


@pytest.mark.parametrize('path', NAMING, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_what_is_there(path):
    assert unknown(path.read_text(encoding='utf-8')) == []


def test_finds_names_that_are_gone():
    planted = 'configs/mae/gone.py `mmmlo.Gone` `mmmlo.gone.MAE` `mmmlo.models.Gone` mmmlo.MAE tests/test_docs.py'
    assert unknown(planted) == ['configs/mae/gone.py', 'mmmlo.Gone', 'mmmlo.gone.MAE', 'mmmlo.models.Gone']


def test_the_zoo_has_the_metafiles_and_what_was_measured():
    zoo = runpy.run_path(str(ROOT / 'docs' / 'zoo.py'))['page']()
    assert (ROOT / 'docs' / 'model_zoo.md').read_text(encoding='utf-8') == zoo, 'run python docs/zoo.py'
    measured = json.loads((ROOT / 'docs' / 'results' / 'cluttered_digits.json').read_text())['methods']
    told = re.findall(r'\[([a-z-]+)_vit-nano-p4_1xb128-coslr-188e_cluttered-digits\].*Linear Top 1 Accuracy ([\d.]+)', zoo)
    assert len(told) > 2 and zoo.count('Accuracy') == len(told)  # no other results are known
    for method, value in told:
        assert round(mean(measured[method]['linear_top1']), 1) == float(value)


def commands() -> list[tuple[str, list[str]]]:
    """Tools of Python and their arguments, of all blocks of shell commands, whatever starts them."""
    found = set()
    for path in NAMING:
        for block in re.findall(r'```(?:shell|bash|console)\n(.*?)```', path.read_text(encoding='utf-8'), re.DOTALL):
            block = block.replace('\\\n', ' ')
            for name, value in re.findall(r'^(\w+)=(\S+)$', block, re.MULTILINE):
                block = re.sub(rf'\${name}\b|\${{{name}}}', value, block)
            block = re.sub(r'bash tools/dist_train\.sh (\S+) \S+', r'python tools/train.py \1 --launcher pytorch', block)
            block = re.sub(r'torchrun --nproc\S+ \d+ ', 'python ', block).replace('-m mmmlo train ', 'tools/train.py ')
            found |= set(re.findall(r'(?:^|\s)python (tools/[\w/]+\.py[^[\n]*)$', block, re.MULTILINE))
    return [(words[0], words[1:]) for words in (shlex.split(command, comments=True) for command in sorted(found))]


def test_the_tools_take_the_commands_of_the_documentation(load_tool, monkeypatch, capsys):
    """Their options, and their configs with what is changed in them; that data, checkpoints and checkouts are not there is
    no matter."""
    tools, several = {}, commands()
    assert len(several) > 60
    refused = []
    for tool, arguments in several:
        tools[tool] = tools.get(tool) or load_tool(tool.removeprefix('tools/'))
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        try:
            args = getattr(tools[tool], 'parse_args', list)()  # a script without options parses none
        except SystemExit as stop:
            said = capsys.readouterr().err
            if stop.code and not re.search('does not exist|must be a checkout|neither a config file', said, re.IGNORECASE):
                refused.append(f'python {tool} {" ".join(arguments)}: {said}')
            continue
        config = str(getattr(args, 'config', ''))
        if config.startswith('configs/') and '$' not in config:
            assert (ROOT / config).is_file(), config
            if getattr(args, 'cfg_options', None):
                check_config(load_config(str(ROOT / config), args.cfg_options))
    assert not refused, '\n'.join(refused)


def changed_configs() -> dict[str, list[str]]:
    """What commands of tools/train.py change in configs of the project, but for what needs a run's checkpoint.

    Nor numbers of classes: what stands in for data that are not there has ten.
    """
    changed = [arguments for tool, arguments in commands() if tool == 'tools/train.py' and '--cfg-options' in arguments]
    return {
        ' '.join(words): words
        for words in changed
        if words[0].startswith('configs/') and not re.search(r'RUN\.pth|num_classes', ' '.join(words))
    }


@pytest.mark.slow  # configs as they are run in test_configs.py
@pytest.mark.parametrize('arguments', changed_configs().values(), ids=changed_configs())
def test_commands_that_change_a_config_train(arguments, load_tool, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', *arguments])
    args = load_tool('train.py').parse_args()
    cfg = shrink(load_config(str(ROOT / args.config), args.cfg_options))
    cfg.work_dir, cfg.experiment_name = str(tmp_path), tmp_path.name
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 4


def test_the_walk_names_each_file_once():
    files = FILE.findall((ROOT / 'docs' / 'walk.md').read_text(encoding='utf-8'))
    assert len(files) > 20 and len(set(files)) == len(files)
