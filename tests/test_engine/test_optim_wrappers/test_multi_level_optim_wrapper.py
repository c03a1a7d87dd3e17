"""Steps of the levels on a tiny MLO-MAE: who moves, by what, and what a checkpoint keeps."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper

LEVELS = ('pretrain', 'finetune', 'masking')


@pytest.fixture
def batches(tiny_batch):
    return lambda due, seed=0: {
        level: [tiny_batch(seed + 10 * i + j) for j in range(count)] for i, (level, count) in enumerate(due.items())
    }


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def parameters_of(model, level):
    modules = model.level_modules[level]
    return {n for n, p in model.named_parameters() if n.split('.')[0] in modules and p.requires_grad}


@pytest.mark.parametrize(
    'optimizer', [dict(type='AdamW', lr=1e-3, weight_decay=0.1), dict(type='SGD', lr=0.1, momentum=0.9)]
)
def test_each_step_moves_its_own_level_and_nothing_else(tiny_model, tiny_wrapper, batches, optimizer):
    """Bit for bit, over cycles, so that momentum and weight decay have had their chance."""
    model = tiny_model()
    wrapper = tiny_wrapper(model, **{level: dict(optimizer=optimizer) for level in LEVELS})
    apply_gradient, moved = wrapper.apply_gradient, []

    def watched(level, gradients):
        before = snapshot(model)
        apply_gradient(level, gradients)
        moved.append((level, changed(model, before)))

    wrapper.apply_gradient = watched
    start = snapshot(model)
    for iteration in range(6):
        wrapper.update_levels(model, batches(wrapper.due(), iteration))
    assert [level for level, _ in moved] == ['pretrain', *LEVELS] * 3
    for level, names in moved:
        assert names <= parameters_of(model, level)
        # Attention's key biases have no gradient, so not every single one must move under SGD.
        assert len(names) > 0.9 * len(parameters_of(model, level))
    assert changed(model, start) <= set().union(*(parameters_of(model, level) for level in LEVELS))
    assert wrapper.step_counts == dict(pretrain=6, finetune=3, masking=3)


def test_a_loss_level_steps_like_a_plain_optimizer(tiny_model, tiny_wrapper, batches):
    model = tiny_model(downstream=dict(dropout=0.0))
    twin = copy.deepcopy(model)
    wrapper = tiny_wrapper(model, masking=None)
    for parameter in model.masker.parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.AdamW(
        [p for m in (twin.backbone, twin.neck) for p in m.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.05
    )
    head = torch.optim.AdamW(twin.downstream.parameters(), lr=1e-3, weight_decay=0.05)
    for iteration in range(4):
        due = batches(wrapper.due(), iteration)
        logged = wrapper.update_levels(model, due)
        for level, chosen in (('pretrain', optimizer), ('finetune', head)):
            if level in due:
                loss = twin.level_loss(level, due[level][0])['loss']
                torch.testing.assert_close(logged[f'{level}/loss'], loss.detach())
                twin.zero_grad()
                loss.backward()
                chosen.step()
    for (name, value), expected in zip(model.state_dict().items(), twin.state_dict().values()):
        torch.testing.assert_close(value, expected, msg=name)


@pytest.fixture
def tiny_wrapper(tiny_wrapper):
    """A model whose masker does not learn needs it frozen before its levels are assigned."""

    def build(model, **updates):
        if updates.get('masking', ...) is None:
            for parameter in model.masker.parameters():
                parameter.requires_grad = False
        return tiny_wrapper(model, **updates)

    return build


def test_accumulated_micro_batches_equal_one_batch(tiny_model, tiny_wrapper, tiny_batch):
    """Every level, the hypergradient included: its losses are means over images, so halves average to the whole."""
    whole = {level: tiny_batch(seed, size=8) for seed, level in enumerate(LEVELS)}
    model = tiny_model(downstream=dict(dropout=0.0))
    twin = copy.deepcopy(model)
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    one = tiny_wrapper(model, pretrain=dict(sgd, steps=1), finetune=sgd, masking=dict(sgd))
    two = tiny_wrapper(
        twin,
        pretrain=dict(sgd, steps=1),
        finetune=dict(sgd, accumulative_counts=2),
        masking=dict(sgd, accumulative_counts=2),
    )

    def halves(batch):
        return [
            dict(inputs=batch['inputs'][part], data_samples=batch['data_samples'][part])
            for part in (slice(0, 4), slice(4, 8))
        ]

    one.update_levels(model, {level: [batch] for level, batch in whole.items()})
    # The lower levels' last batch enters the hypergradient, so finetune's halves are made equal.
    repeated = dict(whole, finetune=dict(whole['finetune']))
    two.update_levels(
        twin,
        dict(
            pretrain=[whole['pretrain']],
            finetune=[repeated['finetune']] * 2,
            masking=halves(whole['masking']),
        ),
    )
    assert two.step_counts == one.step_counts == dict(pretrain=1, finetune=1, masking=1)
    for (name, value), expected in zip(twin.state_dict().items(), model.state_dict().values()):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)


def test_gradients_are_clipped_level_by_level(tiny_model, tiny_wrapper, batches):
    model = tiny_model()
    lr, norm = 0.5, 1e-3
    wrapper = tiny_wrapper(
        model,
        masking=dict(optimizer=dict(type='SGD', lr=lr), clip_grad=dict(max_norm=norm)),
        pretrain=dict(optimizer=dict(type='SGD', lr=lr), steps=1),
    )
    before = snapshot(model)
    wrapper.update_levels(model, batches(wrapper.due()))
    after = model.state_dict()

    def length(level):
        return torch.stack([(after[n] - before[n]).norm() for n in parameters_of(model, level)]).norm().item()

    assert length('masking') == pytest.approx(lr * norm, rel=1e-4)
    assert length('pretrain') > 10 * lr * norm
    assert 'train/masking/grad_norm' in wrapper['masking'].message_hub.log_scalars


def test_state_goes_through_a_checkpoint(tiny_model, tiny_wrapper, batches, tmp_path):
    """Interrupted in the middle of a cycle, the run goes on as if nothing had happened."""
    model = tiny_model(downstream=dict(dropout=0.0))
    wrapper = tiny_wrapper(model)
    for iteration in range(3):
        wrapper.update_levels(model, batches(wrapper.due(), iteration))
    torch.save(dict(model=model.state_dict(), optimizer=wrapper.state_dict()), tmp_path / 'state.pth')

    other = tiny_model(seed=1, downstream=dict(dropout=0.0))
    resumed = tiny_wrapper(other)
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    other.load_state_dict(state['model'])
    resumed.load_state_dict(state['optimizer'])
    assert resumed.due() == wrapper.due() == dict(pretrain=1, finetune=1, masking=1)
    for iteration in range(3, 6):
        for each_model, each_wrapper in ((model, wrapper), (other, resumed)):
            each_wrapper.update_levels(each_model, batches(each_wrapper.due(), iteration))
    assert changed(other, snapshot(model)) == set()
    assert resumed.step_counts == wrapper.step_counts == dict(pretrain=6, finetune=3, masking=3)


def test_state_of_other_levels_is_refused(tiny_model, tiny_wrapper):
    wrapper = tiny_wrapper(tiny_model())
    fewer = tiny_wrapper(tiny_model(), masking=None)
    with pytest.raises(ValueError, match=r"optimizer state of \['pretrain', 'finetune'\]"):
        wrapper.load_state_dict(fewer.state_dict())


def test_wrong_batches_are_refused(tiny_model, tiny_wrapper, tiny_batch):
    model = tiny_model()
    wrapper = tiny_wrapper(model)
    with pytest.raises(ValueError, match=r"needs batches \{'pretrain': 1\}"):
        wrapper.update_levels(model, dict(pretrain=[tiny_batch(0)], masking=[tiny_batch(1)]))
    with pytest.raises(TypeError, match='MultiLevelTrainLoop'):
        wrapper.update_params(torch.zeros(()))


def test_bfloat16_on_every_level(tiny_model, tiny_wrapper, batches):
    """Parameters, their gradients and the hypergradient stay fp32; the losses stay close to fp32's."""
    losses = {}
    for kind in ('OptimWrapper', 'mmmlo.BFloat16OptimWrapper'):
        model = tiny_model(dtype=torch.float32, downstream=dict(dropout=0.0))
        wrapper = tiny_wrapper(model, **{level: dict(type=kind) for level in LEVELS})
        for iteration in range(4):
            due = {
                level: [dict(b, inputs=b['inputs'].float()) for b in group]
                for level, group in batches(wrapper.due(), iteration).items()
            }
            losses[kind] = wrapper.update_levels(model, due)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact, rounded = losses.values()
    for name, value in exact.items():
        assert rounded[name] == pytest.approx(value.item(), rel=0.03)
    assert any(rounded[name] != exact[name] for name in exact)


