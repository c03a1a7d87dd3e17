"""The data of a config, through its own data sets and pipelines."""

import copy
import importlib.util

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmmlo.launch.config import load_config
from mmmlo.preflight import check_data
from mmmlo.preflight.check_data import DataCheck, check_frameworks

LOAD = [dict(type='mmmlo.LoadImage'), dict(type='Resize', scale=(8, 8)), dict(type='PackInputs')]
RNG = np.random.default_rng(0)


def write(*paths, size=(12, 10), mode='RGB', **save):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, **save)


@pytest.fixture
def cfg(tmp_path):
    """Folders of two classes for an MLO-MAE: D_u, D_tr, D_val, a bank of kNN, and test data."""
    write(*(tmp_path / f'train/{name}/{i}.png' for name in ('cat', 'dog') for i in range(6)))
    write(*(tmp_path / f'test/{name}/{i}.png' for name in ('cat', 'dog') for i in range(2)))

    def loader(folder: str, part: str = '') -> dict:
        own = dict(type='mmmlo.ImageFolder', data_root=str(tmp_path), data_prefix=folder, pipeline=copy.deepcopy(LOAD))
        return dict(dataset=dict(type='mmmlo.SplitDataset', part=part, dataset=own) if part else own)

    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type='mmmlo.MLOMAE', downstream=dict(type='mmmlo.TokenClsHead', in_channels=8, num_classes=2)),
            train_dataloader=loader('train', 'train'),
            train_cfg=dict(dataloaders=dict(finetune=loader('train', 'train'), masking=loader('train', 'val'))),
            val_dataloader=loader('train', 'val'),
            val_cfg=dict(bank_dataloader=loader('train', 'train')),
            test_dataloader=loader('test'),
        )
    )


def look(cfg: Config, count: int = 200) -> tuple[list[str], str]:
    """What is told, and the problems."""
    told: list[str] = []
    problems = list(DataCheck(cfg, told.append).problems(count))
    return told, '\n'.join(('warning: ' if problem.warning else '') + str(problem) for problem in problems)


def test_all_loaders_are_looked_at_once(cfg, tmp_path):
    told, problems = look(cfg)
    assert not problems
    assert told == [
        'train_dataloader.dataset: 10 samples',
        f'  {tmp_path}/train: all 12 files are read',
        '  loaded 10 of 10: the first gives 3 x 8 x 8, torch.uint8',
        'train_cfg.dataloaders.masking.dataset: 2 samples',
        '  loaded 2 of 2: the first gives 3 x 8 x 8, torch.uint8',
        'test_dataloader.dataset: 4 samples',
        f'  {tmp_path}/test: all 4 files are read',
        '  loaded 4 of 4: the first gives 3 x 8 x 8, torch.uint8',
    ]
    assert '  loaded 3 of 3: the first gives 3 x 8 x 8, torch.uint8' in look(cfg, 3)[0]


@pytest.mark.parametrize(
    ('name', 'save'),
    [
        ('a.JPG', dict(format='JPEG')),
        ('a.jpeg', dict(mode='CMYK')),
        ('a.tif', {}),
        ('a.webp', {}),
        ('a.gif', dict(mode='P')),
        ('a.jfif', dict(format='JPEG')),
        ('a.bmp', {}),
        ('thin.png', dict(size=(1, 300))),
        ('.ipynb_checkpoints/a.png', {}),
        ('._a.png', {}),
    ],
)
def test_what_training_reads_is_read(cfg, tmp_path, name, save):
    write(tmp_path / 'train/cat' / name, **save)
    told, problems = look(cfg)
    hidden = name.startswith('.ipynb')  # mmengine does not even list hidden files
    listed = 12 if name.startswith('._') else 13
    assert not problems
    counts = '12 of 13 files are read; 1 hidden are not' if hidden else f'all {listed} files are read'
    assert f'  {tmp_path}/train: {counts}' in told


@pytest.mark.parametrize('kind', ['mmmlo.ImageFolder', 'CustomDataset'])
def test_images_that_are_left_out_are_counted_and_named(cfg, tmp_path, kind):
    write(tmp_path / 'test/loose.png', tmp_path / 'test/cat/a.WebP')
    (tmp_path / 'test/cat/a.txt').touch()
    cfg.test_dataloader.dataset.type = kind
    told, problems = look(cfg)
    ours = kind == 'mmmlo.ImageFolder'
    counts = '5 of 7 files are read; ' if ours else '4 of 7 files are read; 1 .WebP, '
    assert f'  {tmp_path}/test: {counts}1 .png, 1 .txt are not' in told
    assert problems.startswith(f'warning: test_dataloader.dataset: {2 - ours} images of {tmp_path}/test are left out by ')
    assert 'test/loose.png' in problems


