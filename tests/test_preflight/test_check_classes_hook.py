"""Datasets of real folders, whose labels mean the same or not."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmmlo.datasets import DataError
from mmmlo.engine import MultiLevelTrainLoop
from mmmlo.preflight import CheckClassesHook
from mmmlo.registry import DATASETS, MODELS


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def folder(tmp_path):
    """Write two images a class and return the config of their dataset: ``folder('test', 'cat', 'dog')``."""

    def write(split, *names, **settings):
        for path in [tmp_path / split / name / f'{i}.png' for name in names for i in range(2)]:
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), np.zeros((2, 2, 3), np.uint8))
        return dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=split, **settings)

    return write


def loader(cfg):
    return SimpleNamespace(dataset=DATASETS.build(cfg))


def make_runner(train, val=None, test=None, outputs=None, knn=False):
    """What the hook reads of a runner of mmpretrain's classifiers."""
    loop = dict(bank_dataloader={}) if knn else {}
    return SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(num_classes=outputs)),
        train_dataloader=loader(train),
        val_dataloader=val and loader(val),
        val_loop=val and SimpleNamespace(**loop),
        _val_dataloader=val and dict(dataset=val),
        _test_dataloader=test and dict(dataset=test),
        _test_loop=test and dict(type='TestLoop', **loop),
    )


def test_a_class_that_validation_or_test_data_lack_is_named(folder, tmp_path):
    train, less = folder('train', 'ant', 'bee', 'cat'), folder('test', 'bee', 'cat')
    for val, key in ((less, 'val'), (train, 'test')):
        message = (
            rf'`train_dataloader\.dataset` and `{key}_dataloader\.dataset` have different classes, so .*: `{key}_dataloader'
            r'\.dataset` lacks ant\. Give both the same folders of classes, which may be empty'
        )
        with pytest.raises(DataError, match=message):
            CheckClassesHook().before_train(make_runner(train, val=val, test=less))
    # As the message says: labels are right with an empty folder. Nearest neighbours do not ask the head.
    CheckClassesHook().before_train(make_runner(train, val=less, test=less, knn=True))
    (tmp_path / 'test/ant').mkdir()
    CheckClassesHook().before_train(make_runner(train, val=less, test=less))


def test_order_counts_and_so_do_folders_behind_the_names(folder):
    train = folder('train', 'bee', 'cat')
    swapped = folder('train', metainfo=dict(classes=['cat', 'bee']))
    with pytest.raises(DataError, match='label 0 is bee in the one and cat in the other'):
        CheckClassesHook().before_train(make_runner(train, val=swapped))
    names = dict(metainfo=dict(classes=['one', 'two']))
    with pytest.raises(DataError, match='`train_dataloader.dataset` lacks dog and `val_dataloader.dataset` lacks bee'):
        CheckClassesHook().before_train(make_runner(folder('train', **names), val=folder('test', 'cat', 'dog', **names)))


def test_data_without_names_is_left_alone_unless_it_has_no_labels(folder, tmp_path):
    (tmp_path / 'list.txt').write_text('bee/0.png 0\ncat/0.png 1\n')
    unnamed, unlabelled = folder('train', 'bee', 'cat', ann_file='list.txt'), folder('train', with_label=False)
    CheckClassesHook().before_train(make_runner(unnamed, val=folder('test', 'dog'), outputs=1))
    with pytest.raises(DataError, match='`train_dataloader.dataset` holds images without labels'):
        CheckClassesHook().before_train(make_runner(unlabelled, val=folder('test', 'dog'), outputs=1))


def test_more_classes_than_outputs_are_refused_and_fewer_warned_of(folder, monkeypatch):
    said = []
    monkeypatch.setattr('mmmlo.preflight.check_classes_hook.print_log', lambda text, *_: said.append(text))
    train = folder('train', 'bee', 'cat')
    CheckClassesHook().before_train(make_runner(train, outputs=2))
    assert said == []
    CheckClassesHook().before_train(make_runner(train, outputs=3))
    text = 'model.head.num_classes is {}, but the images of train_dataloader have 2 classes; set model.head.num_classes=2'
    assert said == [text.format(3)]
    with pytest.raises(DataError, match=text.format(1)):
        CheckClassesHook().before_train(make_runner(train, outputs=1))


def test_labelled_levels_are_compared_and_the_unlabelled_one_is_not(folder, tiny_model_cfg):
    model = MODELS.build(tiny_model_cfg(downstream=dict(num_classes=2)))

    def check(**levels):
        loop = MultiLevelTrainLoop.__new__(MultiLevelTrainLoop)
        loop.level_datasets = {level: DATASETS.build(cfg) for level, cfg in levels.items()}
        CheckClassesHook().before_train(SimpleNamespace(model=model, train_loop=loop))

    pets, more, pictures = folder('pets', 'cat', 'dog'), folder('more', 'cat', 'dog', 'eel'), folder('pictures', 'anything')
    parts = {part: dict(type='mmmlo.SplitDataset', part=part, dataset=pets) for part in ('train', 'val')}
    check(pretrain=pictures, finetune=parts['train'], masking=parts['val'])
    with pytest.raises(DataError, match='`train_cfg.dataloaders.finetune.dataset` lacks eel'):
        check(pretrain=pictures, finetune=parts['train'], masking=more)
    message = 'model.downstream.num_classes is 2, but the images of train_cfg.dataloaders.finetune have 3 classes; set .*=3'
    with pytest.raises(DataError, match=message):
        check(pretrain=pictures, finetune=more, masking=more)


def test_a_head_among_the_extra_losses_is_compared_with_what_it_learns_from(folder, tiny_model_cfg):
    head = dict(type='mmmlo.TokenClsHead', num_classes=2, in_channels=48)
    supervised = dict(type='mmmlo.SupervisedLoss', head=head)
    model = MODELS.build(
        tiny_model_cfg(type='mmmlo.MAE', masker=None, downstream=None, extra_losses=dict(supervised=supervised)))
    runner = make_runner(folder('train', 'ant', 'bee', 'cat'))
    runner.model, runner.train_loop = model, SimpleNamespace()
    wrong = r'model.extra_losses.supervised.head.num_classes is 2, but the images of {} have 3 classes'
    with pytest.raises(DataError, match=wrong.format('train_dataloader')):
        CheckClassesHook().before_train(runner)
    labelled = loader(folder('some', 'ant', 'bee', 'cat')).dataset
    runner.train_loop.level_datasets = dict(pretrain=loader(folder('train', 'ant', 'bee')).dataset, labelled=labelled)
    with pytest.raises(DataError, match=wrong.format('train_cfg.dataloaders.labelled')):
        CheckClassesHook().before_train(runner)


def test_a_test_run_compares_with_the_classes_of_the_checkpoint(folder):
    hook, test = CheckClassesHook(), folder('test', 'bee', 'cat')
    runner = SimpleNamespace(
        model=SimpleNamespace(), test_loop=SimpleNamespace(), test_dataloader=loader(test), _train_loop={}
    )
    hook.before_test(runner)  # a checkpoint that names no classes
    hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=('bee', 'cat')))))
    hook.before_test(runner)
    hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=('ant', 'bee', 'cat')))))
    with pytest.raises(DataError, match='`load_from` and `test_dataloader.dataset` have different .* lacks ant'):
        hook.before_test(runner)
