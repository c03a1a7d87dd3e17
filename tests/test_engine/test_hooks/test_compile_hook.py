"""Compiled blocks: the losses, hypergradients and names of those that are not."""

import os.path as osp
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmlo.engine import CompileHook
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Without what other tests compiled, and with PyTorch's settings afterwards."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


def compiled(model, graphs):
    """Compile with a backend that counts its graphs, and is otherwise as fast as none."""

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    from torch._dynamo.backends.common import aot_autograd

    CompileHook(backend=aot_autograd(fw_compiler=backend)).before_train(SimpleNamespace(model=model))


def cycles(model, wrapper, batch):
    torch.manual_seed(0)
    logged = []
    for seed in range(2):
        due = wrapper.due()
        logged.append(wrapper.update_levels(model, {level: [batch(seed)] * count for level, count in due.items()}))
    return logged


@pytest.mark.parametrize('estimator', ['ForwardMode', 'DoubleBackward'])
def test_cycles_are_the_same(tiny_model, tiny_wrapper, tiny_batch, estimator):
    results, graphs = [], []
    for compile_it in (False, True):
        model = tiny_model(normalize_weights=True)
        names = list(model.state_dict())
        if compile_it:
            compiled(model, graphs)
        wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
        results.append(cycles(model, wrapper, tiny_batch))
        assert list(model.state_dict()) == names
    assert graphs
    for eager, other in zip(*results):
        assert set(eager) == set(other)
        for name in set(eager) - {name for name in eager if name.endswith('seconds')}:
            torch.testing.assert_close(other[name], eager[name], rtol=1e-7, atol=1e-10)


def test_nothing_is_compiled_twice(tiny_batch):
    cfg = shrink(load_config(osp.join(ROOT, 'configs/cl_mae/cl-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    model, graphs = MODELS.build(cfg.model).train(), []
    compiled(model, graphs)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    found = []
    for _ in range(2):
        cycles(model, wrapper, lambda seed: tiny_batch(seed, dtype=torch.float32))
        found.append(len(graphs))
    assert found[0] == found[1] > 0


def test_a_model_without_blocks_is_named():
    with pytest.raises(SettingError, match='finds no transformer block'):
        CompileHook().before_train(SimpleNamespace(model=nn.Linear(2, 2)))
