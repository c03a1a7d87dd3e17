"""Read the labels of a dataset or of an annotation file, and check them."""

import csv
import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.fileio import get

from mmmlo.utils.errors import DataError
from mmmlo.utils.text import format_list

__all__ = ['check_classes', 'has_several_labels', 'read_annotations', 'read_label_sets', 'read_labels', 'read_text']

_ENDING = r'\.[A-Za-z]\w{1,4}'
_LINE = re.compile(rf'(["\']?)(.+{_ENDING})\1(?:\s+(.*))?')
# Names of columns without other signs than letters, those to prefer first.
_IMAGE_COLUMNS = (
    'filename', 'filepath', 'file', 'files', 'path', 'imagepath', 'imgpath', 'imagename', 'imgname', 'imagefile', 'image',
    'images', 'img', 'imageid', 'imgid', 'name', 'id'
)
_LABEL_COLUMNS = (
    'label', 'labels', 'gtlabel', 'labelid', 'target', 'targets', 'class', 'classes', 'classid', 'category', 'categories',
    'categoryid', 'classname', 'labelname', 'categoryname', 'tag', 'tags', 'species', 'breed'
)


def read_label_sets(dataset: Any) -> np.ndarray | list[list[int]]:
    """Read the class of every sample of a dataset in mmengine's style, N, int64; lists where some have none or several.

    No image is read: one pass over the annotations, about five seconds for ImageNet's 1.28 million.

    Raises:
        DataError: The dataset has no labels.
    """
    name = type(dataset).__name__
    try:
        try:
            labels = dataset.get_gt_labels()
        except (AttributeError, ValueError):  # a wrapper has none, and NumPy takes none where some have more than others
            infos = ((i, dataset.get_data_info(i)) for i in range(len(dataset)))
            labels = [info['gt_label'] if 'gt_label' in info else dataset.get_cat_ids(i) for i, info in infos]
    except (KeyError, NotImplementedError, AttributeError) as error:
        raise DataError(
            f'{name} has no labels, and a stratified split needs one class for each image. Use a labelled dataset (for '
            '`CustomDataset`, `with_label=True`), or cut at random: `by_class=False` of `mmmlo.SplitDataset`.'
        ) from error
    if not len(labels):
        raise DataError(f'{name} holds no image. Check its `data_root`, `data_prefix` and `ann_file`.')
    if all(np.size(label) == 1 for label in labels):
        return np.array([int(np.reshape(label, ())) for label in labels], dtype=np.int64)
    return [[int(label) for label in np.reshape(some, -1)] for some in labels]


def read_labels(dataset: Any) -> np.ndarray:
    """Read the one class of every sample, N, int64, or raise a DataError; see :func:`read_label_sets`."""
    labels = read_label_sets(dataset)
    if isinstance(labels, np.ndarray):
        return labels
    raise DataError(
        f'{type(dataset).__name__} has images with no class or with several, and this needs exactly one class for each '
        'image. Fine-tune with mmpretrain.MultiLabelLinearClsHead and measure mAP by AveragePrecision: see docs/data.md.'
    )


def has_several_labels(dataset: Any) -> bool:
    """Tell whether a dataset's images have several labels each, by its first sample."""
    info = dataset.get_data_info(0) if hasattr(dataset, 'get_data_info') and len(dataset) else {}
    return 'gt_score' in info or np.ndim(info.get('gt_label', 0)) > 0


def check_classes(labels: np.ndarray, classes: Sequence[str] | None, where: str, least: int = 1) -> None:
    """Check that every class has at least so many images, and every label, N, a class.

    Args:
        labels (np.ndarray): Class index of every sample, N.
        classes (Sequence[str] | None): The names of the classes; None for those that occur.
        where (str): The config key or the folder to name in the error.
        least (int): How many images a class needs. Defaults to 1.

    Raises:
        DataError: A class has too few images, or a label stands for no class.
    """
    if classes is None:
        names, counts = np.unique(labels, return_counts=True)
    else:
        wrong = labels[(labels < 0) | (labels >= len(classes))]
        if len(wrong):
            raise DataError(
                f'{where}: an image has the label {wrong[0]}, but there are {len(classes)} classes, numbered from 0 to '
                f'{len(classes) - 1}. Correct the labels, or name every class in `classes`.'
            )
        names, counts = np.asarray(classes), np.bincount(labels, minlength=len(classes))
    empty = [str(name) for name in names[counts == 0]]
    few = [f'{name} ({count})' for name, count in zip(names, counts) if count < least]
    if empty:
        reason = f'no image for {_named(empty)}. Put images there, or take it out of the classes (for a dataset of folders: '
        raise DataError(f'{where}: {reason}delete the empty folder).')
    if few:
        reason = f'too few images of {_named(few)}. Each class needs at least {least}, one for each part'
        raise DataError(f'{where}: {reason}. Add images, leave the class out, or cut fewer parts.')


