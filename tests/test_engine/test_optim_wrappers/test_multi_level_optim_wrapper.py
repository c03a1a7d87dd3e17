"""Steps of the levels on a tiny MLO-MAE: who moves, by what, and what a checkpoint keeps."""

import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

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


def skips(wrapper):
    return {name: wrapper.level(name).guard.read() for name in wrapper.levels}


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
    moved = []

    def watch(level):
        def watched(gradients=None, apply_gradient=level.apply_gradient):
            before = snapshot(model)
            apply_gradient(gradients)
            moved.append((level.name, changed(model, before)))

        level.apply_gradient = watched

    for name in LEVELS:
        watch(wrapper.level(name))
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
    logged = wrapper.update_levels(model, batches(wrapper.due()))
    after = model.state_dict()

    def length(level):
        return torch.stack([(after[n] - before[n]).norm() for n in parameters_of(model, level)]).norm().item()

    assert length('masking') == pytest.approx(lr * norm, rel=1e-4)
    assert length('pretrain') > 10 * lr * norm
    # The norms are those before clipping.
    assert logged['masking/grad_norm'] > 2 * norm
    assert length('pretrain') == pytest.approx(lr * logged['pretrain/grad_norm'].item(), rel=1e-4)


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
    with pytest.raises(ValueError, match='MultiLevelTrainLoop'):
        wrapper.optim_context(model)


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
    names = [name for name in exact if name.endswith('loss')]
    assert len(names) == 3
    for name in names:
        assert rounded[name] == pytest.approx(exact[name].item(), rel=0.03)
    assert any(rounded[name] != exact[name] for name in names)


class CPUAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's, with PyTorch's loss scaler for CPUs: mmengine's asks for a GPU in its constructor."""

    def __init__(self, loss_scale, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.cast_dtype = torch.float16
        self.loss_scaler = torch.amp.GradScaler('cpu', **loss_scale)

    @contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), torch.autocast('cpu', dtype=self.cast_dtype):
            yield


@pytest.fixture
def scaled():
    """Level config with a loss scale of 2^10; ``scaled(init_scale=...)``."""
    OPTIM_WRAPPERS.register_module(module=CPUAmpOptimWrapper, force=True)
    yield lambda **scale: dict(
        type='CPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01), loss_scale=dict(init_scale=2.0**10, **scale)
    )
    OPTIM_WRAPPERS._module_dict.pop('CPUAmpOptimWrapper')


@pytest.mark.parametrize('accumulation', [1, 2])
def test_fp16_with_a_scaler_a_level_moves_as_without(tiny_model, tiny_wrapper, batches, scaled, accumulation):
    """Scale in, scale out: with fp16's rounding switched off the parameters are the same, clipping included."""
    models = []
    for kind in (dict(optimizer=dict(type='SGD', lr=0.01)), scaled()):
        model = tiny_model(downstream=dict(dropout=0.0))
        level = dict(kind, clip_grad=dict(max_norm=0.01), accumulative_counts=accumulation)
        wrapper = tiny_wrapper(model, **{name: copy.deepcopy(level) for name in LEVELS})
        for name in LEVELS:
            if hasattr(wrapper[name], 'cast_dtype'):
                wrapper[name].optim_context = lambda model: nullcontext()
        logged = [wrapper.update_levels(model, batches(wrapper.due(), iteration)) for iteration in range(4 * accumulation)]
        models.append((model, logged[-1]))
    (plain, norms), (amp, scaled_norms) = models
    for (name, value), expected in zip(amp.state_dict().items(), plain.state_dict().values()):
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-10, msg=name)
    for name in norms:
        if 'norm' in name:
            torch.testing.assert_close(scaled_norms[name], norms[name], rtol=1e-6, atol=0)


def test_fp16_stays_close_to_fp32(tiny_model, tiny_wrapper, batches, scaled):
    losses = []
    for kind in (dict(optimizer=dict(type='SGD', lr=0.01)), scaled()):
        model = tiny_model(dtype=torch.float32, downstream=dict(dropout=0.0))
        wrapper = tiny_wrapper(model, **{name: copy.deepcopy(kind) for name in LEVELS})
        for iteration in range(4):
            due = {
                level: [dict(b, inputs=b['inputs'].float()) for b in group]
                for level, group in batches(wrapper.due(), iteration).items()
            }
            logged = wrapper.update_levels(model, due)
        losses.append(logged)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in ('pretrain/loss', 'finetune/loss', 'masking/loss', 'masking/hypergradient_norm'):
        assert losses[1][name] == pytest.approx(losses[0][name].item(), rel=0.05)
        assert losses[1][name] != losses[0][name]


