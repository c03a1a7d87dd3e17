"""Fixtures shared by all tests: a tiny MLO-MAE, its batches and its optimizer wrapper."""

import copy
import gc
import importlib.util
import os
import subprocess
import sys

import pytest

from mmmlo.utils.process import one_line_errors, tune_process

tune_process()  # before PyTorch is imported, and for all that the tests start

import torch

# yapf writes tables into ~/.cache when it is first imported, and a process that imports it meanwhile reads half a file. Here
# it is imported before pytest-xdist starts its workers.
import yapf  # noqa: F401

from mmmlo import compat

compat.apply()  # before a test imports mmpretrain

# On these tiny tensors a second thread gains nothing, and on a busy machine its spin-waits cost up to seventy times.
torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """Skip what is marked gpu where there is none."""
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a GPU')


@pytest.fixture(autouse=True, scope='session')
def quiet_initialization():
    """mmengine prints a line for every parameter that it initializes; warnings and errors stay."""
    import logging

    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def own_default_scope():
    """A runner of mmseg or mmdet leaves its scope behind, in which a later test would not find mmpretrain's parts."""
    from mmengine.registry import DefaultScope

    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict = before


TINY_MODEL = dict(
    type='mmmlo.MLOMAE',
    backbone=dict(
        type='mmmlo.MaskedViT',
        arch=dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96),
        img_size=16,
        patch_size=4,
    ),
    neck=dict(
        type='mmmlo.GridMAEDecoder',
        grid=(4, 4),
        patch_size=4,
        embed_dim=48,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=4,
        mlp_ratio=2,
    ),
    head=dict(type='mmmlo.MaskedPixelHead', norm_pix=True, patch_size=4),
    masker=dict(type='mmmlo.MLPMasker', grid=(4, 4), embed_dims=48, hidden_dims=32),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=5, in_channels=48),
)

PREPROCESSOR = dict(
    type='mmpretrain.SelfSupDataPreprocessor', mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], to_rgb=False
)

TINY_LEVELS = dict(
    pretrain=dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), steps=2),
    finetune=dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05)),
    masking=dict(
        optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        paths=['pretrain', 'finetune>pretrain'],
        hypergradient=dict(type='mmmlo.ForwardMode'),
    ),
)


def merge(base: dict, updates: dict) -> dict:
    """Merge nested dicts; ``None`` as a value deletes the key, ``_delete_=True`` replaces the dict, as in mmengine."""
    if updates.get('_delete_'):
        return {key: value for key, value in updates.items() if key != '_delete_'}
    base = copy.deepcopy(base)
    for key, value in updates.items():
        if value is None:
            base.pop(key)
        elif isinstance(value, dict) and isinstance(base.get(key), dict) and not {'type'} <= set(value) & set(base[key]):
            base[key] = merge(base[key], value)
        else:
            base[key] = value
    return base


@pytest.fixture
def tiny_model_cfg():
    """Config of a two-block MLO-MAE on 16 x 16 images; ``cfg(**updates)`` merges updates into it."""
    return lambda **updates: merge(TINY_MODEL, updates)


@pytest.fixture
def tiny_model(tiny_model_cfg):
    """A tiny MLO-MAE with weights drawn from a seed; ``model(seed=0, dtype=torch.float64, **updates)``."""
    from mmmlo.registry import MODELS

    def build(seed: int = 0, dtype: torch.dtype = torch.float64, **updates):
        torch.manual_seed(seed)
        model = MODELS.build(tiny_model_cfg(**updates))
        model.init_weights()
        return model.to(dtype)

    return build


@pytest.fixture
def tiny_wrapper():
    """The multi-level wrapper of a tiny model; ``wrapper(model, **updates_of_levels)``."""
    from mmengine.optim import build_optim_wrapper

    def build(model, **updates):
        return build_optim_wrapper(
            model,
            dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=merge(TINY_LEVELS, updates)),
        )

    return build


@pytest.fixture
def tiny_batch():
    """A preprocessed batch; ``batch(seed, size=6, dtype=torch.float64)``."""
    from mmpretrain.structures import DataSample

    def build(seed: int, size: int = 6, dtype: torch.dtype = torch.float64, shape=(16, 16)):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(size, 3, *shape, generator=generator, dtype=torch.float64).to(dtype)
        labels = torch.randint(5, (size,), generator=generator)
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(int(label)) for label in labels])

    return build


