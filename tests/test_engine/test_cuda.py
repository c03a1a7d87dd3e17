"""What differs on a GPU: fp16, what waits for the device, and the measurements."""

import pytest
import torch

LEVELS = ('pretrain', 'finetune', 'masking')
pytestmark = pytest.mark.gpu


@pytest.fixture
def problem(tiny_model, tiny_wrapper, tiny_batch):
    """``problem(**level)``: a tiny MLO-MAE on the GPU, its wrapper with this config on each level, and its batches."""

    def build(**level):
        model = tiny_model(dtype=torch.float32, downstream=dict(dropout=0.0)).cuda()
        wrapper = tiny_wrapper(model, **{name: dict(level) for name in LEVELS})

        def batches(seed):
            drawn = {}
            for position, (name, count) in enumerate(wrapper.due().items()):
                group = [tiny_batch(seed + 10 * position + i, size=32, dtype=torch.float32) for i in range(count)]
                drawn[name] = [
                    dict(inputs=b['inputs'].cuda(), data_samples=[sample.cuda() for sample in b['data_samples']])
                    for b in group
                ]
            return drawn

        return model, wrapper, batches

    return build


@pytest.mark.parametrize(
    'level',
    [
        dict(type='AmpOptimWrapper', dtype='float16'),
        dict(type='AmpOptimWrapper', dtype='bfloat16'),
        dict(type='mmmlo.BFloat16OptimWrapper'),
    ],
    ids=lambda level: f'{level["type"]}-{level.get("dtype", "")}',
)
@pytest.mark.parametrize('accumulation', [1, 2])
def test_losses_stay_close_to_fp32(problem, level, accumulation):
    logged = []
    for kind in ({}, level):
        model, wrapper, batches = problem(**kind, accumulative_counts=accumulation)
        for iteration in range(20 * accumulation):
            values = wrapper.update_levels(model, batches(iteration))
        logged.append(values)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert all(p.isfinite().all() for p in model.parameters())
    for name in LEVELS:
        assert logged[1][f'{name}/loss'].item() == pytest.approx(logged[0][f'{name}/loss'].item(), rel=0.05)


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmmlo.BFloat16OptimWrapper'])
def test_a_step_of_the_lowest_level_does_not_wait_for_the_device(tiny_model, tiny_wrapper, tiny_batch, kind):
    """From a batch in pinned memory to the step, as in a run."""
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3, non_blocking=True)
    model = tiny_model(dtype=torch.float32, data_preprocessor=preprocessor).cuda()
    optimizer = dict(type='AdamW', lr=1e-3, fused=True)
    wrapper = tiny_wrapper(model, pretrain=dict(type=kind, optimizer=optimizer, clip_grad=dict(max_norm=1.0), steps=100))

    def step(seed):
        batch = tiny_batch(seed, dtype=torch.float32)
        batch = model.data_preprocessor(dict(inputs=batch['inputs'].pin_memory()), True)
        wrapper.update_levels(model, dict(pretrain=[batch]))

    for seed in range(4):  # until everything is allocated
        step(seed)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step(4)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_seconds_and_memory(problem):
    model, wrapper, batches = problem()
    wrapper.meter.deferred = True
    for iteration in range(4):
        logged = wrapper.update_levels(model, batches(iteration))
    for name in LEVELS:
        assert 0 < logged[f'{name}/seconds'].read() < 60
        assert logged[f'{name}/memory'] > 0
    wrapper.meter.deferred = False
    assert 'pretrain/seconds' not in wrapper.update_levels(model, batches(4))