def test_loss_scaling_is_refused(tiny_model, monkeypatch):
    import mmengine.optim.optimizer.amp_optimizer_wrapper as amp

    # mmengine would refuse it on a CPU before ours could.
    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)
    with pytest.raises(ValueError, match=r'levels.pretrain.type is AmpOptimWrapper.*BFloat16OptimWrapper'):
        build_optim_wrapper(
            tiny_model(downstream=None, masker=dict(type='mmmlo.RandomMasker')),
            dict(
                constructor='mmmlo.MultiLevelOptimWrapperConstructor',
                levels=dict(pretrain=dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1))),
            ),
        )


def test_a_path_through_what_the_loss_does_not_reach(tiny_model, tiny_wrapper, batches):
    """The masking loss here reads the masker alone, so there is nothing to carry through the levels below."""
    model = tiny_model()
    inner = type(model).level_loss

    def level_loss(level, batch, fixed=None):
        if level == 'masking':
            return dict(loss=sum(p.square().sum() for p in model.masker.parameters()))
        return inner(model, level, batch, fixed)

    model.level_loss = level_loss
    wrapper = tiny_wrapper(model)
    wrapper.update_levels(model, batches(wrapper.due()))
    with pytest.raises(ValueError, match=r"loss of level 'masking' does not depend on any parameter of 'finetune'"):
        wrapper.update_levels(model, batches(wrapper.due()))
