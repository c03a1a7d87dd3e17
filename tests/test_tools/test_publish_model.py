"""tools/model_converters/publish_model.py: the same weights, the same bytes, a card without folders, one error a fault."""

import json
import os.path as osp
import shutil

import pytest
import torch

from mmmlo.converters import convert
from mmmlo.evaluation.encoder import load_encoder
from mmmlo.evaluation.results import Metric, ProtocolResult, ResultsFile, Row
from mmmlo.launch.config import load_config
from mmmlo.utils.checkpoints import file_hash, read_checkpoint

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('model_converters/publish_model.py')


@pytest.fixture(scope='module')
def checkpoint(tiny_checkpoint):
    """A checkpoint whose encoder was trained on a part of a data set in someone's own folder."""
    root = '/home/somebody/secret/cifar10'
    cifar = dict(type='CIFAR10', data_root=root, split='train', pipeline=[dict(type='PackInputs')])
    split = dict(type='mmmlo.SplitDataset', fractions=dict(train=0.75, val=0.25), seed=3, part='train', dataset=cifar)
    return tiny_checkpoint('published', dataset=split)


def published(folder, kind='pth'):
    (file,) = folder.glob(f'*.{kind}')
    (card,) = folder.glob('*.md')
    assert {path.name for path in folder.iterdir()} == {file.name, card.name}
    return file, card.read_text()


@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_encoder_alone_with_its_own_bits(tool, checkpoint, tmp_path, kind):
    tool.main([checkpoint, str(tmp_path), '--name', 'tiny', '--format', kind])
    file, card = published(tmp_path, kind)
    assert file.name == f'tiny-{file_hash(str(file))[:8]}.{kind}' and file.stem + '.md' in str(list(tmp_path.glob('*.md')))
    own, source = read_checkpoint(str(file)), torch.load(checkpoint)['state_dict']
    expected = {key: value for key, value in source.items() if key.startswith('backbone.')}
    assert list(sorted(own.state_dict)) == sorted(expected)
    assert all(torch.equal(own.state_dict[key], value) for key, value in expected.items())
    meta = own.meta['encoder'] if kind == 'pth' else json.loads(own.meta['encoder'])
    assert meta['architecture']['arch']['embed_dims'] == 48 and meta['image_size'] == [16, 16] and meta['width'] == 48
    assert meta['normalization'] == dict(mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0]) and meta['channels'] == 'rgb'
    assert 'cfg' not in own.meta
    assert file_hash(str(file)) in card and file_hash(checkpoint) in card
    convert([str(file)], 'timm')  # which knows its keys


def test_it_loads_with_a_config(tool, checkpoint, tmp_path):
    config = tmp_path / 'tiny-config.py'
    config.write_text(torch.load(checkpoint)['meta']['cfg'])
    tool.main([checkpoint, str(tmp_path / 'out'), '--config', str(config)])
    file, _ = published(tmp_path / 'out')
    assert file.name.startswith('tiny-config-')
    encoder, original = load_encoder(str(file), load_config(str(config))), load_encoder(checkpoint)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        outputs = [e.model.eval().extract_feat(image)[-1] for e in (encoder, original)]
    assert torch.equal(*outputs) and encoder.method == 'MLOMAE'
    # Published once more from itself: the same file.
    tool.main([str(file), str(tmp_path / 'again'), '--config', str(config)])
    assert published(tmp_path / 'again')[0].name == file.name


def test_one_encoder_makes_one_file(tool, checkpoint, tmp_path):
    content = torch.load(checkpoint)
    content['meta'].update(iter=99, time='later')
    content['state_dict'] = {key: value.clone() for key, value in reversed(content['state_dict'].items())}
    content['optimizer'] = dict(lr=torch.ones(3))
    torch.save(content, tmp_path / 'other.pth')
    for name, path in (('one', checkpoint), ('two', str(tmp_path / 'other.pth'))):
        tool.main([path, str(tmp_path / name), '--name', 'tiny'])
    one, two = (published(tmp_path / name)[0] for name in ('one', 'two'))
    assert one.name == two.name and one.read_bytes() == two.read_bytes()


