"""Hash the samples of a dataset, to tell whether two are the same."""

import hashlib
import pickle
from typing import Any

import numpy as np

from mmmlo.datasets.sources import leaves

__all__ = ['data_fingerprint']


def data_fingerprint(dataset: Any) -> dict[str, Any]:
    """Hash the annotations of the samples of a dataset, in their order.

    These are paths as the config has them, labels, and for images in memory, such as CIFAR's, their pixels. Files are not
    opened: about a second for ImageNet.

    Returns:
        dict[str, Any]: ``dataset``, the class of the dataset inside all wrappers; ``images``, their number;
        ``sha256``, None where a dataset does not say what it holds.
    """
    digest, images, kinds, known = hashlib.sha256(), 0, [], True
    for leaf, indices in leaves(dataset):
        kinds.append(type(leaf).__name__)
        images += len(indices)
        if getattr(leaf, 'serialize_data', False) and hasattr(leaf, 'data_bytes'):
            _hash_records(digest, leaf, indices)
        elif hasattr(leaf, 'get_data_info'):
            for i in indices:
                digest.update(pickle.dumps(leaf.get_data_info(int(i)), protocol=4))
        else:
            known = False
    return dict(dataset=' + '.join(dict.fromkeys(kinds)), images=images, sha256=digest.hexdigest() if known else None)


def _hash_records(digest: Any, leaf: Any, indices: np.ndarray) -> None:
    """Hash the stored bytes of samples, which mmengine keeps one after another."""
    records, ends = leaf.data_bytes, leaf.data_address
    if np.array_equal(indices, np.arange(len(ends))):
        digest.update(records)
        return
    for i in indices:
        digest.update(records[0 if i == 0 else int(ends[i - 1]):int(ends[i])])
