"""Wrong configs: one error each, that names the config key and what would be right, before any training."""

import pytest

OPTIMIZER = dict(optimizer=dict(type='AdamW', lr=1e-3))


def overlapping():
    from mmmlo.models import MLOMAE

    class Overlapping(MLOMAE):
        @property
        def level_modules(self):
            return dict(super().level_modules, finetune=('downstream', 'neck'))

    return Overlapping


def case(*words, id, **kwargs):
    return pytest.param(kwargs, words, id=id)


MODEL_CASES = [
    case(
        'model.mask_ratio', 'between 0 and 1', '1.0', id='mask ratio 1', mask_ratio=1.0
    ),
    case('model.mask_ratio', 'between 0 and 1', 'got 0', id='mask ratio 0', mask_ratio=0),
    case('model.mask_ratio', 'between 0 and 1', '-0.5', id='negative mask ratio', mask_ratio=-0.5),
    case('model.mask_ratio 0.95', '0 of 16', 'visible', id='no visible patch', mask_ratio=0.95),
    case(
        'model.backbone.img_size (16, 18)',
        'multiple of model.backbone.patch_size 4',
        id='image size',
        backbone=dict(img_size=(16, 18)),
    ),
    case(
        'model.masker.grid is (8, 8)',
        'set model.masker.grid=(4, 4)',
        id="masker's grid",
        masker=dict(grid=(8, 8)),
    ),
    case('model.masker.embed_dims is 96', '48', id="masker's width", masker=dict(embed_dims=96)),
    case(
        'model.masker.patch_size is 8',
        'set model.masker.patch_size=4',
        id="masker's patches",
        masker=dict(type='mmmlo.ConvMasker', patch_size=8),
    ),
    case('model.neck.grid is (8, 8)', 'set model.neck.grid=(4, 4)', id="decoder's grid", neck=dict(grid=(8, 8))),
    case('model.neck.embed_dim is 96', '48', id="decoder's width", neck=dict(embed_dim=96)),
    case('model.downstream.token', "'cls' or 'mean'", "'avg'", id='token', downstream=dict(token='avg')),
]


@pytest.mark.parametrize(('updates', 'words'), MODEL_CASES)
def test_model(tiny_model_cfg, updates, words):
    from mmmlo.registry import MODELS

    with pytest.raises(ValueError) as error:
        MODELS.build(tiny_model_cfg(**updates))
    check(error, words)


LEVEL_CASES = [
    case(
        'optim_wrapper.levels', "'teaching'", "['pretrain', 'finetune', 'masking']", id='unknown level', teaching=OPTIMIZER
    ),
    case(
        'optim_wrapper.levels.masking.paths',
        "'teaching'",
        "['pretrain', 'finetune']",
        id='unknown path',
        masking=dict(paths=['pretrain', 'teaching>pretrain']),
    ),
    case(
        'optim_wrapper.levels.masking.paths',
        "'masking' is no level below 'masking'",
        id='path through itself',
        masking=dict(paths=['masking']),
    ),
    case(
        'optim_wrapper.levels.finetune.paths',
        "'masking' is no level below 'finetune'",
        id='path through a level above',
        finetune=dict(paths=['masking']),
    ),
    case(
        'optim_wrapper.levels.masking.paths',
        "'pretrain>pretrain'",
        'passes a level twice',
        id='path passes a level twice',
        masking=dict(paths=['pretrain>pretrain']),
    ),
    case(
        'optim_wrapper.levels.masking.paths',
        "'finetune > pretrain'",
        'lists',
        'twice',
        id='path listed twice',
        masking=dict(paths=['finetune>pretrain', 'finetune > pretrain']),
    ),
    case(
        'optim_wrapper.levels.masking.paths',
        'must be a list',
        "['pretrain', 'finetune>pretrain']",
        id='paths as a string',
        masking=dict(paths='pretrain'),
    ),
    case('optim_wrapper.levels.masking.paths', 'must be a list', id='no path', masking=dict(paths=[])),
    case(
        'optim_wrapper.levels.masking.paths',
        'circle',
        id='paths that make a circle',
        masking=dict(paths=['pretrain>finetune', 'finetune>pretrain']),
    ),
    case(
        'optim_wrapper.levels.masking.hypergradient.type',
        "'mmmlo.Guess'",
        'mmmlo.FiniteDifference',
        'mmmlo.ForwardMode',
        id='unknown estimator',
        masking=dict(hypergradient=dict(type='mmmlo.Guess')),
    ),
    case(
        'optim_wrapper.levels.masking.hypergradient',
        'without paths',
        'optim_wrapper.levels.masking.paths',
        id='hypergradient without paths',
        masking=dict(paths=None),
    ),
    case(
        'trainable parameters are in no level', 'model.downstream.', 'optim_wrapper.levels', id='in no level', finetune=None
    ),
    case(
        'optim_wrapper.levels.pretrain.steps', 'positive integer', 'got 0', id='no steps', pretrain=dict(steps=0)
    ),
    case(
        'optim_wrapper.levels.masking.steps', 'positive integer', '1.5', id='half a step', masking=dict(steps=1.5)
    ),
]


@pytest.mark.parametrize(('updates', 'words'), LEVEL_CASES)
def test_levels(tiny_model, tiny_wrapper, updates, words):
    model = tiny_model()
    with pytest.raises(ValueError) as error:
        tiny_wrapper(model, **updates)
    check(error, words)


def test_module_in_two_levels(tiny_model, tiny_wrapper):
    model = tiny_model(type=overlapping())
    with pytest.raises(ValueError) as error:
        tiny_wrapper(model)
    check(error, ['model.neck.', 'in two levels', "'pretrain' and 'finetune'"])


def test_level_with_nothing_to_train(tiny_model, tiny_wrapper):
    model = tiny_model()
    model.downstream.requires_grad_(False)
    with pytest.raises(ValueError) as error:
        tiny_wrapper(model)
    check(error, ['optim_wrapper.levels.finetune', 'nothing to train', 'model.downstream'])


@pytest.mark.parametrize(
    ('cfg', 'words'),
    [
        case(
            'optim_wrapper.paramwise_cfg',
            'optim_wrapper.levels.<level>.paramwise_cfg',
            id='paramwise_cfg of no level',
            levels=dict(pretrain=OPTIMIZER),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
        case(
            'optim_wrapper.optimizer',
            'optim_wrapper.levels.<level>.optimizer',
            id='optimizer of no level',
            **OPTIMIZER,
        ),
        case('optim_wrapper.levels', 'missing', 'pretrain=dict(', id='no levels'),
        case('optim_wrapper.levels', 'missing', 'pretrain=dict(', id='empty levels', levels={}),
    ],
)
def test_optim_wrapper(tiny_model, cfg, words):
    from mmengine.optim import build_optim_wrapper

    model = tiny_model()
    with pytest.raises(ValueError) as error:
        build_optim_wrapper(model, dict(cfg, constructor='mmmlo.MultiLevelOptimWrapperConstructor'))
    check(error, words)


def check(error, words):
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message
