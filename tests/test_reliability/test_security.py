"""A checkpoint that holds code is refused wherever a run may name it, and its code does not run."""

import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import CheckpointError, trust_checkpoints

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


class Code:
    """Leaves a trace where it runs."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, 'w')


@pytest.fixture
def code(tmp_path):
    """A checkpoint with whole weights and code beside them; the trace that the code would leave."""
    path, trace = tmp_path / 'code.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=dict(a=torch.zeros(2)), meta=dict(hook=Code(str(trace)))), path)
    return str(path), trace


@pytest.fixture(scope='module')
def tiny():
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py')), cycles=1)
    cfg.default_hooks.pop('verify_pretrained')  # the files here hold no encoder
    return cfg


def train(cfg: Config, work_dir, **options) -> None:
    cfg = Config(cfg.to_dict() | dict(work_dir=str(work_dir), experiment_name=work_dir.name))
    for key, value in options.items():
        cfg[key] = value
    build_runner(cfg).train()


def from_load_from(cfg, path, work_dir):
    train(cfg, work_dir, load_from=path)


def from_resume(cfg, path, work_dir):
    train(cfg, work_dir, load_from=path, resume=True)


def from_last_checkpoint(cfg, path, work_dir):
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(path)
    train(cfg, work_dir, resume=True)


def from_init_cfg(cfg, path, work_dir):
    model = cfg.model.to_dict()
    model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    train(cfg, work_dir, model=model)


@pytest.mark.parametrize('way', [from_load_from, from_resume, from_last_checkpoint, from_init_cfg])
def test_code_is_refused_and_does_not_run(tiny, code, tmp_path, way):
    path, trace = code
    CheckpointLoader.register_scheme('', load_from_local, force=True)  # as it is before a run is built
    with pytest.raises(CheckpointError, match='would run code') as error:
        way(tiny, path, tmp_path / way.__name__)
    assert str(error.value).startswith(f'{path} holds more than weights and plain values')
    assert '--trust-checkpoint' in str(error.value) and '\n' not in str(error.value)
    assert not trace.exists()


def test_code_runs_if_it_is_trusted(tiny, code, tmp_path):
    path, trace = code
    trust_checkpoints()
    try:
        from_load_from(tiny, path, tmp_path / 'trusted')
    finally:
        trust_checkpoints(False)
    assert trace.exists()
