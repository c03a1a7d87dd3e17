"""tools/analysis_tools/plot_masks.py: the numbers, the colours, and one error for each wrong usage."""

import json
import os
import os.path as osp
import subprocess
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
from matplotlib import image as reader
from matplotlib.text import Text
from mmengine.registry import init_default_scope

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.models.maskers import mask_statistics
from mmmlo.registry import MODELS
from mmmlo.visualization import masks

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
SCRIPT = osp.join(ROOT, 'tools', 'analysis_tools', 'plot_masks.py')
CONFIGS = dict(
    mae='configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
    mlo_mae='configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
)


@pytest.fixture(scope='module')
def tool(load_tool):
    """The script as a module."""
    return load_tool('analysis_tools/plot_masks.py')


def tiny(method='mlo_mae', **model):
    """A shrunken digits config."""
    cfg = shrink(load_config(osp.join(ROOT, CONFIGS[method])))
    cfg.merge_from_dict(dict(model=model))
    return cfg


def build(cfg, seed=0):
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if cfg.model.get('masker') is not None:
        with torch.no_grad():
            model.masker.layers[-1].bias.copy_(4 * torch.randn(16))  # scores of which some are saturated
    return model.eval()


def save(path, cfg, model):
    """Write a checkpoint as mmengine does."""
    torch.save(dict(meta=dict(cfg=cfg.pretty_text, epoch=1, iter=4), state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Checkpoints of MAE and MLO-MAE, and a folder of nine images of several sizes in two classes."""
    folder = tmp_path_factory.mktemp('masks')
    for method in CONFIGS:
        save(folder / f'{method}.pth', tiny(method), build(tiny(method)))
    random = np.random.RandomState(0)
    for index in range(9):
        path = folder / 'images' / 'ab'[index % 2] / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.randint(0, 256, (16 + index, 20, 3)).astype(np.uint8))
    return folder


@pytest.fixture
def run(tool, folder, tmp_path, capsys):
    """The report and what was printed; ``run(*arguments)`` in front of the folder's images."""

    def call(*arguments, checkpoints=('mae.pth', 'mlo_mae.pth'), images=folder / 'images'):
        paths = [str(folder / name) for name in checkpoints]
        out = ['--out', str(tmp_path / 'new' / 'masks.png'), '--json', str(tmp_path / 'report.json')]
        tool.main([*paths, '--images', str(images), *out, *arguments])
        return json.loads((tmp_path / 'report.json').read_text()), capsys.readouterr()

    return call


def picture_of(tmp_path):
    return (reader.imread(tmp_path / 'new' / 'masks.png')[..., :3] * 255).round().astype(int)


def test_numbers_are_those_of_mask_statistics(run, folder, tmp_path):
    report, printed = run('--count', '3', '--labels', 'random', 'learned')
    assert report['measured'] == 9 and len(report['shown']) == 3 == len(set(report['shown']))
    assert report['shown'] == sorted(report['shown'])
    # The digits' pipeline, on arrays in RGB, which shrink() has given a Resize. The statistics know no order of images.
    read = [cv2.imread(str(path)) for path in sorted((folder / 'images').rglob('*.png'))]
    model = build(tiny())
    with torch.no_grad():
        batch = torch.from_numpy(np.stack([mmcv.imresize(img, (16, 16))[..., ::-1] for img in read])).permute(0, 3, 1, 2)
        images = model.data_preprocessor(dict(inputs=batch, data_samples=None))['inputs']
        masking = model.draw_masks(images, *model.backbone.embed(images))
    expected = mask_statistics(masking.mask_prob, masking.selection.mask)
    row = report['columns'][1]
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-6)
    assert 0 < expected['saturation'] < 1 and expected['overlap'] > 0.2

    lines = printed.out.splitlines()
    assert lines[0].split() == ['column', 'masker', 'mean', 'score', 'overlap', 'by', 'chance', 'saturation']
    assert lines[2].split()[:3] == ['learned', 'MLPMasker', f'{expected["mean_score"]:.4f}']
    assert lines[2].split()[3:] == [f'{expected["overlap"]:.4f}', '0.14', f'{expected["saturation"]:.4f}']
    assert lines[1].split()[0] == 'random' and 0 < report['columns'][0]['overlap'] < 0.5

    height, seen_width = picture_of(tmp_path).shape[:2]
    # An original and three panels of each of two columns, three times.
    assert seen_width > 7 * masks.PANEL * masks.DPI and height > 3 * masks.PANEL * masks.DPI


def test_the_picture_says_the_numbers(run, monkeypatch):
    texts = []
    monkeypatch.setattr(masks.Figure, 'savefig', lambda self, path, **_: texts.extend(self.findobj(Text)))
    report, _ = run('--statistics-count', '5')
    written = '\n'.join(text.get_text() for text in texts)
    for row in report['columns']:
        for name in ('mean_score', 'overlap', 'saturation'):
            assert f'{name.replace("_", " ")} {row[name]:.3f}' in written
    for words in ('original', 'mask_prob', 'visible', 'reconstruction', 'mae\nMAE, RandomMasker, 4×4 patches, iteration 4'):
        assert words in written
    assert 'Numbers are of 6 images.' in written  # those shown are six


def test_one_seed_one_picture(run, tmp_path):
    seen = []
    for seed in ('1', '1', '2'):
        report, _ = run('--seed', seed, '--count', '2', checkpoints=('mae.pth', 'mae.pth'))
        seen.append((report, (tmp_path / 'new' / 'masks.png').read_bytes()))
        first, second = report['columns']
        assert first == second  # one seed, so one draw of random masks
    assert seen[0] == seen[1]
    assert seen[0][0]['columns'][0]['overlap'] != seen[2][0]['columns'][0]['overlap']


@pytest.mark.parametrize('to_rgb', [True, False], ids=['to_rgb', 'as it comes'])
@pytest.mark.parametrize('from_files', [True, False], ids=['config loads files', 'config has arrays'])
def test_red_is_red(run, folder, tmp_path, to_rgb, from_files):
    cfg = tiny(data_preprocessor=dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], to_rgb=to_rgb))
    if from_files:
        cfg.test_dataloader.dataset.pipeline.insert(0, dict(type='mmmlo.LoadImage', imdecode_backend='pillow'))
    save(tmp_path / 'red.pth', cfg, build(cfg))
    (tmp_path / 'images').mkdir()
    for name in 'ab':
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.png'), np.full((16, 16, 3), (30, 0, 255), np.uint8))  # BGR
    run(checkpoints=(tmp_path / 'red.pth',), images=tmp_path / 'images')
    picture = picture_of(tmp_path)
    red = abs(picture - [255, 0, 30]).max(axis=-1) <= 1
    originals = red[:, : int(1.2 / 5 * red.shape[1])].sum()
    assert originals > 1.5 * (masks.PANEL * masks.DPI) ** 2
    # And the visible quarter of two masked images and of two reconstructions.
    assert red.sum() > 1.3 * originals
    assert (abs(picture - [30, 0, 255]).max(axis=-1) <= 60).sum() == 0


