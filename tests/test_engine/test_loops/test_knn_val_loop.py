import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import mmmlo.registry  # noqa: F401  # makes mmpretrain importable everywhere
from mmmlo.datasets import DatasetFolderError, Digits, SplitDataset, SplitOverlapError
from mmmlo.engine.loops.knn_val_loop import KNNTestLoop, KNNValLoop

PIPELINE = [dict(type='PackInputs')]


def digits(split='train', **kwargs):
    return dict(type='mmmlo.Digits', split=split, size=8, pipeline=PIPELINE, **kwargs)


def part(name, **kwargs):
    return dict(type='mmmlo.SplitDataset', part=name, dataset=digits(**kwargs))


def make_model():
    from mmpretrain.models import BaseSelfSupervisor

    class Patches(BaseSelfSupervisor):
        """Tokens are the 2 x 2 patches of the image, each through one linear layer; the class token is 0."""

        def extract_feat(self, inputs):
            patches = nn.functional.unfold(inputs, kernel_size=2, stride=2).transpose(1, 2)
            tokens = self.backbone(patches)
            return (torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1),)

        def loss(self, inputs, data_samples):
            assert self.training, 'validation must leave the model in training mode'
            return dict(loss=1e-3 * self.backbone.weight.square().sum())

    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 32))
    backbone.weight = backbone[0].weight
    return Patches(backbone, data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3))


@HOOKS.register_module(force=True)
class RecordStages(Hook):
    """Writes down which stages were reached, and what they were given."""

    stages_seen: list

    def __init__(self):
        self.stages_seen, self.metrics, self.outputs = [], [], []
        for stage in ('before_val', 'before_val_epoch', 'after_val', 'before_test', 'before_test_epoch', 'after_test'):
            setattr(self, stage, lambda runner, stage=stage, **kwargs: self.stages_seen.append(stage))

    def after_val_epoch(self, runner, metrics=None):
        self.stages_seen.append('after_val_epoch')
        self.metrics.append(metrics)

    def after_test_epoch(self, runner, metrics=None):
        self.stages_seen.append('after_test_epoch')
        self.metrics.append(metrics)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.extend(outputs)


def config(work_dir, **updates):
    loader = dict(
        batch_size=64,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    cfg = dict(
        work_dir=str(work_dir),
        experiment_name=Path(work_dir).name,
        default_scope='mmpretrain',
        log_level='WARNING',
        randomness=dict(seed=0),
        val_dataloader=dict(dataset=part('val'), **loader),
        val_cfg=dict(type='mmmlo.KNNValLoop', bank_dataloader=dict(dataset=part('train')), query_split='val'),
        val_evaluator=dict(type='Accuracy', topk=(1, 3), prefix='knn'),
        custom_hooks=[dict(type='mmengine.RecordStages')],
    )
    for key, value in updates.items():
        if isinstance(value, dict) and isinstance(cfg.get(key), dict):
            cfg[key] = {**cfg[key], **value}
        else:
            cfg[key] = value
    return copy.deepcopy(cfg)


@pytest.fixture
def make_runner(tmp_path):
    def make(train=False, **updates):
        if train:
            updates = {
                'train_dataloader': dict(
                    dataset=part('train', indices=256),
                    batch_size=64,
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    collate_fn=dict(type='default_collate'),
                ),
                'train_cfg': dict(by_epoch=True, max_epochs=2, val_interval=1),
                'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.1)),
                **updates,
            }
        return Runner(model=make_model(), **config(tmp_path, **updates))

    return make


def expected_top(model, bank, query, k=20, temperature=0.07):
    """Top-1 and top-3 by scikit-learn, on features computed here, image by image and in float64."""
    model = copy.deepcopy(model).double().eval()

    def feats(dataset):
        rows = []
        for i in range(len(dataset)):
            image = torch.from_numpy(dataset.get_data_info(i)['img']).permute(2, 0, 1).double()
            patches = ((image - 127.5) / 127.5).unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).reshape(16, 12)
            rows.append(model.backbone(patches).mean(0))
        return torch.stack(rows).detach().numpy()

    reference = KNeighborsClassifier(k, metric='cosine', weights=lambda distance: np.exp((1 - distance) / temperature))
    reference.fit(feats(bank), bank.get_gt_labels())
    ranked = np.argsort(-reference.predict_proba(feats(query)), axis=1)
    hits = ranked == query.get_gt_labels()[:, None]
    return 100 * hits[:, 0].mean(), 100 * hits[:, :3].any(1).mean()


