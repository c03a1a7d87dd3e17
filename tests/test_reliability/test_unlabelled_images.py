"""Pretraining on images of which no or few have labels, by the configs for them: what runs, and what is said if not."""

import os.path as osp
import sys

import numpy as np
import pytest
from PIL import Image

from mmmlo.datasets import image_folder
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.config import dataloaders

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
LABELLED, UNLABELLED = (f'vit-mini-p4_1xb128-coslr-50e_{data}' for data in ('image-folder', 'unlabelled'))


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('train.py', status=1)


@pytest.fixture
def write(tmp_path):
    def images(folder, count):
        (tmp_path / 'data' / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'data' / folder / f'{i}.png')

    return images


@pytest.fixture
def train(tool, tmp_path, monkeypatch, capsys):
    """``train(name, change)``: the log of a tiny run of a config, or what is said after 'error: '."""

    def run(name, change=None):
        monkeypatch.chdir(tmp_path)
        image_folder._log_once.cache_clear()
        cfg = shrink(load_config(osp.join(ROOT, 'configs', name + '.py')), cycles=1)
        for loader in dataloaders(cfg):
            loader.batch_size = 4
        if change:
            change(cfg)
        cfg.dump(tmp_path / 'config.py')
        arguments = ['train.py', 'config.py', '--work-dir', 'run', '--cfg-options', f'experiment_name={tmp_path.name}']
        monkeypatch.setattr(sys, 'argv', arguments)
        try:
            tool.main()
        except SystemExit as error:
            assert error.code == 1
            return capsys.readouterr().err.splitlines()[-1]
        return next(tmp_path.glob('run/*/*.log')).read_text()

    return run


def unlabelled(dataset, root='data/unlabelled'):
    """Make a dataset one without labels, with the pipeline of what it was."""
    pipeline = dataset.get('pipeline') or dataset.dataset.pipeline
    dataset.clear()
    dataset.update(type='mmmlo.ImageFolder', data_root=root, with_label=False, pipeline=pipeline)


@pytest.mark.parametrize('name', ['mae/mae', 'cl_mae/cl-mae'])
def test_a_flat_folder_needs_no_labels(train, write, name):
    write('unlabelled', 8)
    log = train(f'{name}_{UNLABELLED}')
    assert 'data/unlabelled: all 8 files are read' in log and 'Saving checkpoint' in log


def test_of_deep_folders_all_images_are_read_and_other_files_counted(train, write, tmp_path):
    for folder in ('unlabelled/a/b/c/d', 'unlabelled/a', 'unlabelled/.cache/x'):
        write(folder, 4)
        (tmp_path / 'data' / folder / 'about.txt').touch()
    log = train(f'mae/mae_{UNLABELLED}')
    assert 'data/unlabelled: 8 of 15 files are read; 5 hidden, 2 .txt are not' in log and 'Saving checkpoint' in log


def test_a_few_labelled_images_do_for_knn(train, write):
    write('unlabelled', 8)
    for name in ('cat', 'dog'):
        write(f'images/train/{name}', 5)
    assert 'knn/top1: ' in train(f'mae/mae_{LABELLED}', lambda cfg: unlabelled(cfg.train_dataloader.dataset))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda levels: None, None),
        (
            lambda levels: unlabelled(levels.finetune.dataset),
            '`train_cfg.dataloaders.finetune.dataset` holds images without labels',
        ),
        (
            lambda levels: levels.masking.dataset.dataset.update(with_label=False),
            'train_cfg.dataloaders.masking.dataset: ImageFolder has no labels',
        ),
    ],
)
def test_mlo_mae_needs_labels_above_pretrain_alone(train, write, change, said):
    write('unlabelled', 8)
    for name in ('cat', 'dog'):
        write(f'images/train/{name}', 20)
    found = train(f'mlo_mae/mlo-mae_{UNLABELLED}', lambda cfg: change(cfg.train_cfg.dataloaders))
    assert found.startswith(f'error: {said}') if said else 'knn/top1: ' in found and 'all 8 files are read' in found


def test_nothing_to_read(train, write, tmp_path):
    write('unlabelled', 0)
    (tmp_path / 'data/unlabelled/list.txt').touch()
    said = train(f'mae/mae_{UNLABELLED}')
    assert said.startswith(
        'error: train_dataloader.dataset: data/unlabelled holds no image to read: 0 of 1 files are read; 1 .txt are not'
    )


def test_a_flat_folder_where_classes_are_asked_for(train, write):
    write('images/train', 8)
    said = train(f'mae/mae_{LABELLED}')
    assert said.startswith('error: train_dataloader.dataset: data/images/train holds no image to read')
    assert 'set `with_label=False` where no labels are needed' in said


@pytest.mark.parametrize(
    ('query', 'bank', 'said'),
    [
        (dict(every=6), dict(every=6), '`val_dataloader.dataset` has the one class every'),
        (dict(cat=6, dog=6), dict(cat=6, dog=0), '`val_cfg.bank_dataloader.dataset` has no image of dog'),
        (dict(cat=6, dog=6), dict(cat=2, dog=2), '`val_cfg.k` must be between 1 and the 4 images of the bank, not 5'),
        (None, dict(cat=6, dog=6), '`val_dataloader.dataset` does not name its classes'),
    ],
)
def test_what_knn_cannot_use(train, write, query, bank, said):
    def change(cfg):
        for dataset, root in ((cfg.val_dataloader.dataset, 'query'), (cfg.val_cfg.bank_dataloader.dataset, 'bank')):
            unlabelled(dataset, f'data/images/{root}')
            dataset.with_label = query is not None or root == 'bank'
        unlabelled(cfg.train_dataloader.dataset)

    write('unlabelled', 8)
    for root, classes in (('query', query or {'': 5}), ('bank', bank)):
        for name, count in classes.items():
            write(f'images/{root}/{name}', count)
    assert train(f'mae/mae_{LABELLED}', change).startswith(f'error: {said}')
