import os
import socket
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import Runner

from mmmlo import compat

ROOT = Path(__file__).resolve().parents[1]

# What torchvision does when it is imported: its compiled extension, were it to load, would have defined the operators.
BROKEN_TORCHVISION = """
import torch
for name in ('nms', 'qnms'):
    torch.library.register_fake(f'torchvision::{name}', lambda *args: args[0])
"""


def run(code: str, *path: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh process, with folders before everything else on the module path."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, [*path, ROOT])))
    return subprocess.run([sys.executable, '-c', textwrap.dedent(code)], env=env, capture_output=True, text=True)


def fake_torchvision(folder: Path, text: str) -> Path:
    (folder / 'torchvision.py').write_text(text)
    return folder


def test_torchvision_without_operators_imports(tmp_path):
    folder = fake_torchvision(tmp_path, BROKEN_TORCHVISION)
    before = run('import torchvision', folder)
    assert 'operator torchvision::nms does not exist' in before.stderr, 'the fault is gone: drop the fix'

    after = run(
        """
        from mmmlo import compat
        compat.apply()
        compat.apply()
        import torch
        import torchvision
        print(len(compat._libraries), torch.ops.torchvision.nms.default._schema)
        """, folder)
    assert after.returncode == 0, after.stderr
    assert after.stdout.strip() == '1 torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'


def test_torchvision_that_imports_is_left_alone(tmp_path):
    result = run(
        """
        from mmmlo import compat
        compat.apply()
        import torch
        print(len(compat._libraries), hasattr(torch.ops.torchvision, 'nms'))
        """, fake_torchvision(tmp_path, ''))
    assert result.stdout.strip() == '0 False', result.stderr


def test_other_errors_of_torchvision_are_shown(tmp_path):
    folder = fake_torchvision(tmp_path, "raise RuntimeError('compiled with different CUDA major versions')")
    result = run('from mmmlo import compat; compat.apply()', folder)
    assert result.returncode != 0
    assert 'compiled with different CUDA major versions' in result.stderr


def test_environment_without_torchvision(tmp_path):
    result = run("""
        import importlib.util
        import sys
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *args: None if name == 'torchvision' else find_spec(name, *args)
        from mmmlo import compat
        compat.apply()
        print('torchvision' in sys.modules)
        """)
    assert result.stdout.strip() == 'False', result.stderr


def test_mmpretrain_imports_after_apply():
    result = run("""
        from mmmlo import compat
        compat.apply()
        import mmpretrain.models
        import torchvision.transforms
        print('imported')
        """)
    assert result.stdout.strip() == 'imported', result.stderr


@pytest.fixture
def mmseg_config(tmp_path, monkeypatch):
    """A config that inherits from mmseg's, and mmengine as it is before any fix."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmseg::_base_/models/upernet_vit-b16_ln_mln.py'\n")
    return path


def has_upstream_mmseg() -> bool:
    return any(dist.metadata['Name'] == 'mmsegmentation' for dist in metadata.distributions())


@pytest.mark.skipif(has_upstream_mmseg(), reason='upstream mmsegmentation is found without the fix')
def test_mmseg_base_config_is_found(mmseg_config):
    with pytest.raises(ModuleNotFoundError, match='mmsegmentation is not installed'):
        Config.fromfile(mmseg_config)
    compat.apply()
    assert Config.fromfile(mmseg_config).model.decode_head.type == 'UPerHead'


def test_upstream_mmseg_keeps_its_name(mmseg_config, monkeypatch):
    monkeypatch.setattr(compat.metadata, 'version', lambda name: '1.2.2')
    compat.fix_package_names()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'


def test_absent_mmseg_is_still_reported_as_absent(mmseg_config, monkeypatch):
    find_spec = compat.find_spec
    monkeypatch.setattr(compat, 'find_spec', lambda name: None if name == 'mmseg' else find_spec(name))
    compat.fix_package_names()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'


@pytest.fixture
def mmpretrain_config(tmp_path):
    """A config whose dataloaders come from mmpretrain, at the places where this project has them."""
    path = tmp_path / 'config.py'
    path.write_text(
        textwrap.dedent("""
        _base_ = 'mmpretrain::_base_/datasets/imagenet_bs512_mae.py'
        train_cfg = dict(dataloaders=dict(finetune={{_base_.train_dataloader}}, masking='finetune'))
        val_cfg = dict(bank_dataloader={{_base_.train_dataloader}})
        """))
    return Config.fromfile(path)


def build(dataloader):
    """Build a dataloader of the config as the runner does, over numbers in the place of its images."""
    dataloader.update(dataset=list(range(4)), batch_size=2, num_workers=0, persistent_workers=False)
    return Runner.build_dataloader(dataloader)


def all_dataloaders(cfg) -> list:
    return [cfg.train_dataloader, cfg.train_cfg.dataloaders.finetune, cfg.val_cfg.bank_dataloader]


@pytest.mark.parametrize('index', range(3))
def test_dataloader_from_another_package(mmpretrain_config, index):
    with pytest.raises(TypeError, match='_scope_'):
        next(iter(build(all_dataloaders(mmpretrain_config.copy())[index])))
    assert compat.fix_config(mmpretrain_config) is mmpretrain_config
    batch = next(iter(build(all_dataloaders(mmpretrain_config)[index])))
    assert len(batch) == 2


def test_only_the_scope_of_collate_fn_is_dropped(mmpretrain_config):
    compat.fix_config(mmpretrain_config)
    for dataloader in all_dataloaders(mmpretrain_config):
        assert dataloader.collate_fn == dict(type='default_collate')
        assert dataloader.dataset._scope_ == 'mmpretrain'
        assert dataloader.sampler._scope_ == 'mmpretrain'


def test_config_without_scopes_is_unchanged():
    cfg = Config(dict(train_dataloader=dict(collate_fn=dict(type='default_collate')), hooks=[dict(type='Hook')]))
    before = cfg.to_dict()
    compat.fix_config(cfg)
    assert cfg.to_dict() == before


@pytest.mark.dist
@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_process_groups_on_cpus(run_in_processes, monkeypatch, launcher):
    """In place of mmengine's initialization, which asks for a GPU under every launcher."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        monkeypatch.setenv('MASTER_PORT', str(probe.getsockname()[1]))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    assert [output.split()[-1] for output in run_in_processes(__file__, launcher)] == ['0/2', '1/2']


def test_a_job_that_is_none_is_named(monkeypatch):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(RuntimeError, match='--launcher slurm needs SLURM_PROCID'):
        compat.init_dist_on_cpu('slurm', {})
    compat.init_dist_on_cpu('none', {})
    assert not torch.distributed.is_initialized()


def main(launcher: str) -> None:
    """What a process does that a launcher has started."""
    rank, world_size = os.environ['RANK'], os.environ['WORLD_SIZE']
    names = dict(slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'))
    names['mpi'] = ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK')
    if launcher in names:
        for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
            del os.environ[name]
        os.environ.update(zip(names[launcher], (rank, world_size, rank)))
    compat.init_dist_on_cpu(launcher, dict(backend='nccl', timeout=60))
    compat.init_dist_on_cpu(launcher, {})  # is done already
    assert os.environ['LOCAL_RANK'] == rank
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    print(f'{torch.distributed.get_rank()}/{int(total)}', flush=True)
    torch.distributed.barrier()
    os._exit(0)


if __name__ == '__main__':
    main(sys.argv[1])
