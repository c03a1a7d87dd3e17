"""Annotation files in the forms that people write."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS

from mmmlo.datasets import ImageFolder, SplitDataset, check_level_splits
from mmmlo.datasets.labels import read_annotations, read_labels
from mmmlo.preflight.check_classes_hook import _check_outputs
from mmmlo.utils.errors import DataError

CAT, DOG = ['a b.jpg', 'dir/c.PNG', 'd.jpeg'], ['cat', 'dog']
NUMBERS = [[0], [1], [0]]


def read(tmp_path, content, classes=DOG, **kwargs):
    path = tmp_path / 'list.txt'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotations(str(path), classes, **kwargs)


@pytest.mark.parametrize(
    'content',
    [
        'a b.jpg 0\ndir/c.PNG 1\nd.jpeg 0\n',
        b'\xef\xbb\xbfa b.jpg 0\r\ndir/c.PNG 1\r\n\r\n  \r\nd.jpeg 0',
        'a b.jpg 0\ndir/c.PNG 1\nd.jpeg 0\n'.encode('utf-16'),  # a spreadsheet's "Unicode text"
        'a b.jpg 0\rdir/c.PNG 1\rd.jpeg 0\r',
        'a b.jpg\t0\ndir/c.PNG\t1\nd.jpeg\t0\n',
        'a b.jpg,cat\ndir/c.PNG,dog\nd.jpeg, cat\n',
        'a b.jpg;0\ndir/c.PNG;1\nd.jpeg;0\n',
        '"a b.jpg" 0\n"dir/c.PNG"  1\n"d.jpeg" 0\n',
        '"a b.jpg","cat"\n"dir/c.PNG","dog"\n"d.jpeg","cat"\n',
        'image,label\na b.jpg,0\ndir/c.PNG,1\nd.jpeg,0\n',
        'label,width,File Name\ncat,3,a b.jpg\ndog,3,dir/c.PNG\ncat,3,d.jpeg\n',
        ',filename,class_id\n0,a b.jpg,0.0\n1,dir/c.PNG,1.0\n2,d.jpeg,0.0\n',  # a data frame's, with its index and floats
        'path,cat,dog\na b.jpg,1,0\ndir/c.PNG,0,1\nd.jpeg,1,0\n',  # a column a class
        'a b.jpg cat\ndir\\c.PNG dog\nd.jpeg cat\n',  # a path of Windows
    ],
)
def test_forms(tmp_path, content):
    assert read(tmp_path, content) == (CAT, NUMBERS, DOG)
    assert read(tmp_path, content, with_label=False)[0] == CAT


@pytest.mark.parametrize(
    ('content', 'labels'),
    [
        ('a.jpg 0 2\nb.jpg 1\n', [[0, 2], [1]]),
        ('a.jpg 0,2\nb.jpg 1\n', [[0, 2], [1]]),
        ('a.jpg,0,2\nb.jpg,1\n', [[0, 2], [1]]),
        ('a.jpg red fox;cat\nb.jpg dog\n', [[0, 2], [1]]),
        ('image,tags\na.jpg,red fox|cat\nb.jpg,dog\n', [[0, 2], [1]]),
        ('image,labels\na.jpg,"cat, red fox"\nb.jpg,dog\n', [[0, 2], [1]]),
        ('image,cat,dog,red fox\na.jpg,1,0,1\nb.jpg,0,1,0\nc.jpg,0,0,0\n', [[0, 2], [1], []]),
    ],
)
def test_several_labels_an_image(tmp_path, content, labels):
    assert read(tmp_path, content, ['cat', 'dog', 'red fox'])[1] == labels


def test_numbers_from_one_and_names_without_a_list_of_classes(tmp_path):
    assert read(tmp_path, 'a.jpg 1\nb.jpg 2\n', first_label=1)[1] == [[0], [1]]
    assert read(tmp_path, 'a.jpg red fox\nb.jpg dog\n', None) == (['a.jpg', 'b.jpg'], [[1], [0]], ['dog', 'red fox'])
    assert read(tmp_path, 'a.jpg 3\nb.jpg 7\n', ['3', '7'])[1] == [[0], [1]]
    assert read(tmp_path, 'a.jpg 1\nb.jpg 0\n', None)[1:] == ([[1], [0]], None)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('\n', 'list.txt is empty'),
        ('{"images": []}', 'list.txt is JSON'),
        ('a.jpg cat\n\nb.jpg dgo\n', "txt, line 3: 'b.jpg' has the label 'dgo', .* none of .* cat, dog; did you mean 'dog'"),
        ('a.jpg 0\nb.jpg\n', "list.txt, line 2: 'b.jpg' has no label"),
        ('a.jpg 1\nb.jpg 2\n', "line 2: 'b.jpg' has the label 2, but there are 2 classes.* set `first_label=1`"),
        ('a.jpg 0\nb.jpg -1\n', "line 2: 'b.jpg' has the label -1"),
        ('a.jpg 0\nb.jpg 1\na.jpg 1\n', "line 3: 'a.jpg' has other labels than in line 1"),
        ('image,label\na.jpg,0\nb.jpg,1,1\n', 'line 3: 3 columns, where the first line names 2'),
        ('image,width,height\na.jpg,3,4\n', 'line 1: none of the columns image, width, height is named `label`'),
        ('a.jpg,1,0,0\nb.jpg,0,1,0\n', 'line 1: columns of 0 and 1 need a first line that names the classes'),
        ('a.jpg 1 0\nb.jpg 0 1\n', 'line 1: columns of 0 and 1'),
        ('a.jpg 1 1\nb.jpg 0\n', "line 1: 'a.jpg' has a label twice"),
        (b'a.jpg 0\nb.jpg caf\xe9\n', r"list.txt, line 2: b'\\xe9.*' is no text in UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, words):
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path, content)
    assert '\n' not in str(error.value)


def test_labels_from_one_are_not_guessed(tmp_path):
    with pytest.raises(DataError, match='no image has the label 0.*set `first_label=1`'):
        read(tmp_path, 'a.jpg 1\nb.jpg 2\n', None)


def test_folders_read_them(tmp_path, image_folder):
    root = image_folder(x=3)
    (tmp_path / 'list.csv').write_bytes(b'\xef\xbb\xbfid,breed\r\nx/000,boston bull\r\nx/002,dingo\r\n')  # no endings
    dataset = DATASETS.build(dict(type='mmmlo.ImageFolder', data_root=str(root), ann_file=str(tmp_path / 'list.csv')))
    assert [dataset.get_data_info(i)['img_path'] for i in range(2)] == [f'{root}/x/000.png', f'{root}/x/002.png']
    assert dataset.metainfo['classes'] == ('boston bull', 'dingo') and dataset.get_gt_labels().tolist() == [0, 1]
    (tmp_path / 'list.csv').write_text('y/000.png 0\n')
    with pytest.raises(DataError, match=f'list.csv: .y/000.png., its first image: there is no file.*are {root}'):
        DATASETS.build(dict(type='mmmlo.ImageFolder', data_root=str(root), ann_file=str(tmp_path / 'list.csv')))


def test_a_file_of_classes_with_a_mark(tmp_path, image_folder):
    (tmp_path / 'classes.txt').write_bytes(b'\xef\xbb\xbfcat\r\ndog\r\n\r\n')
    dataset = ImageFolder(data_root=str(image_folder(cat=1, dog=1)), classes=str(tmp_path / 'classes.txt'))
    assert dataset.metainfo['classes'] == ('cat', 'dog')


@pytest.fixture
def several(tmp_path, image_folder):
    """Three classes, one or two an image."""
    root = image_folder(x=8)
    (tmp_path / 'list.txt').write_text(''.join(f'x/{i:03}.png {"0 2" if i % 2 else "1"}\n' for i in range(8)))
    pipeline = [dict(type='mmmlo.LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
    return dict(
        type='mmmlo.ImageFolder', data_root=str(root), ann_file=str(tmp_path / 'list.txt'), classes=['a', 'b', 'c'],
        pipeline=pipeline)


def test_several_labels_reach_splits_and_heads(several):
    parts = {part: SplitDataset(several, part=part, fractions=dict(train=0.5, val=0.5)) for part in ('train', 'val')}
    check_level_splits(dict(finetune=parts['train'], masking=parts['val']))
    samples = [DATASETS.build(several)[i]['data_samples'] for i in range(2)]
    assert [sample.gt_label.tolist() for sample in samples] == [[1], [0, 2]]
    np.testing.assert_array_equal(torch.stack([sample.gt_score for sample in samples]), [[0, 1, 0], [1, 0, 1]])
    features = (torch.randn(2, 5, 8, requires_grad=True), )
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head = MODELS.build(dict(type='mmmlo.TokenClsHead', num_classes=3, in_channels=8, dropout=0, loss=loss))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        head(features), torch.tensor([[0.0, 1, 0], [1, 0, 1]]), reduction='sum')
    # mmpretrain sums over the classes and averages over the images.
    assert torch.isclose(head.loss(features, samples)['loss'], expected / 2)
    scores = torch.stack([sample.pred_score for sample in head.predict(features, samples)])
    assert torch.allclose(scores, head(features).sigmoid())


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('mmmlo.TokenClsHead', r"set model\.head\.loss=dict\(type='CrossEntropyLoss', use_sigmoid=True\)"),
        ('LinearClsHead', r"model\.head\.type='mmpretrain\.MultiLabelLinearClsHead', and dict\(type='AveragePrecision'\)"),
    ],
)
def test_a_loss_for_one_label_is_refused(several, kind, words):
    dataset = DATASETS.build(several)
    head = MODELS.build(dict(type=kind, num_classes=3, in_channels=8))
    with pytest.raises(DataError, match=words):
        _check_outputs(SimpleNamespace(head=head), 'train_dataloader.dataset', dataset)
    with pytest.raises(DataError, match='needs exactly one class for each image'):
        read_labels(dataset)
