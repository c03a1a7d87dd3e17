"""What the checks of data read from disk."""

import json
import os
import os.path as osp
from collections.abc import Iterable

from mmmlo.utils.errors import DataError
from mmmlo.utils.text import describe_error

__all__ = ['find_missing', 'read_coco']


def find_missing(paths: Iterable[str]) -> list[str]:
    """Find the files that are not there, by listing folders: on a network disk single files are slow to ask for."""
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = osp.split(path)
        if folder not in there:
            there[folder] = set(os.listdir(folder)) if osp.isdir(folder) else set()
        if name not in there[folder]:
            missing.append(path)
    return missing


def read_coco(path: str) -> tuple[dict[str, tuple[int, tuple]], list[int], list[str]]:
    """Read a file of COCO's instances.

    Args:
        path (str): The file.

    Returns:
        tuple: File name of an image -> its number, and its height and width; the number of each box's image; the names of
        the categories.

    Raises:
        DataError: If the file is not of this format.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        images = {i['file_name']: (i['id'], (i.get('height'), i.get('width'))) for i in content['images']}
        boxes = [box['image_id'] for box in content.get('annotations', [])]
        return images, boxes, [category['name'] for category in content['categories']]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is no COCO annotation file ({describe_error(error)})') from error