def test_files_that_a_list_leaves_out_are_no_problem(cfg, tmp_path):
    (tmp_path / 'test.txt').write_text('cat/0.png 0\ndog/0.png 1\n')
    own = cfg.test_dataloader.dataset
    own.update(ann_file='test.txt', metainfo=dict(classes=('cat', 'dog')))
    told, problems = look(cfg)
    assert not problems
    counts = f'2 of 4 files are read; 2 .png are not; {tmp_path}/test.txt lists those that are'
    assert f'  {tmp_path}/test: {counts}' in told
    (tmp_path / 'test.txt').write_text('cat/0.png 0\ndog/7.png 1\n')
    assert 'test_dataloader.dataset: 1 of 2 images cannot be decoded: ' in look(cfg)[1]


@pytest.mark.parametrize('content', [b'', b'no image', None])
def test_broken_images_are_named_by_any_loader(cfg, tmp_path, content):
    path = tmp_path / 'test/dog/1.png'
    path.write_bytes(path.read_bytes()[:-150] if content is None else content)
    for kind in ('mmmlo.LoadImage', 'LoadImageFromFile'):
        cfg.test_dataloader.dataset.pipeline[0].type = kind
        problems = look(cfg)[1]
        if content is not None or kind == 'mmmlo.LoadImage' and problems:
            assert problems.startswith('test_dataloader.dataset: 1 of 4 images cannot be decoded: ')
            assert str(path) in problems


def test_images_of_16_bits_are_refused_with_the_key_to_set(cfg, tmp_path):
    Image.fromarray(np.full((10, 12), 9000, np.uint16)).save(tmp_path / 'test/dog/deep.png')
    assert 'set `max_value` of mmmlo.LoadImage' in look(cfg)[1]
    cfg.test_dataloader.dataset.pipeline[0].max_value = 65535
    assert not look(cfg)[1]


def test_pipelines_and_folders_that_fail_are_one_line(cfg, tmp_path):
    cfg.train_cfg.dataloaders.masking.dataset.dataset.pipeline[1] = dict(type='Resize', scale=(8, 8), interpolation='no')
    cfg.test_dataloader.dataset.data_prefix = 'no'
    cfg.val_dataloader.dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'train/cat'), pipeline=[])
    lines = look(cfg)[1].splitlines()
    assert lines[0].startswith('train_cfg.dataloaders.masking.dataset: 2 of 2 images cannot be decoded')
    assert lines[1].startswith('val_dataloader.dataset: cannot be read (')
    assert lines[2].startswith('`test_dataloader.dataset.data_prefix`: there is no folder')


def test_classes_are_compared_where_labels_are_used(cfg, tmp_path):
    (tmp_path / 'test/dog').rename(tmp_path / 'test/owl')
    assert '`test_dataloader.dataset` lacks dog' in look(cfg)[1]
    write(tmp_path / 'all/bird/0.png', tmp_path / 'all/bird/1.png')
    cfg.train_dataloader.dataset.dataset.data_prefix = 'all'  # unlabelled D_u
    (tmp_path / 'test/owl').rename(tmp_path / 'test/dog')
    assert not look(cfg)[1]
    cfg.model.downstream.num_classes = 1
    assert look(cfg)[1] == (
        'model.downstream.num_classes is 1, but the images of train_cfg.dataloaders.finetune have 2 classes; set '
        'model.downstream.num_classes=2'
    )


def test_a_task_of_the_levels_may_have_other_classes_than_knn(cfg):
    steps = [dict(type='mmdet.LoadAnnotations'), dict(type='mmdet.PackDetInputs')]
    split = dict(type='mmmlo.SplitDataset', dataset=dict(type='mmmlo.SyntheticImages', boxes=True, pipeline=steps))
    parts = dict(finetune='train', masking='val')
    cfg.train_cfg.dataloaders = {level: dict(dataset=dict(split, part=part)) for level, part in parts.items()}
    head = dict(type='mmdet.FCOSHead', num_classes=10, in_channels=8, loss_cls=dict(type='mmmlo.PlainFocalLoss'))
    cfg.model.downstream = dict(type='mmmlo.DetectionTask', head=head)
    assert not look(cfg)[1]
    cfg.model.downstream.head.num_classes = 9
    assert 'head.num_classes is 9, but the images of train_cfg.dataloaders.finetune have 10 classes' in look(cfg)[1]


