"""Fixes for the libraries below this project, one function for each fault.

Each function says what goes wrong, in which versions, and looks for the fault before it touches anything, so it does
nothing where the fault is absent. :mod:`mmmlo.registry` calls :func:`apply`; whatever loads a config calls
:func:`fix_config` on it.
"""

import atexit
import os
import subprocess
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

__all__ = [
    'apply', 'fix_config', 'fix_package_names', 'fix_torchvision_import', 'init_dist_on_cpu'
]

# A torch.library.Library takes its operators back when it is collected: keep it for the life of the process.
_libraries: list[Any] = []


def apply() -> None:
    """Apply every fix to this process. Calling it again does nothing.

    It must run before mmpretrain is imported, because mmpretrain imports torchvision.
    """
    fix_torchvision_import()
    fix_package_names()


def fix_torchvision_import() -> None:
    """Make torchvision importable where its compiled extension does not load.

    A torchvision built for CUDA beside a CPU torch (seen with torchvision 0.28.0 and torch 2.13.0+cpu) fails to load its
    extension and says nothing. It then registers fake kernels for the operators ``torchvision::nms`` and
    ``torchvision::qnms``, which only the extension would have defined, and the import ends in
    ``RuntimeError: operator torchvision::nms does not exist``.

    Declaring the two operators, without kernels, lets the import pass. ``torchvision.ops`` still refuses its compiled
    operators with its own message; nothing here calls them, since mmcv has its own.
    """
    if 'torchvision' in sys.modules or find_spec('torch') is None or find_spec('torchvision') is None:
        return
    try:
        import_module('torchvision')
        return
    except RuntimeError as error:
        if 'operator torchvision::' not in str(error):
            raise

    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _libraries.append(library)
    import_module('torchvision')


def fix_package_names() -> None:
    """Let ``_base_`` name configs of this project, ``'mmmlo::...'``, and of an mmseg that was installed by another name.

    mmengine (all versions up to 0.10.12) has a list of the packages whose configs it takes. There it says that those of
    ``mmseg`` are in a distribution or module called ``mmsegmentation``; the maintained fork's distribution is called
    ``onedl-mmsegmentation``. A module's own name is found in every case.
    """
    if find_spec('mmengine') is None:
        return
    names = import_module('mmengine.config.utils').MODULE2PACKAGE
    names['mmmlo'] = 'mmmlo'
    if find_spec('mmseg') is None:
        return
    try:
        metadata.version('mmsegmentation')
    except metadata.PackageNotFoundError:
        names['mmseg'] = 'mmseg'


def fix_config(cfg: Any) -> Any:
    """Apply every fix that a loaded config, or a part of one, needs, in place.

    mmengine (all versions up to 0.10.12) marks each dict with a ``type`` that comes from another package's ``_base_``
    with ``_scope_``. Its runner hands every key of ``collate_fn`` but ``type`` to the function, which ends in
    ``default_collate() got an unexpected keyword argument '_scope_'``: it is removed there, and where it is this
    project's, whose configs write ``mmmlo.`` before a type and mean ``default_scope`` otherwise. The whole config is walked,
    because dataloaders also stand below ``train_cfg`` and ``val_cfg`` here.
    """
    if isinstance(cfg, (list, tuple)):
        for value in cfg:
            fix_config(value)
    elif hasattr(cfg, 'items'):
        if cfg.get('_scope_') == 'mmmlo':
            cfg.pop('_scope_')
        for key, value in cfg.items():
            if key == 'collate_fn' and isinstance(value, dict):
                value.pop('_scope_', None)
            fix_config(value)
    return cfg


def init_dist_on_cpu(launcher: str, dist_cfg: Any) -> None:
    """Join the launcher's process group where there is no GPU.

    mmengine (all versions up to 0.10.12) calls ``torch.cuda.set_device`` in each of its launchers' initializations, whatever
    the backend, which fails in a PyTorch without CUDA. Its Runner initializes nothing that is initialized already, so the
    group is made here, with gloo, which is what CPUs have.

    Args:
        launcher (str): 'pytorch', 'slurm', 'mpi', or 'none', for which nothing is done.
        dist_cfg (dict): The config's ``env_cfg.dist_cfg``; only ``timeout``, in seconds, matters here.
    """
    if launcher == 'none':
        return
    import datetime

    import torch
    from mmengine.device import get_device

    if get_device() != 'cpu' or torch.distributed.is_initialized():
        return
    names = dict(
        slurm=dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
        mpi=dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'),
    ).get(launcher, {})
    for name, theirs in names.items():
        if theirs not in os.environ:
            raise RuntimeError(f'--launcher {launcher} needs {theirs}, which is not set: is this part of such a job?')
        os.environ[name] = os.environ[theirs]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']], capture_output=True, text=True, check=True
        )
        os.environ['MASTER_ADDR'] = hosts.stdout.splitlines()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    timeout = dist_cfg.get('timeout')
    torch.distributed.init_process_group(
        'gloo', timeout=None if timeout is None else datetime.timedelta(seconds=timeout)
    )
    # Nobody leaves the group by himself. A process that ends while gloo's threads run may be aborted.
    atexit.register(lambda: torch.distributed.is_initialized() and torch.distributed.destroy_process_group())
