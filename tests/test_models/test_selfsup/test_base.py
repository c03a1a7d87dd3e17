"""What all algorithms share: shape checks, masks, reconstruction, levels and the training step."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmmlo.models import RandomMasker
from mmmlo.registry import MODELS


def test_extracts_features_of_all_patches(tiny_model, tiny_batch):
    model = tiny_model()
    for shape, length in (((16, 16), 16), ((24, 8), 12)):
        images = tiny_batch(0, shape=shape)['inputs']
        features = model(images, mode='tensor')
        assert isinstance(features, tuple) and features[-1].shape == (6, 1 + length, 48)
        torch.testing.assert_close(features[-1], model.backbone.encode(model.backbone.embed(images)[0]))


@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('grid', [(4, 4), (2, 6)])
def test_reconstructs_masked_patches_and_leaves_visible_ones(tiny_model, tiny_batch, grid, norm_pix):
    shape = (4 * grid[0], 4 * grid[1])
    model = tiny_model(
        backbone=dict(img_size=shape), neck=dict(grid=grid), masker=dict(grid=grid), head=dict(norm_pix=norm_pix)
    )
    images = tiny_batch(0, shape=shape)['inputs']
    actual, masking = model.reconstruct(images)
    assert actual.shape == images.shape
    mask = masking.selection.mask.reshape(6, *grid).repeat_interleave(4, 1).repeat_interleave(4, 2).bool()
    mask = mask[:, None].expand_as(images)
    assert torch.equal(actual[~mask], images[~mask])

    # The predictions put back are what the head compares: the loss of the reconstruction as a prediction is the same.
    loss = model.loss(images, masking=masking._replace(weight=None))['loss']
    target, patches = model.head.construct_target(images), model.head.patchify(images)
    pred = model.head.patchify(actual)
    if norm_pix:
        pred = (pred - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (pred - target).square().mean(-1) * masking.selection.mask
    torch.testing.assert_close(error.sum() / masking.selection.mask.sum(), loss, rtol=1e-5, atol=0)


def test_the_masks_do_not_depend_on_the_graph(tiny_model, tiny_batch):
    """fix_level returns what loss() would draw, and loss() uses what it is given."""
    model = tiny_model(temperature=1.0)
    batch = tiny_batch(0)
    torch.manual_seed(5)
    fixed = model.fix_level('pretrain', batch)
    torch.manual_seed(5)
    torch.testing.assert_close(model.loss(**batch), model.level_loss('pretrain', batch, fixed), rtol=0, atol=0)
    other = model.fix_level('pretrain', batch)
    assert not torch.equal(other.selection.mask, fixed.selection.mask)
    assert (model.loss(**batch, masking=other)['loss'] - model.loss(**batch, masking=fixed)['loss']).abs() > 1e-6
    assert fixed.mask_prob.requires_grad and not fixed.selection.mask.requires_grad
    assert model.fix_level('masking', batch) is None


@pytest.mark.parametrize(
    ('updates', 'words'),
    [
        (dict(masker=dict(grid=(2, 8))), ['model.masker.grid is (2, 8)', 'model.masker.grid=(4, 4)']),
        (dict(neck=dict(grid=(2, 8))), ['model.neck.grid is (2, 8)', 'model.neck.grid=(4, 4)']),
        (dict(masker=dict(embed_dims=32)), ['model.masker.embed_dims is 32', '48']),
        (dict(neck=dict(embed_dim=32)), ['model.neck.embed_dim is 32', 'model.neck.embed_dim=48']),
        (dict(neck=dict(patch_size=2)), ['model.neck.patch_size is 2', 'model.neck.patch_size=4']),
        (dict(head=dict(patch_size=8)), ['model.head.patch_size is 8', 'model.head.patch_size=4']),
        (dict(masker=dict(type='mmmlo.ConvMasker', patch_size=8)), ['model.masker.patch_size is 8', '=4']),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_modules_that_do_not_fit_together(tiny_model_cfg, updates, words):
    with pytest.raises(ValueError) as error:
        MODELS.build(tiny_model_cfg(**updates))
    for word in words:
        assert word in str(error.value)


def test_maskers_that_take_any_grid_fit_everywhere(tiny_model, tiny_batch):
    for masker in (dict(type='mmmlo.RandomMasker'), dict(type='mmmlo.ConvMasker', patch_size=4, dims=8)):
        model = tiny_model(masker=masker, backbone=dict(img_size=(8, 24)), neck=dict(grid=(2, 6)))
        assert model.loss(**tiny_batch(0, shape=(8, 24)))['loss'].isfinite()


@pytest.mark.parametrize('masker', ['mmmlo.MLPMasker', 'mmmlo.RandomMasker'])
def test_images_of_another_size(tiny_model, tiny_batch, masker):
    model = tiny_model() if masker == 'mmmlo.MLPMasker' else tiny_model(masker=dict(type=masker))
    message = r'images have a grid of \(2, 8\) patches, but model\.backbone\.img_size.* one of \(4, 4\); resize'
    with pytest.raises(ValueError, match=message):
        model.loss(**tiny_batch(0, shape=(8, 32)))


@pytest.mark.parametrize('as_list', [False, True])
def test_a_pretrained_file_has_the_last_word(tiny_model, tiny_model_cfg, tmp_path, as_list):
    source = tiny_model(dtype=torch.float32)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(torch.randn_like(parameter))
    state, file = source.state_dict(), str(tmp_path / 'model.pth')
    torch.save(dict(state_dict=state), file)
    init_cfg = dict(type='Pretrained', checkpoint=file)
    model = MODELS.build(tiny_model_cfg(init_cfg=[dict(type='Xavier', layer='Linear'), init_cfg] if as_list else init_cfg))
    model.init_weights()
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert [name for name, value in loaded.items() if not torch.equal(value, state[name])] == []


def test_levels_need_the_multi_level_wrapper(tiny_model, tiny_batch):
    model = tiny_model()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"\['pretrain', 'finetune', 'masking'\].*optim_wrapper\.constructor="):
        model.train_step(tiny_batch(0), wrapper)


@pytest.mark.parametrize('type_', ['mmmlo.MLOMAE', 'mmmlo.MAE'])
def test_a_plain_wrapper_does_not_train_a_masker_that_has_no_level(tiny_model, tiny_batch, type_):
    model = tiny_model(type=type_, downstream=None, dtype=torch.float32)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    batch = tiny_batch(0, dtype=torch.float32)
    with pytest.raises(ValueError, match=r'model\.masker, a MLPMasker, is in no level'):
        model.train_step(batch, wrapper)
    model.masker.requires_grad_(False)
    before = [p.clone() for p in model.masker.parameters()]
    model.train_step(batch, wrapper)
    assert all(torch.equal(a, b) for a, b in zip(model.masker.parameters(), before))


def test_the_multi_level_wrapper_needs_its_loop(tiny_model, tiny_wrapper, tiny_batch):
    model = tiny_model()
    wrapper = tiny_wrapper(model)
    for batch in (tiny_batch(0), [tiny_batch(0)]):
        with pytest.raises(ValueError, match="train_cfg.type='mmmlo.MultiLevelTrainLoop'"):
            model.train_step(batch, wrapper)


def test_random_masks_have_no_weight(tiny_model, tiny_batch):
    model = tiny_model(masker=dict(type='mmmlo.RandomMasker'), normalize_weights=True)
    batch = tiny_batch(0)
    masking = model.fix_level('pretrain', batch)
    assert isinstance(model.masker, RandomMasker) and masking.weight is None
    ones = masking._replace(weight=torch.ones_like(masking.mask_prob))
    torch.testing.assert_close(model.loss(**batch, masking=masking), model.loss(**batch, masking=ones))


def test_a_small_masker_runs_without_autocast(tiny_model, tiny_batch):
    """Scores of the same tokens are the same with and without; a deep masker's are rounded on the way."""
    images = tiny_batch(0, dtype=torch.float32)['inputs']
    vit = dict(type='mmmlo.ViTMasker', grid=(4, 4), embed_dims=48, depth=2)
    for updates, alike in (({}, True), (dict(masker=vit), False)):
        model = tiny_model(dtype=torch.float32, **updates)
        tokens, grid = model.backbone.embed(images)
        exact = model.score(images, tokens, grid)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rounded = model.score(images, tokens, grid)
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, exact) == alike
