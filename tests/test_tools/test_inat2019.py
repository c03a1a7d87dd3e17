"""tools/dataset_converters/inat2019.py on a tiny download, and what reads its result."""

import json
import os
import os.path as osp

import cv2
import numpy as np
import pytest

from mmmlo.evaluation.data import find_data

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('dataset_converters/inat2019.py')


@pytest.fixture
def download(tmp_path):
    """Two classes, whose ids are neither from 0 nor in order, with two images in train and one in val."""
    root = tmp_path / 'download'
    number = 0
    for split, count in (('train', 2), ('val', 1)):
        content = dict(images=[], annotations=[], categories=[dict(id=7, name='Quercus robur'), dict(id=3, name='Apis')])
        for category, folder in ((7, 'Plants'), (3, 'Insects')):
            for _ in range(count):
                number += 1
                name = f'train_val2019/{folder}/{category}/{number}.jpg'
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / name), np.full((20, 30, 3), 20 * number, dtype=np.uint8))
                content['images'].append(dict(id=number, file_name=name, width=30, height=20))
                content['annotations'].append(dict(id=number, image_id=number, category_id=category))
        (root / f'{split}2019.json').write_text(json.dumps(content))
    return root


@pytest.mark.parametrize('in_place', [True, False])
def test_what_it_writes_can_be_evaluated_on(tool, download, tmp_path, capsys, in_place):
    target = download if in_place else tmp_path / 'data'
    tool.main([str(download), str(target)])
    assert '4 train, 2 val images of 2 classes' in capsys.readouterr().out
    assert (target / 'meta/train.txt').read_text().splitlines() == [
        'train_val2019/Plants/7/1.jpg 1',
        'train_val2019/Plants/7/2.jpg 1',
        'train_val2019/Insects/3/3.jpg 0',
        'train_val2019/Insects/3/4.jpg 0',
    ]
    data = find_data('inat2019', str(target))
    train, test = (data.build(split, (16, 16)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (4, 2) and train.metainfo['classes'] == ('Apis', 'Quercus robur')
    assert int(test[0]['data_samples'].gt_label) == 1 and test[0]['inputs'].shape == (3, 16, 16)
    data.check((16, 16))
    tool.main([str(download), str(target)])  # again: the same


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('case', 'words'),
    [
        ('no json', ['val2019.json does not exist']),
        ('other json', ['train2019.json is not an annotation file']),
        ('no image', ['1 of 6 images are not there', '3.jpg']),
        ('two labels', ['1 images have several labels', '1.jpg']),
        ('no label', ['images have no label', '4.jpg']),
        ('shared', ['share 1 images']),
        ('categories', ['same categories']),
        ('outside', ['no path below']),
    ],
)
def test_faults_are_one_error(tool, download, tmp_path, capsys, case, words):
    train, val = download / 'train2019.json', download / 'val2019.json'
    if case == 'no json':
        val.unlink()
    elif case == 'other json':
        train.write_text('{"images": 3}')
    elif case == 'no image':
        os.remove(download / 'train_val2019/Insects/3/3.jpg')
    elif case == 'two labels':
        edit(train, lambda c: c['annotations'].append(dict(id=9, image_id=1, category_id=3)))
    elif case == 'no label':
        edit(train, lambda c: c['annotations'].pop())
    elif case == 'shared':
        edit(val, lambda c: c['images'][0].update(file_name='train_val2019/Plants/7/1.jpg'))
    elif case == 'categories':
        edit(val, lambda c: c['categories'][0].update(name='other'))
    elif case == 'outside':
        edit(val, lambda c: c['images'][0].update(file_name='../1.jpg'))
    with pytest.raises(SystemExit) as error:
        tool.main([str(download), str(tmp_path / 'data')])
    assert error.value.code == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert not (tmp_path / 'data').exists()