def test_the_masker_sees_what_it_saw_in_training(tool, folder):
    """The channel order is the dataset's own, RGB from arrays and BGR from files, and the size is the model's."""
    init_default_scope('mmpretrain')  # as the tool does, by the config
    path = str(next((folder / 'images').rglob('0.png')))
    img = cv2.imread(path)
    cfg = tiny()
    backbone = MODELS.build(cfg.model).backbone
    arrays = tool.Pipeline(cfg, 'cfg', backbone)
    cfg.test_dataloader.dataset.pipeline.insert(0, dict(type='mmmlo.LoadImage'))
    files = tool.Pipeline(cfg, 'cfg', backbone)
    assert (arrays.bgr, files.bgr) == (False, True)
    assert (arrays(path) == files(path).flip(0)).all()
    cfg = tiny(backbone=dict(img_size=(8, 12)), neck=dict(grid=(2, 3)), masker=dict(grid=(2, 3)))
    del cfg.test_dataloader.dataset.pipeline[:-1]
    resized = tool.Pipeline(cfg, 'cfg', MODELS.build(cfg.model).backbone)
    prepared = resized(path)
    expected = mmcv.imresize(img[..., ::-1], (12, 8), backend='pillow', interpolation='bicubic')
    assert (prepared == torch.from_numpy(expected).permute(2, 0, 1)).all()


