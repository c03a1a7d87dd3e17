import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mmmlo.utils.errors import MmmloError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('report', ROOT / 'tools' / 'report.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def work_dir(tmp_path):
    data = tmp_path / 'run' / '20260102_030405' / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text('{"loss": 1.0, "epoch": 1, "iter": 5, "step": 5, "time": 0.1}\n')
    return tmp_path / 'run'


def test_the_page_lies_in_the_work_dir(script, work_dir, capsys):
    script.main([str(work_dir)])
    assert capsys.readouterr().out == f'Written: {work_dir}/report.html\n'
    assert '<title>run – mmmlo</title>' in (work_dir / 'report.html').read_text()


def test_a_run_that_goes_on_is_read_again(script, work_dir, monkeypatch):
    out, log = work_dir / 'page.html', next(work_dir.glob('*/vis_data/scalars.json'))
    seen = []

    def sleep(seconds):
        seen.append((seconds, 'content="7"' in out.read_text(), 'iteration 9' in out.read_text()))
        if len(seen) == 2:
            raise KeyboardInterrupt
        with log.open('a') as file:
            file.write('{"loss": 1.0, "epoch": 2, "iter": 9, "step": 9, "time": 0.1}\n')

    monkeypatch.setattr(script.time, 'sleep', sleep)
    script.main([str(work_dir), '--watch', '7', '--out', str(out)])
    assert seen == [(7, True, False), (7, True, True)]
    assert 'http-equiv="refresh"' not in out.read_text()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['absent'], 'there is no folder absent'),
        (['.'], 'no work dir of a run'),
        (['run', '--out', 'absent/page.html'], '--out absent/page.html: name a file in a folder that is there'),
        (['run', '--out', 'run'], '--out run: name a file'),
        (['run', '--results', 'absent.json'], 'no file absent.json'),
    ],
)
def test_one_line_for_what_is_wrong(script, work_dir, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    if arguments == ['.']:
        monkeypatch.chdir(next(work_dir.glob('*/vis_data')))
    with pytest.raises(MmmloError) as error:
        script.main(arguments)
    assert words in str(error.value)
    assert not list(tmp_path.rglob('*.html'))


@pytest.mark.slow
def test_collapsed_and_healthy_masks_are_told_apart(script, tmp_path):
    """Two trainings of 68 steps: the masker's rate of the released script, and masks drawn in proportion to the scores."""
    config = 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py'
    for name, option in (('fast', 'optim_wrapper.levels.masking.optimizer.lr=1e-3'), ('drawn', 'model.temperature=1')):
        command = [sys.executable, 'tools/train.py', config, '--work-dir', str(tmp_path / name), '--no-validate']
        subprocess.run([*command, '--cfg-options', 'train_cfg.max_epochs=4', option], cwd=ROOT, check=True, timeout=300)
    script.main([str(tmp_path)])
    shown = (tmp_path / 'report.html').read_text()
    drawn, fast = shown.split('class="verdict"')[1:3]
    assert '>healthy:<' in drawn and '>collapsing:<' in fast and 'Try a lower optim_wrapper.levels.masking' in fast
    assert shown.count('"rows":12') == 2