def test_metrics_agree_with_scikit_learn(make_runner):
    runner = make_runner()
    metrics = runner.val()
    assert isinstance(runner.val_loop, KNNValLoop)
    query = SplitDataset(digits(), part='val')
    top1, top3 = expected_top(runner.model, SplitDataset(digits(), part='train'), query)
    assert 30 < top1 < 99
    # One image of 288 may fall on the other side of a near tie in float32.
    assert metrics['knn/top1'] == pytest.approx(top1, abs=0.5)
    assert metrics['knn/top3'] == pytest.approx(top3, abs=0.5)

    record = next(hook for hook in runner.hooks if isinstance(hook, RecordStages))
    assert record.stages_seen == ['before_val', 'before_val_epoch', 'after_val_epoch', 'after_val']
    assert record.metrics == [metrics]
    assert [int(sample.gt_label) for sample in record.outputs] == query.get_gt_labels().tolist()
    assert all(int(sample.pred_label) == int(sample.pred_score.argmax()) for sample in record.outputs)


def test_arguments_reach_the_classifier(make_runner):
    metrics = make_runner(val_cfg=dict(k=1, temperature=1.0)).val()
    model = make_model()
    top1, _ = expected_top(model, SplitDataset(digits(), part='train'), SplitDataset(digits(), part='val'), 1, 1.0)
    assert metrics['knn/top1'] == pytest.approx(top1, abs=0.5)
    # The class token is 0 for every image here, so that it knows nothing.
    assert make_runner(val_cfg=dict(token='cls')).val()['knn/top1'] < 30


def test_validates_while_training_and_keeps_the_best(make_runner, tmp_path):
    runner = make_runner(
        train=True, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='knn/top1'))
    )
    runner.train()
    record = next(hook for hook in runner.hooks if isinstance(hook, RecordStages))
    assert len(record.metrics) == 2
    assert list(tmp_path.glob('best_knn_top1_epoch_*.pth'))


def test_the_test_loop_classifies_test_images(make_runner):
    runner = make_runner(
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        test_dataloader=dict(
            dataset=digits('test'),
            batch_size=50,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        test_cfg=dict(type='mmmlo.KNNTestLoop', bank_dataloader=dict(dataset=part('train')), query_split='test'),
        test_evaluator=dict(type='Accuracy', prefix='knn'),
    )
    metrics = runner.test()
    assert isinstance(runner.test_loop, KNNTestLoop)
    top1, _ = expected_top(runner.model, SplitDataset(digits(), part='train'), Digits(split='test', size=8))
    assert metrics['knn/top1'] == pytest.approx(top1, abs=0.5)
    record = next(hook for hook in runner.hooks if isinstance(hook, RecordStages))
    assert record.stages_seen == ['before_test', 'before_test_epoch', 'after_test_epoch', 'after_test']


def test_the_bank_takes_over_what_the_query_loader_has(make_runner):
    runner = make_runner(
        val_dataloader=dict(
            dataset=part('val'),
            batch_size=13,
            num_workers=1,
            persistent_workers=True,
            drop_last=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )
    )
    loop = runner.build_val_loop(runner._val_loop)
    assert loop.bank_dataloader.batch_size == 13
    assert loop.bank_dataloader.num_workers == 1
    assert loop.bank_dataloader.persistent_workers
    assert len(loop.bank_dataloader.dataset) == 1150

    cfg = runner._val_loop | dict(bank_dataloader=dict(dataset=part('train'), batch_size=7, num_workers=0))
    loop = runner.build_val_loop(cfg)
    assert loop.bank_dataloader.batch_size == 7
    assert loop.bank_dataloader.num_workers == 0


@pytest.mark.parametrize('test_images', [digits('test'), part('val')])
def test_nothing_is_selected_by_test_images(make_runner, test_images, tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='auto'))
    updates = dict(val_dataloader=dict(dataset=test_images), val_cfg=dict(query_split='test'), train=True)
    with pytest.raises(ValueError, match=r"`val_cfg\.query_split` is 'test', so CheckpointHook would .* Leave `save_best`"):
        make_runner(default_hooks=hooks, **updates).train()
    assert not list(tmp_path.glob('*.pth')), 'the error must come before training'

    stopping = [dict(type='EarlyStoppingHook', monitor='knn/top1')]
    with pytest.raises(ValueError, match='so EarlyStoppingHook would choose by test images'):
        make_runner(custom_hooks=stopping, **updates).train()
    make_runner(**updates).train()