def test_models_of_different_grids(run, folder, tmp_path):
    cfg = tiny(
        backbone=dict(img_size=(16, 24)), neck=dict(grid=(4, 6)), masker=dict(grid=(4, 6)), mask_ratio=0.5, temperature=1.0
    )
    torch.manual_seed(0)
    save(tmp_path / 'wide.pth', cfg, MODELS.build(cfg.model))
    report, _ = run('--count', '20', checkpoints=('mae.pth', tmp_path / 'wide.pth'))
    assert [row['grid'] for row in report['columns']] == [[4, 4], [4, 6]]
    assert len(report['shown']) == 9
    assert report['columns'][1]['chance_overlap'] == pytest.approx(1 / 3)


def test_corrupt_files_are_left_out_and_named_once(run, tmp_path):
    for name in ('a.png', 'deep/er/b.PNG', '.hidden.png', '.cache/c.png', 'd.jpg', 'text.txt'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path.with_suffix('.png')), np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8))
        os.rename(path.with_suffix('.png'), path)
    (tmp_path / 'images' / 'a.png').write_bytes(b'')
    (tmp_path / 'images' / 'e.jpg').write_bytes((tmp_path / 'images' / 'd.jpg').read_bytes()[:200])
    report, printed = run(images=tmp_path / 'images')
    assert report['shown'] == ['d.jpg', 'deep/er/b.PNG'] and report['skipped'] == 2
    assert printed.err.count('a.png') == printed.err.count('e.jpg') == 1


