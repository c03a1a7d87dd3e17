from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmmlo.engine import WorthStatisticsHook
from mmmlo.engine.hooks import worth_statistics


def test_numbers_of_scores_that_are_known():
    worth = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 1]])
    mask = torch.ones(2, 4)
    perfect = worth_statistics(0.2 + 0.6 * worth, worth, 1 + 2 * worth, mask)
    assert perfect['auc'] == 1 and perfect['correlation'] == pytest.approx(1)
    # (3 + 3 + 1 + 1)^2 / (4 * 20) and (1 + 1 + 1 + 3)^2 / (4 * 12)
    assert perfect['effective_sample_size'] == pytest.approx((64 / 80 + 36 / 48) / 2)
    assert worth_statistics(0.8 - 0.6 * worth, worth, None, mask).items() >= dict(auc=0.0).items()
    # One of three patches of worth lies below one of five others: 1 - 1/15.
    scores = torch.tensor([[0.9, 0.4, 0.1, 0.1], [0.1, 0.1, 0.5, 0.8]])
    assert worth_statistics(scores, worth, None, mask)['auc'] == pytest.approx(1 - 1 / 15)
    assert worth_statistics(scores, worth, mask, mask)['effective_sample_size'] == 1


def test_measures_fixed_images_and_leaves_the_random_state(tiny_model):
    model = tiny_model(dtype=torch.float32)
    size = model.backbone.img_size if isinstance(model.backbone.img_size, int) else model.backbone.img_size[0]
    hub = MessageHub.get_instance('worth_statistics')
    runner = SimpleNamespace(model=model, iter=0, message_hub=hub)
    pipeline = [dict(type='PackInputs', meta_keys=('worth', ))]
    data = dict(type='mmmlo.ClutteredDigits', split='test', size=size, digit_size=max(8, size // 2), pipeline=pipeline)
    hook = WorthStatisticsHook(data, interval=2, num_images=16)
    hook.before_train(runner)
    state = torch.get_rng_state()
    for runner.iter in range(4):
        hook.after_train_iter(runner, runner.iter)
    assert torch.equal(torch.get_rng_state(), state)
    history = hub.log_scalars['train/worth/auc'].data[0]
    assert len(history) == 3 and len({*history.tolist()}) == 1 and 0 < history[0] < 1
