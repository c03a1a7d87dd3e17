#!/usr/bin/env python
"""Turn iNaturalist 2019's annotations into those that mmpretrain's CustomDataset reads.

    python tools/dataset_converters/inat2019.py SRC data/inat2019

SRC is the folder of the download: train2019.json, val2019.json and the unpacked images, train_val2019/. Written are
DST/meta/train.txt and DST/meta/val.txt, with a line 'path label' an image, and DST/meta/classes.txt; where DST is another
folder than SRC, a link to the images too. Then: tools/evaluate.py CHECKPOINT --data inat2019

Exit status: 0; or 2, and nothing written, where files are missing or annotations contradict each other.
"""

import json
import os
import os.path as osp
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))

from mmmlo.utils.errors import DataError
from mmmlo.utils.process import Parser, run

SPLITS = {'train': 'train2019.json', 'val': 'val2019.json'}


def read_annotations(path: str) -> dict[str, Any]:
    """Read one of the annotation files: ``files`` in order, ``categories`` of each, ``names``, category -> name."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        images = {image['id']: image['file_name'] for image in content['images']}
        pairs = [(annotation['image_id'], annotation['category_id']) for annotation in content['annotations']]
        names = {category['id']: str(category['name']) for category in content['categories']}
    except FileNotFoundError as error:
        raise DataError(f'{path} does not exist; the download has it') from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f'{type(error).__name__}: {error}'
        raise DataError(f'{path} is not an annotation file of iNaturalist 2019 ({reason})') from error
    labels = dict(pairs)
    several = [images.get(image, image) for image, count in Counter(image for image, _ in pairs).items() if count > 1]
    without = [name for image, name in images.items() if image not in labels]
    unknown = [str(image) for image in labels if image not in images]
    nameless = [str(category) for category in labels.values() if category not in names]
    for wrong, what in (
        (several, 'images have several labels'),
        (without, 'images have no label'),
        (unknown, 'labels are of images that it does not list'),
        (nameless, 'labels are of categories that it does not list'),
    ):
        if wrong:
            raise DataError(f'{path}: {len(wrong)} {what}, such as {wrong[0]}')
    return dict(files=list(images.values()), categories=[labels[image] for image in images], names=names)


def check_files(source: str, files: Sequence[str]) -> None:
    """Check that every image is there, below the source folder."""
    odd = [file for file in files if osp.isabs(file) or '..' in file.split('/') or '\n' in file]
    if odd:
        raise DataError(f'{odd[0]!r} is no path below the folder of the images')
    missing = [file for file in files if not osp.isfile(osp.join(source, file))]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(files)} images are not there, such as {osp.join(source, missing[0])}; unpack '
            f'the archive of the images in {source}'
        )


def make_texts(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Write out the annotation files: name -> text. Labels are the places of the categories in the order of their ids."""
    names = splits['train']['names']
    if names != splits['val']['names']:
        raise DataError('train and val do not have the same categories')
    shared = set(splits['train']['files']) & set(splits['val']['files'])
    if shared:
        raise DataError(f'train and val share {len(shared)} images, such as {min(shared)}')
    labels = {category: label for label, category in enumerate(sorted(names))}
    texts = {
        f'{split}.txt': ''.join(f'{file} {labels[c]}\n' for file, c in zip(content['files'], content['categories']))
        for split, content in splits.items()
    }
    return {**texts, 'classes.txt': ''.join(f'{names[category]}\n' for category in labels)}


def link_images(source: str, target: str, files: Sequence[str]) -> None:
    """Link the folders of the images from the target folder, unless they are there."""
    for folder in sorted({file.split('/')[0] for file in files}):
        images, link = osp.abspath(osp.join(source, folder)), osp.join(target, folder)
        if osp.exists(link) and osp.samefile(link, images):
            continue
        if osp.lexists(link):
            raise DataError(f'{link} is there already, and is not {images}')
        os.symlink(images, link)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, check, write."""
    parser = Parser(__doc__)
    parser.add_argument('source', metavar='SRC', help='folder with train2019.json, val2019.json and train_val2019/')
    parser.add_argument('target', metavar='DST', help='folder to write meta/ in; may be SRC')
    args = parser.read(argv)
    splits = {split: read_annotations(osp.join(args.source, name)) for split, name in SPLITS.items()}
    texts = make_texts(splits)
    files = [file for content in splits.values() for file in content['files']]
    check_files(args.source, files)
    try:
        os.makedirs(osp.join(args.target, 'meta'), exist_ok=True)
        link_images(args.source, args.target, files)
    except OSError as error:
        raise DataError(f'{args.target} cannot be written to: {error}') from error
    for name, text in texts.items():
        path = osp.join(args.target, 'meta', name)
        with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
            file.write(text)
        os.replace(f'{path}.tmp', path)
    counts = ', '.join(f'{len(content["files"])} {split}' for split, content in splits.items())
    print(f'{counts} images of {len(splits["train"]["names"])} classes. Written: {args.target}/meta')


if __name__ == '__main__':
    run(main, status=2)
