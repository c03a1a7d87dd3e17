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
from collections.abc import Sequence

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.errors import DataError
from mmmlo.utils.process import Parser, run
from mmmlo.utils.whole_file import write_whole


def read_annotations(path: str) -> tuple[dict[str, int], dict[int, str]]:
    """Read one of the annotation files: image -> category, and category -> name."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        files = {image['id']: image['file_name'] for image in content['images']}
        names = {category['id']: str(category['name']) for category in content['categories']}
        pairs = [(files[a['image_id']], a['category_id']) for a in content['annotations'] if names[a['category_id']]]
    except FileNotFoundError as error:
        raise DataError(f'{path} does not exist; the download has it') from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f'{type(error).__name__}: {error}'
        raise DataError(f'{path} is not an annotation file of iNaturalist 2019 ({reason})') from error
    counts = Counter(file for file, _ in pairs)
    for what, wrong in (
        ('several labels', [file for file, count in counts.items() if count > 1]),
        ('no label', [file for file in files.values() if file not in counts]),
    ):
        if wrong:
            raise DataError(f'{path}: {len(wrong)} images have {what}, such as {wrong[0]}')
    labels = dict(pairs)
    return {file: labels[file] for file in files.values()}, names


def check_files(source: str, files: Sequence[str]) -> None:
    """Check that every image is there, below the source folder."""
    odd = [file for file in files if osp.isabs(file) or '..' in file.split('/') or '\n' in file]
    if odd:
        raise DataError(f'{odd[0]!r} is no path below the folder of the images')
    from mmmlo.utils.progress import track  # imports PyTorch, which --help does without

    missing = [file for file in track(files, 'looking for images') if not osp.isfile(osp.join(source, file))]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(files)} images are not there, such as {osp.join(source, missing[0])}; unpack '
            f'the archive of the images in {source}'
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Read, check, write."""
    parser = Parser(__doc__)
    parser.add_argument('source', metavar='SRC', help='folder with train2019.json, val2019.json and train_val2019/')
    parser.add_argument('target', metavar='DST', help='folder to write meta/ in; may be SRC')
    args = parser.read(argv)
    paths = (osp.join(args.source, f'{split}2019.json') for split in ('train', 'val'))
    (train, names), (val, others) = map(read_annotations, paths)
    if names != others:
        raise DataError('train and val do not have the same categories')
    if shared := train.keys() & val.keys():
        raise DataError(f'train and val share {len(shared)} images, such as {min(shared)}')
    check_files(args.source, [*train, *val])
    labels = {category: label for label, category in enumerate(sorted(names))}
    texts = dict(classes=''.join(f'{names[category]}\n' for category in labels))
    for name, split in (('train', train), ('val', val)):
        texts[name] = ''.join(f'{file} {labels[category]}\n' for file, category in split.items())
    try:
        os.makedirs(osp.join(args.target, 'meta'), exist_ok=True)
        for folder in sorted({file.split('/')[0] for file in (*train, *val)}):
            images, link = osp.abspath(osp.join(args.source, folder)), osp.join(args.target, folder)
            if not osp.lexists(link):
                os.symlink(images, link)
            elif not osp.exists(link) or not osp.samefile(link, images):
                raise DataError(f'{link} is there already, and is not {images}')
        for name, text in texts.items():
            write_whole(osp.join(args.target, 'meta', f'{name}.txt'), text)
    except OSError as error:
        raise DataError(f'{args.target} cannot be written to: {error}') from error
    print(f'{len(train)} train, {len(val)} val images of {len(names)} classes. Written: {args.target}/meta')


if __name__ == '__main__':
    run(main, status=2)
