from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmmlo.engine import MaskStatisticsHook


@pytest.fixture
def runner(tiny_model):
    hub = MessageHub.get_instance(f'mask_statistics_{id(tiny_model)}')
    return SimpleNamespace(model=tiny_model(dtype=torch.float32), iter=0, message_hub=hub)


def test_measures_at_intervals_and_leaves_the_random_state(runner, tiny_batch):
    runner.model.temperature = 1.0
    hook = MaskStatisticsHook(interval=3)
    batch = tiny_batch(0, dtype=torch.float32)
    state, measured = torch.get_rng_state(), []
    for runner.iter in range(6):
        before = len(runner.message_hub.log_scalars)
        count = runner.message_hub.log_scalars['train/masks/overlap'].data[1].sum() if before else 0
        # Multi-level and single-level loops hand over different things.
        hook.after_train_iter(runner, runner.iter, dict(pretrain=[batch]) if runner.iter % 2 else batch)
        now = runner.message_hub.log_scalars['train/masks/overlap'].data[1].sum()
        if now > count:
            measured.append(runner.iter)
    assert measured == [0, 2, 5]
    assert torch.equal(torch.get_rng_state(), state)
    for name in ('mean_score', 'saturation', 'overlap'):
        assert 0 <= runner.message_hub.get_scalar(f'train/masks/{name}').current() <= 1


def test_interval_must_be_positive():
    with pytest.raises(ValueError, match='MaskStatisticsHook.interval'):
        MaskStatisticsHook(interval=0)
