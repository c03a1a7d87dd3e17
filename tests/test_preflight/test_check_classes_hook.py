from types import SimpleNamespace

import pytest

from mmmlo.preflight import CheckClassesHook


def check(classes, **heads):
    modules = {name: SimpleNamespace(num_classes=outputs) for name, outputs in heads.items()}
    dataset = SimpleNamespace(metainfo={} if classes is None else dict(classes=list(range(classes))))
    CheckClassesHook().before_train(
        SimpleNamespace(model=SimpleNamespace(**modules), train_dataloader=SimpleNamespace(dataset=dataset))
    )


@pytest.mark.parametrize('name', ['downstream', 'head'])
def test_more_classes_than_outputs_are_refused(name):
    with pytest.raises(ValueError, match=f'model.{name}.num_classes is 10, but the images .* have 12 classes; set .*=12'):
        check(12, **{name: 10})


def test_fewer_are_warned_of_and_what_is_not_known_passes(monkeypatch):
    said = []
    monkeypatch.setattr('mmmlo.preflight.check_classes_hook.print_log', lambda text, *_: said.append(text))
    check(10, downstream=10)
    check(None, downstream=10)
    check(10)
    check(10, head=None)
    assert said == []
    check(7, downstream=10)
    assert said == [
        'model.downstream.num_classes is 10, but the images of train_dataloader have 7 classes; set '
        'model.downstream.num_classes=7'
    ]