def test_a_task_without_labels_needs_none(cfg):
    for loader in (cfg.train_dataloader, *cfg.train_cfg.dataloaders.values()):
        loader.dataset.by_class = loader.dataset.dataset.with_label = False
    assert 'images without labels' in look(cfg)[1]
    decoder = dict(type='mmmlo.GridMAEDecoder', embed_dim=8, decoder_embed_dim=8, decoder_num_heads=2)
    cfg.model.downstream = dict(type='mmmlo.ReconstructionTask', decoder=decoder, head=dict(type='mmmlo.MaskedPixelHead'))
    assert not look(cfg)[1]


def test_several_labels_need_their_loss(cfg, tmp_path):
    (tmp_path / 'test.txt').write_text('cat/0.png 0,1\ndog/0.png 1\n')
    cfg.test_dataloader.dataset.update(ann_file='test.txt', metainfo=dict(classes=('cat', 'dog')))
    cfg.train_cfg.dataloaders = dict(finetune=cfg.test_dataloader)
    assert 'use_sigmoid=True' in look(cfg)[1]
    cfg.model.downstream.loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    assert not look(cfg)[1]


def test_images_that_both_splits_have(cfg, tmp_path):
    def leakage() -> str | None:
        check = DataCheck(cfg, lambda text: None)
        assert not list(check.problems(1))
        return check.leakage()

    assert leakage() is None
    (tmp_path / 'test/cat/copy.png').write_bytes((tmp_path / 'train/cat/0.png').read_bytes())
    text = leakage()
    assert text.startswith('1 of 5 test images are training images too, by content: ')
    assert text.endswith(f'{tmp_path}/test/cat/copy.png is {tmp_path}/train/cat/0.png')
    for i in range(6):  # parts of a split are looked at as a whole
        (tmp_path / f'test/cat/copy{i}.png').write_bytes((tmp_path / f'train/cat/{i}.png').read_bytes())
    assert leakage().startswith('7 of 11 test images')
    cfg.test_dataloader.dataset = dict(type='mmmlo.Digits', pipeline=LOAD[1:])
    cfg.model.downstream.num_classes = 10
    cfg.train_cfg = cfg.val_cfg = cfg.val_dataloader = None
    assert leakage() == 'there are no training and test files to compare'


def test_segmentation_goes_through_the_same_door(tmp_path, load_tool):
    module = load_tool('check_data.py', status=2)
    for split in ('train', 'val'):
        write(tmp_path / f'images/{split}/0.jpg', tmp_path / f'images/{split}/1.jpg', size=(480, 360))
        for i in range(2):
            write(tmp_path / f'annotations/{split}/{i}.png', size=(480, 360), mode='L')
            Image.fromarray(RNG.integers(0, 12, (360, 480), dtype=np.uint8)).save(tmp_path / f'annotations/{split}/{i}.png')
    cfg = load_config(module.__file__.replace('tools/check_data.py', 'configs/segmentation/linear_vit-mini-p16_camvid.py'))
    cfg = Config(module.move(cfg.to_dict(), 'data/camvid', str(tmp_path)))
    told, problems = look(cfg)
    assert not problems and told[0] == f'train_dataloader.dataset: {tmp_path}/images/train: all 2 files are read'
    assert '  loaded 2 of 2: the first gives 3 x 256 x 320, torch.uint8' in told
    Image.fromarray(np.full((360, 480), 12, np.uint8)).save(tmp_path / 'annotations/val/1.png')
    assert 'annotations/val/1.png holds, as it is loaded, the labels 12' in look(cfg)[1]


def test_an_mmcv_without_operators_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(check_data, 'find_spec', lambda name: None if name == 'mmcv._ext' else find(name))
    check_frameworks(Config(dict(default_scope='mmseg')))
    with pytest.raises(ImportError, match=r'mmcv with its operators \(mmcv._ext\).*tools/install.sh --force'):
        check_frameworks(Config(dict(default_scope='mmdet')))
