"""The scripts of ``tools/``, as far as they go without downloading anything.

``install.sh`` is really run, with an environment in which something is missing. Nothing here can reach its installing
part by mistake: without a compiler it stops before, and pip is told to use no index.
"""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from glob import glob
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'

# What the script calls, and compilers.
PROGRAMS = ('awk', 'bash', 'cat', 'dirname', 'env', 'flock', 'grep', 'head', 'ls', 'mkdir', 'mktemp', 'mv', 'nproc',
            'realpath', 'rm', 'sed', 'sort', 'tail')
COMPILERS = ('c++', 'g++')


class Machine:
    """A machine of which every program is chosen by the test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.programs = folder / 'bin'
        self.programs.mkdir()
        for name in PROGRAMS:
            os.symlink(shutil.which(name), self.programs / name)
        for name in COMPILERS:
            self.program(name, 'exit 0')
        self.venv = folder / 'venv'
        self.env = {
            'PATH': str(self.programs),
            'HOME': str(folder),
            'MMMLO_CACHE': str(folder / 'cache'),
            'MMMLO_VENV': str(self.venv),
            'PIP_NO_INDEX': '1',
            'PYTHON': sys.executable,
            'TMPDIR': str(folder),
        }

    def program(self, name: str, text: str) -> Path:
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!{self.programs}/bash\n{text}\n')
        path.chmod(0o755)
        return path

    def without(self, *names: str) -> None:
        for name in names:
            (self.programs / name).unlink()

    def python(self, text: str) -> None:
        """Put a script before the interpreter. It sees the interpreter's arguments."""
        self.env['PYTHON'] = str(self.program('wrapped-python', f'{text}\nexec {sys.executable} "$@"'))

    def make_venv(self, *distributions: str) -> None:
        """Make the environment, with the metadata of packages such as 'mmcv-2.1.0'."""
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(self.venv)], check=True)
        site_packages = next(self.venv.glob('lib/python*/site-packages'))
        for distribution in distributions:
            name, version = distribution.rsplit('-', 1)
            folder = site_packages / f'{name.replace("-", "_")}-{version}.dist-info'
            folder.mkdir()
            (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')

    def run(self, *arguments: str, script: str = 'install.sh') -> subprocess.CompletedProcess:
        command = [shutil.which('bash'), str(TOOLS / script), *arguments]
        return subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    def refusal(self, *arguments: str) -> str:
        """Run the script, which has to refuse with one clear message before it does anything."""
        before = set(self.folder.rglob('*'))
        result = self.run(*arguments)
        assert result.returncode == 1, result.stdout + result.stderr
        assert result.stdout == ''
        assert result.stderr.startswith('error: ')
        assert result.stderr.count('\n') == 1
        assert set(self.folder.rglob('*')) == before
        return result.stderr


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize('path', [*sorted(TOOLS.glob('**/*.sh')), ROOT / '.ci' / 'run'], ids=lambda path: path.name)
def test_shell_syntax(path):
    result = subprocess.run(['bash', '-n', str(path)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')


def test_a_complete_machine_is_not_refused(machine):
    # It gets as far as pip, which has no index here, and leaves no mark of a finished installation.
    machine.make_venv()
    result = machine.run()
    assert result.returncode == 1
    assert '[1/6]' in result.stdout
    assert 'this failed' in result.stderr
    assert 'the whole output is in' in result.stderr
    assert list(machine.venv.glob('.mmmlo*')) == []


def test_unknown_option(machine):
    assert 'unknown option --vnev' in machine.refusal('--vnev', 'somewhere')


def test_venv_without_folder(machine):
    assert '--venv needs a folder' in machine.refusal('--venv')


def test_venv_and_active(machine):
    assert 'exclude each other' in machine.refusal('--venv', 'somewhere', '--active')


def test_help_names_every_option(machine):
    result = machine.run('--help')
    assert result.returncode == 0
    for word in ('--venv', '--active', '--force', 'PYTHON', 'MMMLO_CACHE', 'MMMLO_VENV'):
        assert word in result.stdout
    assert 'set -euo' not in result.stdout


def test_no_python(machine):
    del machine.env['PYTHON']
    assert 'no python3 here. Install Python 3.10 or newer' in machine.refusal()


def test_old_python(machine):
    machine.env['PYTHON'] = str(machine.program('python3.9', 'echo 3.9'))
    message = machine.refusal()
    assert 'is Python 3.9, and 3.10 or newer is needed' in message
    assert 'PYTHON=/path/to/python' in message


@pytest.mark.parametrize('version', ['3.10', '3.11', '4.0'])
def test_versions_are_not_compared_as_text(machine, version):
    machine.python(f'[[ $1 != -c ]] || {{ echo {version}; exit; }}')
    machine.without(*COMPILERS)
    assert 'compiler' in machine.refusal()


def test_no_compiler(machine):
    machine.without(*COMPILERS)
    assert 'no C++ compiler' in (message := machine.refusal())
    assert 'apt-get install g++' in message


def test_one_compiler_is_enough(machine):
    machine.without('g++')
    machine.python('[[ $* != *"install_probe.py headers" ]] || exit 0')
    assert 'has no headers' in machine.refusal()


def test_no_headers(machine):
    machine.python('[[ $* != *"install_probe.py headers" ]] || exit 0')
    assert 'apt-get install python3-dev' in machine.refusal()


def test_no_ensurepip(machine):
    machine.python('[[ $* != *ensurepip* ]] || exit 1')
    assert 'apt-get install python3-venv' in machine.refusal()


@pytest.mark.parametrize('name', ['mmcv', 'mmcv-lite', 'mmcls', 'mmengine', 'mmpretrain', 'mmsegmentation', 'mmdet'])
def test_upstream_beside_the_fork(machine, name):
    machine.make_venv(f'{name}-2.1.0', 'onedl-mmcv-2.3.6', 'numpy-2.2.6')
    assert machine.refusal().endswith(f'/venv/bin/python -m pip uninstall -y {name} onedl-mmcv\n')


def test_upstream_alone(machine):
    machine.make_venv('mmengine-0.10.7')
    assert machine.refusal().endswith('-m pip uninstall -y mmengine\n')


def test_fork_alone_is_no_conflict(machine):
    machine.make_venv('onedl-mmcv-2.3.6', 'onedl-mmengine-0.10.12')
    machine.without(*COMPILERS)
    assert 'compiler' in machine.refusal()


def test_folder_that_is_no_environment(machine):
    machine.venv.mkdir()
    (machine.venv / 'thesis.tex').touch()
    assert 'exists and is not a virtual environment' in machine.refusal()


def test_active_environment_is_the_target(machine):
    machine.make_venv('mmcv-2.1.0')
    machine.env['PYTHON'] = str(machine.venv / 'bin' / 'python')
    assert f'{machine.venv} holds OpenMMLab packages' in machine.refusal('--active')


def test_relative_folder_counts_from_where_it_is_named(machine):
    machine.make_venv('mmcv-2.1.0')
    del machine.env['MMMLO_VENV']
    assert f'{machine.venv} holds OpenMMLab packages' in machine.refusal('--venv', 'venv')


def fingerprint(machine: Machine) -> str:
    command = [str(machine.venv / 'bin' / 'python'), str(TOOLS / 'install_probe.py'), 'fingerprint']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_second_run_does_nothing_until_something_changes(machine):
    machine.make_venv('torch-2.13.0', 'onedl-mmcv-2.3.6')
    (machine.venv / '.mmmlo-installed').write_text(fingerprint(machine))
    result = machine.run()
    assert (result.returncode, result.stdout) == (0, f'Already installed in {machine.venv}\n')

    machine.without(*COMPILERS)  # where installing starts
    assert 'compiler' in machine.refusal('--force')
    shutil.rmtree(next(machine.venv.glob('lib/python*/site-packages/onedl_mmcv*')))
    assert 'compiler' in machine.refusal()


def make_wheel(path: Path, *files: str) -> Path:
    with zipfile.ZipFile(path, 'w') as wheel:
        for name in files:
            wheel.writestr(name, 'no library')
    return path


def test_wheel_check(tmp_path):
    check = runpy.run_path(str(TOOLS / 'wheel_check.py'))['main']
    assert 'built without operators' in check(str(make_wheel(tmp_path / 'lite.whl', 'mmcv/__init__.py', 'mmcv/ops/nms.py')))
    assert 'does not load' in check(str(make_wheel(tmp_path / 'other.whl', 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so')))
    (tmp_path / 'half.whl').write_bytes((tmp_path / 'lite.whl').read_bytes()[:40])
    assert 'does not load' in check(str(tmp_path / 'half.whl'))


def shell(code: str, **env: str) -> str:
    tuned = ('MALLOC_', 'OMP_WAIT', 'GOMP_', 'KMP_')
    clean = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    command = ['bash', '-euo', 'pipefail', '-c', f'source {TOOLS}/env.sh; {code}']
    return subprocess.run(command, env={**clean, **env}, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(bool(glob('/dev/nvidia[0-9]*')), reason='the allocator is left alone beside a GPU')
def test_processes_are_tuned_unless_they_were_before():
    show = 'tune_process; env | grep -E "^(MALLOC_|OMP_WAIT|GOMP_|KMP_)" | sort'
    assert shell(show).split() == [
        'GOMP_SPINCOUNT=1000', 'KMP_BLOCKTIME=0', 'MALLOC_MMAP_MAX_=0', 'MALLOC_TOP_PAD_=268435456',
        'MALLOC_TRIM_THRESHOLD_=100000000000', 'OMP_WAIT_POLICY=passive'
    ]
    own = shell(show, MALLOC_TOP_PAD_='7', OMP_WAIT_POLICY='active').split()
    assert 'MALLOC_TOP_PAD_=7' in own and 'OMP_WAIT_POLICY=active' in own
    assert not any(line.startswith('GOMP_') for line in own)


@pytest.fixture
def launched(machine):
    """A machine whose Python and Slurm print how they were called."""
    machine.env['MMMLO_PYTHON'] = str(machine.program('echo-python', 'echo "$@"; echo "path $PYTHONPATH"'))
    machine.program('srun', 'echo "$@"')
    return machine


def test_dist_train(launched):
    launched.env.update(NNODES='2', NODE_RANK='1', PORT='12345', MASTER_ADDR='10.0.0.1')
    result = launched.run('config.py', '4', '--amp', '--cfg-options', 'a=1', script='dist_train.sh')
    command, path = result.stdout.splitlines()
    assert command == ('-m torch.distributed.run --nnodes 2 --node_rank 1 --nproc_per_node 4 --master_addr 10.0.0.1 '
                       f'--master_port 12345 {TOOLS}/train.py config.py --launcher pytorch --amp --cfg-options a=1')
    assert path == f'path {ROOT}'


def test_dist_test(launched):
    output = launched.run('config.py', 'last.pth', '8', script='dist_test.sh').stdout
    assert '--nnodes 1 --node_rank 0 --nproc_per_node 8 --master_addr 127.0.0.1 --master_port 29500' in output
    assert f'{TOOLS}/test.py config.py last.pth --launcher pytorch\n' in output


def test_slurm_train(launched):
    launched.env.update(GPUS='16', SRUN_ARGS='--time 60 --exclusive')
    output = launched.run('gpu', 'mae', 'config.py', 'work_dirs/mae', '--resume', script='slurm_train.sh').stdout
    assert output == (
        '--partition gpu --job-name mae --gres gpu:8 --ntasks 16 --ntasks-per-node 8 --cpus-per-task 5 '
        f'--kill-on-bad-exit=1 --time 60 --exclusive {launched.env["MMMLO_PYTHON"]} -u {TOOLS}/train.py config.py '
        '--work-dir work_dirs/mae --resume --launcher slurm\n')


def test_slurm_test(launched):
    launched.env.update(GPUS='2')
    output = launched.run('gpu', 'mae', 'config.py', 'last.pth', script='slurm_test.sh').stdout
    assert '--gres gpu:2 --ntasks 2 --ntasks-per-node 2' in output
    assert f'{TOOLS}/test.py config.py last.pth --launcher slurm\n' in output


@pytest.mark.parametrize('script, arguments', [
    ('dist_train.sh', ['config.py']),
    ('dist_test.sh', ['config.py', 'last.pth']),
    ('slurm_train.sh', ['gpu', 'job', 'config.py']),
    ('slurm_test.sh', ['gpu', 'job', 'config.py']),
])
def test_launchers_say_how_they_are_used(launched, script, arguments):
    result = launched.run(*arguments, script=script)
    assert result.returncode == 1
    assert result.stderr.startswith(f'error: usage: bash tools/{script} ')


@pytest.mark.parametrize('gpus', ['0', 'all', '2.5', '--amp'])
def test_number_of_gpus(launched, gpus):
    result = launched.run('config.py', gpus, script='dist_train.sh')
    assert result.returncode == 1
    assert 'whole number' in result.stderr
