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


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr('mmmlo.engine.hooks.mask_statistics_hook.print_log', lambda text, *_: texts.append(text))
    return texts


def constant(masker, score):
    """Have a masker give all patches one score, in order of their places, so that all masks are alike."""
    def forward(images, tokens, grid):
        places = torch.arange(tokens.shape[1], dtype=tokens.dtype) * 1e-4
        return (torch.full((tokens.shape[0], 1), score) + places).clamp(max=1)

    masker.forward = forward


@pytest.mark.parametrize(
    ('score', 'collapsed'),
    [
        (0.5, ['masks/overlap is 1.00, above 0.9']),
        (0.001, ['masks/overlap is 1.00', 'masks/saturation is 1.00, above 0.9', 'masks/mean_score is 0.002, below']),
        (0.999, ['masks/overlap is 1.00', 'masks/saturation is 1.00']),
    ],
)
def test_a_collapse_is_warned_of_once_until_it_is_over(runner, tiny_batch, said, score, collapsed):
    hook, batch = MaskStatisticsHook(interval=1, patience=2), tiny_batch(0, dtype=torch.float32)
    forward = runner.model.masker.forward
    for runner.iter in range(3):
        hook.after_train_iter(runner, runner.iter, batch)
        assert said == []
    constant(runner.model.masker, score)
    for runner.iter in range(3, 6):
        hook.after_train_iter(runner, runner.iter, batch)
    assert len(said) == len(collapsed)
    for text, words in zip(said, collapsed):
        assert text.startswith('iteration 5: the masks collapse, ') and words in text
        assert 'Try ' in text and 'optim_wrapper.levels.masking.optimizer.lr' in text
    said.clear()
    runner.model.masker.forward = forward
    hook.after_train_iter(runner, runner.iter, batch)
    constant(runner.model.masker, score)
    hook.after_train_iter(runner, runner.iter, batch)
    assert said == []
    hook.after_train_iter(runner, runner.iter, batch)
    assert len(said) == len(collapsed)


def test_the_method_decides_what_a_collapse_is(runner, tiny_batch, said):
    """CL-MAE wants scores near 0 and 1, but in the share of mask_ratio."""
    runner.model.mask_losses = torch.nn.ModuleDict()
    constant(runner.model.masker, 0.001)
    MaskStatisticsHook(patience=1).after_train_iter(runner, 0, tiny_batch(0, dtype=torch.float32))
    assert len(said) == 2
    assert 'masks/overlap is 1.00, above 0.9. Try a larger model.diversity.' in said[0]
    assert 'masks/mean_score is 0.00, not within 0.3 of the mask_ratio 0.75. Try a larger model.ratio.' in said[1]


def test_warnings_can_be_switched_off(runner, tiny_batch, said):
    for score in (0.5, 0.001):
        constant(runner.model.masker, score)
        MaskStatisticsHook(patience=0).after_train_iter(runner, 0, tiny_batch(0, dtype=torch.float32))
    assert said == []


def test_random_masks_are_not_warned_of(tiny_model, tiny_batch, runner, said):
    runner.model.masker = torch.nn.Identity()
    constant(runner.model.masker, 0.001)
    runner.model.masker.full_precision = runner.model.masker.weighted = False
    MaskStatisticsHook(patience=1).after_train_iter(runner, 0, tiny_batch(0, dtype=torch.float32))
    assert said == []