@pytest.mark.parametrize(
    ('updates', 'message'),
    [
        (
            dict(val_dataloader=dict(dataset=digits('test'))),
            r"`val_dataloader\.dataset` is Digits\(split='test'\), an official test split. .* `val_cfg\.query_split='test'`",
        ),
        (
            dict(val_cfg=dict(bank_dataloader=dict(dataset=digits('test')))),
            r"`val_cfg\.bank_dataloader\.dataset` is Digits\(split='test'\)",
        ),
        (
            dict(val_cfg=dict(bank_dataloader=dict(dataset=digits()))),
            r'`val_cfg\.bank_dataloader\.dataset` and `val_dataloader\.dataset` share 288 images',
        ),
        (
            dict(
                test_dataloader=dict(
                    dataset=digits(indices=30), batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
                ),
                test_cfg=dict(),
                test_evaluator=dict(type='Accuracy'),
            ),
            r'`val_dataloader\.dataset` and `test_dataloader\.dataset` share \d images, for example Digits#\d+\. '
            r"Take .*, or set `val_cfg\.query_split='test'`",
        ),
    ],
)
def test_overlaps_are_refused(make_runner, updates, message):
    with pytest.raises(SplitOverlapError, match=message):
        make_runner(**updates).val()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(query_split='train'), r"`val_cfg\.query_split` must be 'val' or 'test', not 'train'"),
        (dict(k=0), r'`val_cfg\.k` must be between 1 and the 1150 images of the bank, not 0'),
        (dict(k=5000), r'`val_cfg\.k` must be between 1 and the 1150 images of the bank, not 5000'),
        (dict(temperature=0.0), r'`val_cfg\.temperature` must be above 0'),
        (dict(token='avg'), r"`val_cfg\.token` must be 'mean' or 'cls', not 'avg'"),
        (dict(bank_dataloader=dict()), r'`val_cfg\.bank_dataloader\.dataset` is missing'),
        (
            dict(bank_dataloader=dict(dataset=part('train', metainfo=dict(classes=list('abcdefghij'))))),
            r'have different classes',
        ),
    ],
)
def test_wrong_arguments_are_named(make_runner, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_runner(val_cfg=wrong).val()


def test_missing_folders_are_named(make_runner, tmp_path):
    missing = dict(type='CustomDataset', data_root=str(tmp_path / 'no'))
    with pytest.raises(DatasetFolderError, match=r'`val_cfg\.bank_dataloader\.dataset\.data_root`'):
        make_runner(val_cfg=dict(bank_dataloader=dict(dataset=missing))).val()
    with pytest.raises(DatasetFolderError, match=r'`val_dataloader\.dataset\.data_root`'):
        make_runner(val_dataloader=dict(dataset=missing)).val()
    # Test images that are not on this machine are not needed to validate, and cannot leak.
    test = dict(dataset=missing, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    make_runner(test_dataloader=test, test_cfg=dict(), test_evaluator=dict(type='Accuracy')).val()


# 359 test images and 801 in the bank: of both, one is dealt to two processes and must count once.
ODD = dict(
    val_dataloader=dict(dataset=digits('test')),
    val_cfg=dict(query_split='test', bank_dataloader=dict(dataset=part('train', indices=1001))),
)


def validate_in_each_process(work_dir):
    torch.set_num_threads(1)
    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    # Not left to the runner, which asks for a GPU even where the backend is gloo.
    torch.distributed.init_process_group('gloo', init_method=os.environ['RENDEZVOUS'], rank=rank, world_size=world_size)
    runner = Runner(model=MMDistributedDataParallel(make_model()), launcher='pytorch', **config(work_dir, **ODD))
    metrics = runner.val()
    if rank == 0:
        (Path(work_dir) / 'metrics.json').write_text(json.dumps(metrics))
    torch.distributed.barrier()


@pytest.mark.dist
def test_two_processes_find_the_same(make_runner, run_in_processes, tmp_path):
    run_in_processes(__file__, str(tmp_path / 'dist'))
    metrics = json.loads((tmp_path / 'dist' / 'metrics.json').read_text())
    runner = make_runner(**ODD)
    assert metrics == pytest.approx(runner.val(), abs=1e-4)
    assert len(runner.val_loop.bank_dataloader.dataset) % 2 == 1


if __name__ == '__main__':
    validate_in_each_process(sys.argv[1])
    os._exit(0)  # gloo can hang while one process takes it down and another has gone