def test_fp16_overflow_of_v_leaves_the_step_out_and_lowers_the_scale(tiny_model, tiny_wrapper, batches, scaled):
    """A scale that no fp16 number survives: v is not finite, so no edge is crossed and the masker stands still."""
    model = tiny_model(dtype=torch.float32, downstream=dict(dropout=0.0))
    wrapper = tiny_wrapper(model, masking=dict(scaled(), loss_scale=dict(init_scale=2.0**127)))
    crossed = []
    traversal = wrapper._traversals['masking']
    traversal.cross = lambda *args, cross=traversal.cross: crossed.append(args) or cross(*args)
    before = snapshot(model)
    for iteration in range(2):
        due = {
            level: [dict(b, inputs=b['inputs'].float()) for b in group]
            for level, group in batches(wrapper.due(), iteration).items()
        }
        wrapper.update_levels(model, due)
    assert crossed == []
    assert not changed(model, before) & parameters_of(model, 'masking')
    assert wrapper['masking'].loss_scaler.get_scale() == 2.0**126
    assert wrapper.step_counts == dict(pretrain=2, finetune=1, masking=1)
    assert skips(wrapper) == dict(pretrain=(0, 0), finetune=(0, 0), masking=(1, 1))


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('where', ['loss', 'gradient'])
@pytest.mark.parametrize('level', ['pretrain', 'finetune', 'masking'])
def test_a_level_stands_still_when_its_loss_or_gradient_is_not_finite(
    tiny_model, tiny_wrapper, batches, level, where, fused
):
    model = tiny_model()
    updates = dict(pretrain=dict(steps=1))
    updates[level] = updates.get(level, {}) | dict(optimizer=dict(fused=fused))
    wrapper = tiny_wrapper(model, **updates)
    level_loss, broken = model.level_loss, []

    def loss(name, batch, fixed=None):
        losses = level_loss(name, batch, fixed)
        if name == level and broken:
            total = losses['loss']
            if where == 'loss':  # with a gradient that is finite
                losses['loss'] = total + torch.inf
            else:
                total.register_hook(lambda gradient: gradient * torch.nan)
        return losses

    model.level_loss = loss
    own = parameters_of(model, level)
    for iteration, bad in enumerate([False, True, False]):
        broken[:] = [1] * bad
        before = snapshot(model)
        wrapper.update_levels(model, batches(wrapper.due(), iteration))
        if where == 'loss':  # gradients of lower levels are in the hypergradient too
            assert [name for name, (_, in_a_row) in skips(wrapper).items() if in_a_row] == [level] * bad
        assert bool(changed(model, before) & own) != bad
        assert all(value.isfinite().all() for value in model.state_dict().values())
    assert skips(wrapper)[level] == (1, 0)
    assert wrapper.step_counts[level] == 3


def test_non_finite_hypergradients_are_left_out_and_counted(tiny_model, tiny_wrapper, batches):
    model = tiny_model()
    wrapper = tiny_wrapper(model, pretrain=dict(steps=1))
    traversal, broken = wrapper._traversals['masking'], []
    cross_edges = traversal.cross

    def cross(*args):
        factor = torch.nan if broken else 1.0
        return {
            upper: [None if c is None else c * factor for c in carried] for upper, carried in cross_edges(*args).items()
        }

    traversal.cross = cross
    masker, state = parameters_of(model, 'masking'), None
    for iteration, bad in enumerate([False, True, True, False, True, True]):
        broken[:] = [1] * bad
        before = snapshot(model)
        wrapper.update_levels(model, batches(wrapper.due(), iteration))
        assert bool(skips(wrapper)['masking'][1]) == bad
        assert bool(changed(model, before) & masker) != bad
        assert all(value.isfinite().all() for value in model.state_dict().values())
        state = wrapper.state_dict()
    assert state['skip_counts'] == dict(pretrain=0, finetune=0, masking=4)
    # A resumed run goes on counting.
    other = tiny_model()
    resumed = tiny_wrapper(other, pretrain=dict(steps=1))
    resumed.load_state_dict(copy.deepcopy(state))
    assert resumed.state_dict()['skips_in_a_row'] == state['skips_in_a_row'] == dict(pretrain=0, finetune=0, masking=2)
    # Schedules keep their length.
    assert state['step_counts'] == dict(pretrain=6, finetune=6, masking=6)


