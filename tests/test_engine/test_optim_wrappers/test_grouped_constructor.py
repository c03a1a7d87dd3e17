import copy

import torch
from mmengine.optim import build_optim_wrapper

import mmmlo.engine  # noqa: F401  registers the constructor

CFG = dict(
    optimizer=dict(type='AdamW', lr=1e-2, betas=(0.9, 0.95), weight_decay=0.3),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(cls_token=dict(lr_mult=0.5))),
)


def build(model, **kwargs):
    return build_optim_wrapper(model, copy.deepcopy(CFG) | kwargs)


def test_one_group_for_each_setting_and_the_same_steps(tiny_model, tiny_batch):
    plain = tiny_model()
    grouped = copy.deepcopy(plain)
    wrappers = [build(plain), build(grouped, constructor='mmmlo.GroupedOptimWrapperConstructor')]
    groups = wrappers[1].optimizer.param_groups
    assert [(group['lr'], group['weight_decay']) for group in groups] == [(0.005, 0.3), (0.01, 0.3), (0.01, 0.0)]
    assert len(wrappers[0].optimizer.param_groups) == sum(len(group['params']) for group in groups)
    for _ in range(2):
        for model, wrapper in zip((plain, grouped), wrappers):
            wrapper.update_params(model.loss(**tiny_batch(0))['loss'])
    for (name, expected), actual in zip(plain.named_parameters(), grouped.named_parameters()):
        torch.testing.assert_close(actual[1], expected, rtol=0, atol=0, msg=name)


def test_levels_have_it_by_default(tiny_model, tiny_wrapper):
    wrapper = tiny_wrapper(tiny_model(), pretrain=copy.deepcopy(CFG))
    assert len(wrapper['pretrain'].optimizer.param_groups) == 3
