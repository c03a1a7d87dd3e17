"""tools/gpu_check.py: how it goes on, what it says, and the whole list at a tiny size; and the images that are packed."""

import json
import os.path as osp
import subprocess
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture
def check(load_tool, monkeypatch, tmp_path):
    """Call it with stand-ins for the steps; ``check(results, *arguments)`` returns the exit status, steps run and state."""
    module = load_tool('gpu_check.py', status=2)

    def call(results, *arguments):
        ran = []

        def run_step(step, args, seconds, left):
            ran.append(step.name)
            assert 0 < seconds <= step.seconds and seconds <= left
            return results.get(step.name, dict(verdict='passed', reason='', figures={'x': 1}, seconds=0.1))

        monkeypatch.setattr(module, 'run_step', run_step)
        monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--out', str(tmp_path), *arguments])
        status = module.main()
        return status, ran, json.loads((tmp_path / 'gpu_check.json').read_text()), (tmp_path / 'gpu_check.md').read_text()

    return call


def test_a_call_goes_on_where_the_last_one_ended(check):
    status, ran, state, report = check({'study': None}, '--data', 'images')
    assert status == 3 and ran[-1] == 'study' and 'study' not in state['results']
    assert state['results']['released']['reason'] == 'needs --released'
    assert '| f speed | **passed** | 5 of 6 passed |' in report and '| i study | **not reached** |' in report
    failed = dict(verdict='failed', reason='a | b', figures={}, seconds=3)
    status, ran, _, report = check({'study': failed}, '--data', 'images')
    assert status == 1 and ran == ['study'] and '| i study | **failed** |' in report and 'failed: a / b' in report


def test_what_the_time_does_not_reach_is_said(check):
    status, ran, state, report = check({}, '--minutes', '1', '--parts', 'abc')
    assert status == 0 and ran and '## d' not in report  # a stand-in takes no time
    state['results'].clear()
    status, ran, _, report = check({}, '--minutes', '2', '--piece', '0.1', '--parts', 'i', '--data', 'images')
    assert status == 3 and not ran and '| i study | **not reached** |' in report


def test_a_cpu_leaves_out_what_needs_a_gpu(check):
    _, ran, state, report = check({}, '--cpu')
    assert 'against cpu fp16' not in ran and state['results']['against cpu fp16']['verdict'] == 'not possible here'
    assert '| c against the CPU | **passed** | 2 of 3 passed |' in report and 'study' in ran


def test_wrong_parts_are_named(check, capsys):
    with pytest.raises(SystemExit):
        check({}, '--parts', 'az')
    assert '--parts: there is no z; parts are a, b' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_list_without_a_gpu(tmp_path):
    """In under eight minutes on two cores that do nothing else; where they do, it goes on in further pieces."""
    command = [sys.executable, osp.join(ROOT, 'tools/gpu_check.py'), '--cpu', '--out', 'out']
    while (status := subprocess.run(command, cwd=tmp_path).returncode) == 3:
        pass
    assert status == 0
    results = json.loads((tmp_path / 'out/gpu_check.json').read_text())['results']
    assert {result['verdict'] for result in results.values()} == {'passed', 'not possible here'}
    passed = {name for name, result in results.items() if result['verdict'] == 'passed'}
    assert passed >= {'environment', 'resume deterministic', 'processes all', 'loaders', 'operators', 'detector', 'study'}


def test_images_are_packed_class_by_class_until_the_space_is_used(load_tool, labelled_folder, tmp_path):
    module = load_tool('gpu_pack.py', status=2)
    files = [path for path in labelled_folder.rglob('*.png')]
    space = sum(path.stat().st_size for path in files) // 2
    count = module.pack_images(str(labelled_folder), str(tmp_path), space)
    counts = [len(list(folder.iterdir())) for folder in tmp_path.glob('*/*')]
    assert sum(counts) == count < len(files) and len(counts) == 6 and max(counts) - min(counts) <= 2
    with pytest.raises(ValueError, match='has no train/<class>'):
        module.pack_images(str(tmp_path / 'train'), str(tmp_path / 'other'), space)
