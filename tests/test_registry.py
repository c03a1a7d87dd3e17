"""Types of three projects side by side, in a fresh process under each default scope."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from mmmlo import compat
compat.apply()
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

init_default_scope(sys.argv[1])
arch = dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=48)
cfg = Config(dict(
    ours=dict(type='mmmlo.MaskedViT', arch=arch, img_size=16, patch_size=4),
    theirs=dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=16, patch_size=4),
))
for name in ('ours', 'theirs'):
    print(type(MODELS.build(cfg[name])).__module__)
"""


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg', 'mmdet'])
def test_prefixed_types_mean_the_same_under_every_scope(scope):
    result = subprocess.run([sys.executable, '-c', PROGRAM, scope], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split('\n')[-3:-1] == [
        'mmmlo.models.backbones.masked_vit',
        'mmpretrain.models.backbones.vision_transformer',
    ]


def test_all_registries_are_children_of_mmengine_s_roots():
    from mmengine import registry as root

    from mmmlo import registry

    names = [name for name in registry.__all__ if name != 'HYPERGRADIENTS']
    for name in names:
        child = getattr(registry, name)
        parent = getattr(root, 'EVALUATOR' if name == 'EVALUATORS' else name)
        assert (child.scope, child.parent) == ('mmmlo', parent)
        assert parent._search_child('mmmlo') is child


def test_locations_register_what_they_hold():
    from mmmlo.registry import DATASETS, HOOKS, HYPERGRADIENTS, LOOPS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS

    for registry, name in (
        (MODELS, 'MLOMAE'),
        (DATASETS, 'SplitDataset'),
        (LOOPS, 'MultiLevelTrainLoop'),
        (HOOKS, 'LevelParamSchedulerHook'),
        (OPTIM_WRAPPER_CONSTRUCTORS, 'MultiLevelOptimWrapperConstructor'),
        (HYPERGRADIENTS, 'ForwardMode'),
    ):
        assert registry.get(f'mmmlo.{name}').__name__ == name