def test_adam_precondition_uses_the_last_step_s_gradients(tiny_model, tiny_wrapper, batches):
    model = tiny_model(downstream=dict(dropout=0.0))
    adam = tiny_wrapper(model, masking=dict(hypergradient=dict(type='mmmlo.ForwardMode', precondition='adam')))
    plain = tiny_wrapper(model)
    for iteration in range(2):
        given = batches(adam.due(), iteration)
        adam.update_levels(model, given)
    given = {level: group[-1] for level, group in given.items()}
    torch.manual_seed(0)
    scaled = adam.hypergradient(model, 'masking', given['masking'], given)[0]
    torch.manual_seed(0)
    identity = plain.hypergradient(model, 'masking', given['masking'], given)[0]
    flat, other = (torch.cat([g.flatten() for g in gradients]) for gradients in (scaled, identity))
    cosine = torch.nn.functional.cosine_similarity(flat, other, dim=0)
    assert flat.isfinite().all() and flat.norm() > 0
    assert abs(cosine) < 0.999
    fresh = tiny_wrapper(model, masking=dict(hypergradient=dict(type='mmmlo.ForwardMode', precondition='adam')))
    with pytest.raises(ValueError, match='last step'):
        fresh.hypergradient(model, 'masking', given['masking'], given)
    # A checkpoint holds them: a loss scaler may leave out the first step after it.
    fresh.load_state_dict(copy.deepcopy(adam.state_dict()))
    torch.manual_seed(0)
    restored = fresh.hypergradient(model, 'masking', given['masking'], given)[0]
    assert all(torch.equal(a, b) for a, b in zip(restored, scaled, strict=True))


@pytest.mark.parametrize('estimator', ['ForwardMode', 'FiniteDifference', 'ConjugateGradient'])
def test_hypergradients_leave_buffers_alone(tiny_model, tiny_wrapper, batches, estimator):
    """Batch norm's statistics are those of the levels' own passes, and of none at perturbed parameters."""
    model = tiny_model(downstream=dict(dropout=0.0))
    model.downstream.norm = torch.nn.BatchNorm1d(48).double()
    paths = dict(paths=['pretrain']) if estimator == 'ForwardMode' else {}  # it refuses batch norm on an edge
    masking = dict(hypergradient=dict(type=f'mmmlo.{estimator}'), **paths)
    wrapper = tiny_wrapper(model, pretrain=dict(steps=1), masking=masking)
    wrapper.update_levels(model, batches(wrapper.due()))
    assert model.downstream.norm.num_batches_tracked == 2  # finetune's loss and masking's


def test_an_estimator_for_each_lower_level(tiny_model, tiny_wrapper, batches):
    model = tiny_model(downstream=dict(dropout=0.0))
    solver = dict(type='mmmlo.ConjugateGradient', damping=1)
    each = dict(_delete_=True, pretrain=dict(type='mmmlo.ForwardMode'), finetune=solver)
    wrapper = tiny_wrapper(model, masking=dict(hypergradient=each))
    for iteration in range(2):
        logged = wrapper.update_levels(model, batches(wrapper.due(), iteration))
    assert logged['masking/vector_norm/finetune'] > 0 and logged['masking/vector_norm/pretrain'] > 0


def test_what_a_step_logs(tiny_model, tiny_wrapper, batches):
    model = tiny_model()
    wrapper = tiny_wrapper(model)
    first = wrapper.update_levels(model, batches(wrapper.due()))
    assert set(first) == {'pretrain/loss', 'pretrain/grad_norm', 'pretrain/seconds'}
    logged = wrapper.update_levels(model, batches(wrapper.due()))
    names = {f'{level}/{name}' for level in LEVELS for name in ('loss', 'grad_norm', 'seconds')}
    more = {'hypergradient_norm', 'vector_norm/pretrain', 'vector_norm/finetune'}
    assert set(logged) == names | {f'masking/{name}' for name in more}
    torch.testing.assert_close(logged['masking/grad_norm'], logged['masking/hypergradient_norm'])
    assert all(value > 0 for value in logged.values())