@pytest.fixture(autouse=True, scope='session')
def unformatted_configs():
    """A run writes its config several times, and nine tenths of a short run would be yapf's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(autouse=True, scope='session')
def frozen_heap():
    """mmengine collects garbage for each dataset it builds: a third of a second each, unless what the imports made is
    set aside."""
    gc.freeze()


@pytest.fixture
def run_in_processes(tmp_path):
    """Run a test file's ``__main__`` in several processes; ``run(__file__, *arguments)`` returns what they printed.

    They find ``RANK`` and ``WORLD_SIZE`` in the environment, as under a launcher, and the path of a rendezvous file in
    ``RENDEZVOUS``. They are started directly: a launcher that is stopped by a timeout leaves its workers behind.
    """

    def run(file: str, *arguments: str, count: int = 2, timeout: float = 120) -> list[str]:
        common = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([*sys.path, os.path.dirname(__file__)]),
            OMP_NUM_THREADS='1',
            WORLD_SIZE=str(count),
            RENDEZVOUS=f'file://{tmp_path}/rendezvous',
        )
        processes = []
        try:
            for rank in range(count):
                env = dict(common, RANK=str(rank), LOCAL_RANK=str(rank))
                processes.append(
                    subprocess.Popen(
                        [sys.executable, file, *arguments],
                        env=env,
                        text=True,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                    )
                )
            outputs = [process.communicate(timeout=timeout)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        for process, output in zip(processes, outputs):
            assert process.returncode == 0, output
        return outputs

    return run


@pytest.fixture(scope='session')
def labelled_folder(tmp_path_factory):
    """A folder of small colour images that an encoder can tell apart: train/<class>/*.png, test/<class>/*.png."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp('labelled')
    rng = np.random.default_rng(0)
    for split, count in (('train', 20), ('test', 8)):
        # OpenCV writes blue, green, red.
        for name, colour in dict(blue=(200, 40, 40), green=(40, 200, 40), red=(40, 40, 200)).items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for j in range(count):
                image = np.clip(np.array(colour) + rng.normal(0, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f'{j}.png'), image)
    return root


@pytest.fixture(scope='session')
def tiny_checkpoint(tmp_path_factory):
    """Checkpoints of tiny algorithms on 16 x 16 images; ``checkpoint(name, seed=0, **updates)`` returns the path."""
    from mmengine.config import Config

    from mmmlo.registry import MODELS

    folder = tmp_path_factory.mktemp('checkpoints')

    def build(name: str, seed: int = 0, dataset: dict | None = None, **updates) -> str:
        model_cfg = merge(merge(TINY_MODEL, dict(data_preprocessor=PREPROCESSOR)), updates)
        dataset = dataset or dict(type='CIFAR10', pipeline=[dict(type='PackInputs')])
        cfg = Config(dict(default_scope='mmpretrain', model=model_cfg, train_dataloader=dict(dataset=dataset)))
        torch.manual_seed(seed)
        model = MODELS.build(model_cfg)
        model.init_weights()
        path = str(folder / f'{name}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, iter=7)), path)
        return path

    return build


@pytest.fixture(scope='session')
def patch_16_checkpoint(tiny_checkpoint):
    """An MLO-MAE of 48 dims x 4 blocks with patches of 16 pixels, as segmentors and detectors have them, on a 4 x 4 grid."""
    return tiny_checkpoint(
        'patch_16',
        backbone=dict(
            arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96), img_size=64, patch_size=16
        ),
        neck=dict(patch_size=16),
        head=dict(patch_size=16),
    )


@pytest.fixture(scope='session')
def load_tool():
    """A tool as a module, whose ``main`` ends as the command does; ``load_tool('test.py', status=1)``."""

    def load(name: str, status: int = 2):
        path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tools', name)
        spec = importlib.util.spec_from_file_location(f'tool_{os.path.basename(name)[:-3]}', path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look theirs up
        spec.loader.exec_module(module)
        module.main = one_line_errors(status)(module.main)
        return module

    return load


@pytest.fixture(scope='session')
def run_tool(tmp_path_factory):
    """Run a command-line tool as a user does; ``run('train.py', *arguments, cwd=..., code=0)`` returns what it printed.

    As in this process, configs are written as they are: yapf would take two fifths of each run.
    """
    startup = tmp_path_factory.mktemp('startup')
    (startup / 'sitecustomize.py').write_text(
        'from yapf.yapflib import yapf_api\nyapf_api.FormatCode = lambda text, **_: (text, True)\n'
    )
    path = os.pathsep.join([str(startup), *filter(None, [os.environ.get('PYTHONPATH')])])
    tools = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tools')

    def run(tool: str, *arguments, cwd, code: int = 0) -> str:
        result = subprocess.run(
            [sys.executable, os.path.join(tools, tool), *map(str, arguments)],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=path),
        )
        assert result.returncode == code, result.stdout
        return result.stdout

    return run
