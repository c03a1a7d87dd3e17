"""Numbers of the model over a run. Resuming in Runners is tested with the curriculum, which has the same base."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmmlo.engine import ScheduleHook


def make_runner(model, epochs=4, batches=5):
    hub = MessageHub.get_instance('schedules')
    return SimpleNamespace(
        model=model, iter=0, train_dataloader=[None] * batches, max_iters=epochs * batches, message_hub=hub)


def run_of(length, **own):
    hook = ScheduleHook(dict(guided_share=own))
    return [hook.values_at(position, length)['guided_share'] for position in range(length)]


def test_shapes_and_ends():
    assert run_of(4, start=0, end=0.5) == [0.125, 0.25, 0.375, 0.5]  # HPM's 0.5 (e + 1) / E
    assert run_of(4, start=1, end=0, schedule='quadratic') == [1 - 1 / 16, 0.75, 1 - 9 / 16, 0]  # SemMAE's
    assert run_of(2, start=1, end=0, schedule='cosine') == pytest.approx([0.5, 0], abs=1e-12)
    assert run_of(4, start=0, end=1, schedule='constant', begin=0.5) == [0, 0, 1, 1]
    assert run_of(4, start=0.2, end=1, begin=0.5) == [0.2, 0.2, pytest.approx(0.6), 1]
    assert run_of(1, start=0, end=0.5, begin=0.9) == [0]  # nothing is left after the warm-up


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_model_gets_its_numbers_in_each_iteration(tiny_model, by_epoch):
    model = tiny_model(weighting=dict(type='mmmlo.TopWeights'), type='mmmlo.CLMAE', downstream=None)
    schedules = {
        'guided_share': dict(start=0, end=0.5), 'weighting.ratio': dict(start=1, end=11), 'weight_share': dict(
            start=0, end=1, schedule='constant', begin=0.5), 'curriculum_factor': dict(start=1, end=-1)}
    hook, runner, seen = ScheduleHook(schedules, by_epoch=by_epoch), make_runner(model), []
    hook.before_train(runner)
    for runner.iter in range(20):
        hook.before_train_iter(runner, 0)
        seen.append((model.guided_share, model.weighting.ratio, model.weight_share, model.curriculum_factor))
        assert runner.message_hub.get_scalar('train/weighting.ratio').current() == model.weighting.ratio
    step = [i // 5 * 5 + 5 if by_epoch else i + 1 for i in range(20)]
    expected = [(0.5 * s / 20, 1 + 10 * s / 20, float(i >= 10), 1 - 2 * s / 20) for i, s in enumerate(step)]
    assert [pytest.approx(values) for values in expected] == seen


def test_other_schedules_on_resume_are_refused(tiny_model):
    model, checkpoint = tiny_model(), {}
    ScheduleHook(dict(temperature=dict(start=1, end=0))).before_save_checkpoint(make_runner(model), checkpoint)
    for end, epochs, words in ((0, 4, None), (0.5, 4, "'end': 0.5"), (0, 3, "'length': 3")):
        hook, runner = ScheduleHook(dict(temperature=dict(start=1, end=end))), make_runner(model, epochs)
        hook.after_load_checkpoint(runner, checkpoint)
        runner.iter = 5
        if words is None:
            hook.before_train(runner)
            continue
        with pytest.raises(ValueError, match="The checkpoint's schedule is not this run's, and its numbers") as error:
            hook.before_train(runner)
        assert words in str(error.value)


@pytest.mark.parametrize(
    ('own', 'words'),
    [
        (dict(start=0), "needs start and end, and may have schedule and begin, got \\['start'\\]"),
        (dict(start=0, end=1, until=3), "got \\['end', 'start', 'until'\\]"),
        (dict(start=0, end=1, schedule='step'), "schedule must be one of \\['linear', .*, got 'step'"),
        (dict(start=0, end=1, begin=1), 'begin is a share of the run, from 0 to below 1, got 1'),
    ],
)
def test_what_is_no_schedule_is_refused_at_once(own, words):
    with pytest.raises(ValueError, match=r"ScheduleHook.schedules\['guided_share'\].*" + words):
        ScheduleHook(dict(guided_share=own))


@pytest.mark.parametrize('key', ['guided_shar', 'weighting.ratio', 'normalize_weights', 'masker'])
def test_a_number_that_the_model_has_not_is_refused(tiny_model, key):
    hook = ScheduleHook({key: dict(start=0, end=1)})
    with pytest.raises(ValueError, match=f'ScheduleHook sets model.{key}, but a MLOMAE has no such number'):
        hook.before_train(make_runner(tiny_model()))