def test_the_cosine_of_hypergradients_in_a_row(tiny_model, tiny_wrapper, batches):
    """1 for the same batches at the same weights, nothing for the first one; and that of vectors written down."""
    model, cosines = tiny_model(downstream=dict(dropout=0.0)), []
    wrapper = tiny_wrapper(model, **{level: dict(optimizer=dict(type='SGD', lr=0.0)) for level in LEVELS})
    for seed in (0, 0, 0, 0, 1, 1):
        logged = wrapper.update_levels(model, batches(wrapper.due(), seed))
        cosines += [logged.get('masking/hypergradient_cosine')] if 'masking/loss' in logged else []
    assert cosines[0] is None
    torch.testing.assert_close(cosines[1].item(), 1.0)
    assert abs(cosines[2]) < 0.99
    level = tiny_wrapper(model).level('masking')
    for a, b in ((3.0, 0.0), (1.0, 1.0)):
        level.log_hypergradient([torch.tensor([a]), torch.tensor([b, 0.0])])
    torch.testing.assert_close(level.logged['masking/hypergradient_cosine'][-1], torch.tensor(0.5**0.5))


def test_a_held_level_looks_and_stays(tiny_model, tiny_wrapper, batches):
    model = tiny_model()
    wrapper = tiny_wrapper(model, masking=dict(accumulative_counts=2))
    wrapper.level('masking').held = True
    before = snapshot(model)
    for seed in range(4):
        logged = wrapper.update_levels(model, batches(wrapper.due(), seed))
    assert set(logged) >= {'masking/loss'} and 'masking/hypergradient_norm' not in logged
    assert not any(name.startswith('masker.') for name in changed(model, before))
    assert wrapper.step_counts == dict(pretrain=4, finetune=2, masking=2)


def test_start_and_every(tiny_model, tiny_wrapper, batches):
    model = tiny_model()
    wrapper = tiny_wrapper(model, pretrain=dict(steps=1), finetune=dict(start=1), masking=dict(start=2, every=2))
    ran = []
    for iteration in range(7):
        due = wrapper.due()
        wrapper.update_levels(model, batches(due, iteration))
        ran.append(''.join(level[0] for level in due))
    assert ran == ['p', 'pf', 'pf', 'pfm', 'pf', 'pfm', 'pf']
    assert wrapper.step_counts == wrapper.cadence.total_steps(7) == dict(pretrain=7, finetune=6, masking=2)


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


def encoder_passes(model, wrapper, batches, iterations):
    """Passes of unmasked images through the last layer of the encoder, in these iterations."""
    count = []
    layer = model.backbone.layers[-1]
    handle = layer.register_forward_hook(lambda module, args, output: count.append(args[0].shape[1] == 17))
    for _ in range(iterations):
        wrapper.update_levels(model, batches(wrapper.due()))
    handle.remove()
    return sum(count)


@pytest.mark.parametrize('estimator', ['ForwardMode', 'DoubleBackward'])
def test_a_shared_pass_changes_nothing_but_the_cost(tiny_model, tiny_wrapper, batches, estimator):
    """The pass on which the head learns serves the hypergradient too: one pass less a cycle, the same parameters."""
    models, passes = [], []
    for share in (True, False):
        torch.manual_seed(0)
        model = tiny_model(downstream=dict(dropout=0.0))
        wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}'), share_passes=share))
        passes.append(encoder_passes(model, wrapper, batches, 4))
        models.append(model)
        assert not wrapper._shared  # no activations are held between iterations
    assert passes == [4, 6]
    for (name, shared), plain in zip(models[0].named_parameters(), models[1].parameters()):
        torch.testing.assert_close(shared, plain, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    'updates',
    [
        dict(masking=dict(hypergradient=dict(type='mmmlo.FiniteDifference'))),  # needs full precision, and several passes
        dict(masking=dict(accumulative_counts=2)),  # the graph would serve two hypergradients
        dict(masking=dict(paths=['pretrain'])),
    ],
    ids=['estimator', 'accumulation', 'path'],
)
def test_passes_that_cannot_be_shared(tiny_model, tiny_wrapper, batches, updates):
    model = tiny_model()
    wrapper = tiny_wrapper(model, **updates)
    for _ in range(2):
        due = wrapper.due()
        assert not any(wrapper._recorded(model, wrapper.level(level), due) for level in due)
        wrapper.update_levels(model, batches(due))


def test_options_that_do_nothing_are_refused(tiny_model, tiny_wrapper):
    with pytest.raises(ValueError, match='optim_wrapper.levels.finetune.share_passes does nothing without paths'):
        tiny_wrapper(tiny_model(), finetune=dict(share_passes=False))