def _named(names: list[str]) -> str:
    return ('class ' if len(names) == 1 else 'classes ') + format_list(names, 5)


def read_text(path: str) -> list[str]:
    """Read the lines of a text as editors and spreadsheets write it: UTF-8 or UTF-16, with any mark and ends of lines."""
    content = get(path)
    try:
        text = content.decode('utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig')
    except UnicodeDecodeError as error:
        line, odd = content[:error.start].count(b'\n') + 1, content[error.start:][:4]
        raise DataError(f'{path}, line {line}: {odd!r} is no text in UTF-8; save it as UTF-8') from error
    return re.split('\r\n|\r|\n', text)


def read_annotations(
    path: str, classes: Sequence[str] | None = None, with_label: bool = True, first_label: int = 0
) -> tuple[list[str], list[list[int]], list[str] | None]:
    """Read a list of images and their labels, in the forms that people write.

    A line is an image and its labels, with white space, tabs, commas or semicolons between them; names with spaces may be
    quoted. A first line that names columns chooses them: an image and a label, or an image and a column of 0 and 1 for each
    class. Labels are numbers or names of classes; several are separated by ``;``, ``|``, commas or, as numbers, spaces.

    Args:
        path (str): The file.
        classes (Sequence[str], optional): The names of the classes. Defaults to None: the names in the file, sorted.
        with_label (bool): Whether the labels are read. Defaults to True.
        first_label (int): The number of the first class. Defaults to 0.

    Returns:
        tuple[list[str], list[list[int]], list[str] | None]: Paths of the images; their labels; the names of the classes, if
        the file or ``classes`` tell them.

    Raises:
        DataError: A line that cannot be read, with the file, the line, what stands there and what would be right.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path), 1) if line.strip()]
    if not lines:
        raise DataError(f'{path} is empty; write a line `image label` for each image')
    if lines[0][1].lstrip()[0] in '{[':
        raise DataError(f"{path} is JSON; read it by type='mmpretrain.BaseDataset', or write a line `image label` an image")
    rows, columns = _find_columns(path, _split_lines(lines))
    if not rows:
        raise DataError(f'{path} names columns and no image; write a line for each image')
    names = [name.strip().replace('\\', '/') for _, name, _ in rows]
    known = list(map(str, classes if classes is not None else columns or ()))
    if not with_label:
        return names, [], known or None
    cells = [cell for _, _, cell in rows]
    tokens = {cell: list(cell) if isinstance(cell, tuple) else _split_labels(cell, known) for cell in set(cells)}
    every = {token for some in tokens.values() for token in some}
    if not columns and every <= {'0', '1'} and all(len(some) > 1 for some in tokens.values()):
        raise DataError(f'{path}, line {rows[0][0]}: columns of 0 and 1 need a first line that names the classes')
    numbers = not every <= set(known) and all(map(_is_number, every))
    known = known or ([] if numbers else sorted(every))
    places = {name: i for i, name in enumerate(known)}
    found: dict[Any, list[int]] = {}
    seen: dict[str, tuple[int, Any]] = {}
    for (number, _, cell), name in zip(rows, names):
        some, problem = tokens[cell], ''
        before, former = seen.setdefault(name, (number, cell))
        if cell not in found:
            own = [int(float(token)) - first_label if numbers else places.get(token, -1) for token in some]
            wrong = next((i for i, label in enumerate(own) if label < 0 or known and label >= len(known)), None)
            if not some and not columns:
                problem = 'has no label; write `image label`, or set `with_label=False` if none has'
            elif wrong is not None and numbers:
                problem = f'has the label {some[wrong]}, but there are {len(known) or "no negative"} classes'
                if known:
                    problem += f', numbered from {first_label} to {len(known) - 1 + first_label}'
                    hint = '; if they count from 1, set `first_label=1` of mmmlo.ImageFolder'
                    problem += hint if own[wrong] == len(known) else ''
            elif wrong is not None:
                near = difflib.get_close_matches(some[wrong], known, 1)
                problem = f'has the label {some[wrong]!r}, which is none of the classes {format_list(known, 5)}'
                problem += f'; did you mean {near[0]!r}?' if near else ''
            elif len(set(own)) < len(own):
                problem = 'has a label twice; write it once'
            found[cell] = sorted(own)
        if not problem and found[cell] != found[former]:
            problem = f'has other labels than in line {before}; write several in one line, as `{name} 0;3`'
        if problem:
            raise DataError(f'{path}, line {number}: {name!r} {problem}')
    labels = [found[cell] for cell in cells]
    if numbers and not known and min(map(min, found.values())) > 0:
        raise DataError(
            f'{path}: no image has the label {first_label}, the first one; if labels count from 1, set `first_label=1` of '
            'mmmlo.ImageFolder, else name the classes by `metainfo=dict(classes=[...])`'
        )
    return names, labels, known or None


def _is_number(token: str) -> bool:
    return re.fullmatch(r'-?\d+(\.0+)?', token) is not None


def _split_lines(lines: list[tuple[int, str]]) -> list[tuple[int, Sequence[str]]]:
    """Cut lines at the delimiter that cuts them all, else behind the ending of the image, else at the last space."""
    numbers, texts = zip(*lines)
    for delimiter in filter(texts[0].__contains__, '\t,;'):
        cells = list(csv.reader(texts, delimiter=delimiter, skipinitialspace=True))
        if len(cells) == len(lines) and all(len(row) > 1 and not re.search(rf'{_ENDING}\s', row[0]) for row in cells):
            return list(zip(numbers, cells))
    rows: list[tuple[int, Sequence[str]]] = []
    for number, text in lines:
        match = _LINE.fullmatch(text.strip())
        rows.append((number, (match[2], match[3] or '') if match else (*text.rsplit(None, 1), '')[:2]))
    return rows


def _find_columns(
    path: str, rows: list[tuple[int, Sequence[str]]]
) -> tuple[list[tuple[int, str, str | tuple[str, ...]]], list[str] | None]:
    """Number of the line, image and labels of each row, and the classes that columns of 0 and 1 are named after."""
    header = rows[0][1]
    plain = [re.sub('[^a-z]', '', cell.lower()) if not re.search(f'{_ENDING}$', cell) else '' for cell in header]
    image = next((plain.index(name) for name in _IMAGE_COLUMNS if name in plain), None)
    if image is None:
        return [(number, cells[0], ';'.join(cells[1:])) for number, cells in rows], None
    rows = rows[1:]
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(f'{path}, line {number}: {len(cells)} columns, where the first line names {len(header)}')
    others = [i for i, name in enumerate(plain) if i != image and header[i].strip()]
    label = next((plain.index(name) for name in _LABEL_COLUMNS if name in plain), others[0] if len(others) == 1 else None)
    if label is not None:
        return [(number, cells[image], cells[label]) for number, cells in rows], None
    if not all(cells[i].strip() in ('0', '1', '0.0', '1.0') for _, cells in rows for i in others):
        raise DataError(f'{path}, line 1: none of the columns {format_list(header)} is named `label`; name the one that is')
    header = [name.strip() for name in header]
    found = [(number, cells[image], tuple(header[i] for i in others if float(cells[i]))) for number, cells in rows]
    return found, [header[i] for i in others]  # type: ignore[return-value]


def _split_labels(cell: str, known: Sequence[str]) -> list[str]:
    """Separate several labels; a space is part of a name unless what it separates are numbers or classes."""
    if cell.strip() in known:
        return [cell.strip()]
    words = [word for word in re.split(r'[\s;|,]+', cell) if word]
    if all(_is_number(word) or word in known for word in words):
        return words
    return [part.strip() for part in re.split('[;|,]', cell) if part.strip()]
