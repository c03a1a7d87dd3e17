from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from mmmlo.models.maskers import ContrastMasker
from mmmlo.visualization import MaskColumn, MaskStatisticsHook, mask_statistics_hook


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


def test_correlations_and_difficulty_of_scores_that_choose(runner, tiny_batch):
    """A masker that hides the patches of most contrast, which are harder to fill in than others."""
    batch = tiny_batch(0, size=40, dtype=torch.float32)
    batch['inputs'][:, :, :, :8] *= 0.05
    runner.model.masker = ContrastMasker(patch_size=4)
    hook = MaskStatisticsHook(interval=1)
    hook.after_train_iter(runner, 0, batch)
    found = {name: runner.message_hub.get_scalar(f'train/masks/{name}').current() for name in ('contrast', 'centre')}
    assert found['contrast'] > 0.9 and abs(found['centre']) < 0.2
    assert hook._measured == 40 and hook._counts.view(4, 4)[:, 2:].eq(40).all()


def test_difficulty_is_the_loss_over_that_of_random_masks(runner, tiny_batch):
    model, batch = runner.model, tiny_batch(0, size=6, dtype=torch.float32)
    MaskStatisticsHook(interval=1).after_train_iter(runner, 0, batch)
    with torch.no_grad(), torch.random.fork_rng():
        tokens, grid = model.backbone.embed(batch['inputs'])
        own = model.draw_masks(batch['inputs'], tokens, grid)
        ids = torch.rand(6, 16).argsort(dim=1)
        random = own.selection._replace(ids_keep=ids[:, :4], ids_masked=ids[:, 4:])
        losses = [
            model.loss(batch['inputs'], masking=own._replace(weight=None, selection=chosen))['loss']
            for chosen in (own.selection, random)
        ]
    found = runner.message_hub.get_scalar('train/masks/difficulty').current()
    assert found == pytest.approx((losses[0] / losses[1]).item(), rel=1e-5)


class Pictures:
    """The visualizer of a run: what it was given."""

    def __init__(self):
        self.images, self.scalars = {}, {}

    def add_image(self, name, image, step):
        self.images[name, step] = image

    def add_scalars(self, scalars, step):
        self.scalars[step] = scalars


@pytest.fixture
def epochs(runner):
    """A run of four epochs whose data are fixed images; ``epochs(hook, batch)`` goes through it."""
    pixels = torch.randint(256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    dataset = [dict(inputs=image) for image in pixels]
    runner.train_dataloader, runner.val_loop = SimpleNamespace(dataset=dataset), None
    runner.max_epochs, runner.epoch, runner.visualizer = 4, 0, Pictures()

    def run(hook, batch):
        hook.before_train_epoch(runner)
        for epoch in range(runner.max_epochs):
            runner.epoch = epoch
            hook.after_train_iter(runner, 0, batch)
            runner.iter += 1
            hook.after_train_epoch(runner)
        return runner.visualizer

    return run


def test_pictures_of_fixed_images(runner, epochs, tiny_batch):
    state = torch.get_rng_state()
    runner.model.train()
    drawn = epochs(MaskStatisticsHook(interval=1, epochs=2, images=3), tiny_batch(0, dtype=torch.float32))
    assert [*drawn.images] == [('masks', 0), ('masks', 2), ('mask_frequency', 2), ('masks', 4), ('mask_frequency', 4)]
    sheet = drawn.images['masks', 4]
    assert sheet.shape == (3 * 16, 4 * 16, 3)
    assert np.array_equal(sheet[:, :16], drawn.images['masks', 0][:, :16])  # the images; nothing trains here, so
    assert np.array_equal(sheet, drawn.images['masks', 0])  # neither do the masks change, and
    assert drawn.scalars == {2: {'masks/epoch_overlap': 1.0}, 4: {'masks/epoch_overlap': 1.0}}
    assert torch.equal(torch.get_rng_state(), state) and runner.model.training


def test_a_resumed_run_compares_with_the_picture_before(runner, epochs, tiny_batch):
    runner.message_hub.update_info('masks_before', (1 - torch.eye(16)[:3]).int().tolist())  # one patch visible
    runner.iter = 7
    hook = MaskStatisticsHook(interval=1, epochs=4, images=3)
    drawn = epochs(hook, tiny_batch(0, dtype=torch.float32))
    assert [*drawn.images] == [('masks', 11), ('mask_frequency', 11)]
    assert 0 <= drawn.scalars[11]['masks/epoch_overlap'] <= 0.25


def test_images_are_those_of_the_validation_if_they_fit_the_model(runner, epochs, tiny_batch):
    batch, train = tiny_batch(0, dtype=torch.float32), runner.train_dataloader.dataset
    shown = {}
    for name, images in (('fit', torch.zeros(5, 3, 16, 16)), ('larger', torch.zeros(5, 3, 32, 32))):
        loader = SimpleNamespace(dataset=[dict(inputs=image) for image in images.byte()])
        runner.val_loop = SimpleNamespace(dataloader=loader)
        runner.iter, runner.max_epochs, runner.visualizer = 0, 1, Pictures()
        shown[name] = epochs(MaskStatisticsHook(images=5), batch).images['masks', 0]
    assert len(np.unique(shown['fit'][:, :16])) == 1 < len(np.unique(shown['larger'][:, :16]))
    train[:] = [dict(inputs=[one['inputs'], one['inputs']]) for one in train]  # two views
    runner.iter, runner.visualizer = 0, Pictures()
    assert epochs(MaskStatisticsHook(images=5), batch).images == {}


@pytest.mark.parametrize('size', [(224, 224), (96, 160)])
def test_sheets_are_small(size):
    pixels = torch.rand(12, *size, 3, generator=torch.Generator().manual_seed(0))
    grid = torch.rand(12, size[0] // 16, size[1] // 16)
    column = MaskColumn('', '', pixels, grid, grid.round(), pixels, {}, 12)
    sheet = mask_statistics_hook._sheet(column)
    assert len(cv2.imencode('.png', sheet)[1]) <= 200_000
    assert sheet.shape[0] == 3 * sheet.shape[1]  # 12 rows and 4 columns of squares


def test_interval_must_be_positive():
    with pytest.raises(ValueError, match='MaskStatisticsHook.interval'):
        MaskStatisticsHook(interval=0)


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr('mmmlo.visualization.mask_statistics_hook.print_log', lambda text, *_: texts.append(text))
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
        (0.5, ['masks/overlap is 1.00, above 0.57']),
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
    assert 'masks/overlap is 1.00, above 0.57. Try a larger model.diversity.' in said[0]
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