def test_card(tool, checkpoint, tmp_path, capsys):
    results = ResultsFile(str(tmp_path / 'results.json'))
    knn = ProtocolResult('knn', dict(token='mean'), {'cosine k=10': Metric([61.25])}, 'cosine k=10', 1.5)
    row = Row('run', checkpoint, file_hash(checkpoint), 'MLOMAE', 7, 'cifar10', {}, dict(knn=knn))
    results.update(row)
    other = ProtocolResult('knn', {}, {'cosine k=10': Metric([11.5])}, 'cosine k=10', 1.5)
    results.update(Row('other', 'other.pth', 'f' * 64, 'MAE', 1, 'cifar10', {}, dict(knn=other)))
    tool.main([checkpoint, str(tmp_path / 'a'), '--results', str(tmp_path / 'results.json'), '--license', 'CC BY 4.0'])
    file, card = published(tmp_path / 'a')
    for words in ("'data_root': 'cifar10'", "'fractions': {'train': 0.75, 'val': 0.25}", 'iterations, from seed', 'MLOMAE',
                  f'--backbone {file.name}', "prefix='backbone.'", '--to timm', 'torch.load', 'CC BY 4.0', 'MLPMasker',
                  '61.25'):
        assert words in card
    for words in ('somebody', str(tmp_path), osp.dirname(checkpoint), '11.50'):
        assert words not in card
    assert 'note:' not in capsys.readouterr().out

    results = ResultsFile(str(tmp_path / 'none.json'))
    results.update(Row('other', 'other.pth', 'f' * 64, 'MAE', 1, 'cifar10', {}, dict(knn=other)))
    tool.main([checkpoint, str(tmp_path / 'b'), '--results', str(tmp_path / 'none.json')])
    assert 'None were measured' in published(tmp_path / 'b')[1]
    assert 'has nothing of' in capsys.readouterr().out


def test_nothing_is_overwritten_unless_asked_for(tool, checkpoint, tmp_path, capsys):
    tool.main([checkpoint, str(tmp_path)])
    file, _ = published(tmp_path)
    (tmp_path / f'{file.stem}.md').write_text('mine')
    with pytest.raises(SystemExit) as error:
        tool.main([checkpoint, str(tmp_path)])
    assert error.value.code == 2 and 'is there already; say --overwrite' in capsys.readouterr().err
    assert published(tmp_path)[1] == 'mine'
    tool.main([checkpoint, str(tmp_path), '--overwrite'])
    assert published(tmp_path)[1].startswith(f'# {file.stem}')


@pytest.mark.parametrize(
    ('case', 'words'),
    [
        ('absent', 'does not exist'),
        ('torn', 'only a part of one'),
        ('no results', 'results.json does not exist'),
        ('name', '--name'),
        ('other size', 'as it was trained'),
    ],
)
def test_faults_are_one_error_and_leave_nothing(tool, checkpoint, tmp_path, capsys, case, words):
    path, more, out = checkpoint, [], tmp_path / 'out'
    if case == 'absent':
        path = str(tmp_path / 'absent.pth')
    elif case == 'torn':
        path = shutil.copy(checkpoint, tmp_path / 'torn.pth')
        with open(path, 'r+b') as file:
            file.truncate(5000)
    elif case == 'no results':
        more = ['--results', str(tmp_path / 'results.json')]
    elif case == 'name':
        more = ['--name', 'a/b']
    elif case == 'other size':
        config = tmp_path / 'large.py'
        config.write_text(torch.load(checkpoint)['meta']['cfg'].replace('img_size=16', 'img_size=32'))
        more = ['--config', str(config)]
    with pytest.raises(SystemExit) as error:
        tool.main([str(path), str(out), *more])
    message = capsys.readouterr().err
    assert error.value.code == 2 and message.count('error: ') == 1 and words in message
    assert not out.exists() or not list(out.iterdir())