@pytest.fixture(scope='module')
def wrong(folder, tmp_path_factory):
    """Files that are no checkpoints of masked autoencoders of this project, and configs that do not fit."""
    root = tmp_path_factory.mktemp('wrong')
    cfg = tiny()
    model = build(cfg)
    (root / 'text.pth').write_text('no checkpoint')
    torch.save([1, 2], root / 'list.pth')
    torch.save(dict(state_dict=model.state_dict()), root / 'bare.pth')
    weights = dict(weight=torch.zeros(1))
    torch.save(dict(meta=dict(cfg='a = = b'), state_dict=weights), root / 'garbled.pth')
    torch.save(dict(meta=dict(cfg='a = 1'), state_dict=weights), root / 'modelless.pth')
    classifier = "default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier', backbone=dict(type='LeNet5'))"
    torch.save(dict(meta=dict(cfg=classifier), state_dict=weights), root / 'classifier.pth')
    torch.save(dict(meta=dict(cfg="model = dict(type='mmmlo.Absent')"), state_dict=weights), root / 'unknown.pth')
    lacking = {name: value for name, value in model.state_dict().items() if not name.startswith('masker')}
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=lacking), root / 'lacking.pth')
    pipeless = tiny()
    pipeless.pop('test_dataloader')
    pipeless.pop('val_dataloader')
    save(root / 'pipeless.pth', pipeless, model)
    pipeless = tiny()
    pipeless.test_dataloader.dataset.pipeline.pop()
    save(root / 'packless.pth', pipeless, model)
    tiny(masker=dict(hidden_dims=16)).dump(root / 'narrow.py')
    tiny('mae').dump(root / 'mae.py')
    for name in ('empty', 'texts', 'broken', 'one'):
        (root / name).mkdir()
    (root / 'texts' / 'a.txt').write_text('a')
    for name in ('broken/a.png', 'broken/b.png'):
        (root / name).write_bytes(b'')
    cv2.imwrite(str(root / 'one' / 'a.png'), np.zeros((16, 16, 3), np.uint8))
    return dict(t=root, f=folder)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ('{t}/absent.pth', ['checkpoint', 'absent.pth does not exist']),
        ('{t}/one', ['is a folder']),
        ('{t}/text.pth', ['text.pth is no PyTorch checkpoint']),
        ('{t}/list.pth', ['list.pth', 'holds no weights']),
        ('{t}/bare.pth', ['bare.pth holds no config', '--configs']),
        ('{t}/garbled.pth', ['the config in', 'garbled.pth cannot be read']),
        ('{t}/modelless.pth', ['modelless.pth has no model']),
        ('{t}/classifier.pth', ['ImageClassifier', 'not a masked autoencoder']),
        ('{t}/unknown.pth', ['cannot be built', 'mmmlo.Absent']),
        ('{t}/lacking.pth', ['lacks', 'masker.layers.1.weight']),
        ('{t}/pipeless.pth', ['test_dataloader', 'pipeline']),
        ('{t}/packless.pth', ['no PackInputs']),
        ('{f}/mae.pth --configs {t}/absent.py', ['absent.py does not exist']),
        ('{f}/mlo_mae.pth --configs {t}/narrow.py', ['do not fit', 'narrow.py', 'masker.layers.1.weight']),
        ('{f}/mlo_mae.pth --configs {t}/mae.py', ['has no place for masker.layers']),
        ('{f}/mae.pth {f}/mlo_mae.pth {f}/mae.pth --configs a b', ['--configs', '3 checkpoints, got 2']),
        ('{f}/mae.pth {f}/mlo_mae.pth --labels a', ['--labels', '2 checkpoints, got 1']),
        ('{f}/mae.pth --images {t}/absent', ['there is no folder', 'absent']),
        ('{f}/mae.pth --images {t}/empty', ['empty and the folders in it hold no image']),
        ('{f}/mae.pth --images {t}/texts', ['hold no image']),
        ('{f}/mae.pth --images {t}/broken', ['holds no image that can be read', '2 cannot be read', 'broken/a.png']),
        ('{f}/mae.pth --images {t}/one', ['one holds 1 image', 'two are needed']),
        ('{f}/mae.pth --count 0', ['--count must be at least 1']),
        ('{f}/mae.pth --statistics-count 1', ['--statistics-count must be at least 2']),
        ('{f}/mae.pth --out {t}/masks.doc', ['masks.doc', '.png']),
        ('{f}/mae.pth --json {t}/one', ['--json', 'is a folder']),
    ],
)
def test_wrong_usage(tool, folder, wrong, tmp_path, capsys, arguments, words):
    arguments = [argument.format(**wrong) for argument in arguments.split()]
    if '--images' not in arguments:
        arguments += ['--images', str(folder / 'images')]
    if '--out' not in arguments:
        arguments += ['--out', str(tmp_path / 'new' / 'masks.png')]
    with pytest.raises(SystemExit) as error:
        tool.main(arguments)
    message = capsys.readouterr().err
    assert error.value.code == 2
    assert message.count('error: ') == 1
    for word in words:
        assert word in message
    assert not os.listdir(tmp_path)


def test_as_a_command(folder, tmp_path):
    cfg = tiny()
    cfg.dump(tmp_path / 'cfg.py')
    arguments = [folder / 'mlo_mae.pth', '--configs', tmp_path / 'cfg.py', '--images', folder / 'images', '--json', '-']
    result = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)['columns'][0]['label'] == 'mlo_mae'
    assert 'Picture: masks.png' in result.stderr and 'MLPMasker' in result.stderr
    assert (tmp_path / 'masks.png').stat().st_size > 10_000
