"""Keep small images in memory, and leave cropping and mirroring to the data preprocessor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmpretrain.structures import DataSample

from mmmlo.datasets.folders import check_dataset_folder
from mmmlo.datasets.seeding import Wrapper
from mmmlo.registry import DATASETS, FUNCTIONS
from mmmlo.utils.errors import DataError

__all__ = ['GatheredBatch', 'InMemoryImages', 'batch_collate', 'uniform_integers']

_META = ('sample_idx', 'img_path', 'ori_shape')


class GatheredBatch(Sequence):
    """A batch that was fetched as a whole, key -> tensor of B x ... or list of B, for others a sequence of samples."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return {key: values[i] for key, values in self.batch.items()}


@FUNCTIONS.register_module()
def batch_collate(data_batch: Sequence) -> Any:
    """Collate samples as mmengine's ``default_collate`` does, and leave a :class:`GatheredBatch` as it is."""
    return data_batch.batch if isinstance(data_batch, GatheredBatch) else default_collate(data_batch)


def uniform_integers(seeds: np.ndarray, stream: int, count: int) -> np.ndarray:
    """Draw one of up to 2 ** 32 integers, from 0 on, for each seed (B, uint64), by SplitMix64 (Steele et al., 2014).

    Each draw of a sample is a stream, from 0. A NumPy generator for each seed would take longer than all else that a sample
    needs.
    """
    with np.errstate(over='ignore'):
        x = seeds + np.uint64((stream + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


@DATASETS.register_module()
class InMemoryImages(Wrapper):
    """Holds the images of a dataset in one uint8 tensor, and fetches a batch by one gather.

    It stands in for a pipeline of ``RandomCrop(crop_size=<size of the images>, padding=padding)``, ``RandomFlip`` and
    ``PackInputs``: it draws where to crop and whether to mirror, and :class:`mmmlo.DeviceDataPreprocessor` does both, on the
    device of the model. The dataset inside gives images of one size, by a pipeline that draws nothing: none for images that
    are in memory anyway, ``[LoadImage, Resize]`` for files. In everything else it is the dataset inside.

    With ``collate_fn=dict(type='mmmlo.batch_collate')`` a batch stays in one piece. A sample holds the whole image as
    ``inputs``, C x H x W, uint8; ``data_samples``; ``shift``, the rows and columns from ``-padding`` to ``padding`` by which
    the crop begins further down and to the right than the image, 2, int64; and ``flip``, whether the crop is mirrored, bool.

    Args:
        dataset (Any): The dataset, or its config, with :class:`SplitDataset` and other wrappers.
        padding (int): Pixels by which a crop may stick out of the image on each side. Defaults to 0, no crop.
        flip_prob (float): Probability that an image is mirrored. Defaults to 0.

    Raises:
        DataError: Padding or probability are out of range, or the images do not fit into one tensor.
    """

    # SeededDataset leaves the seeds to this class, which draws all of a batch at once.
    takes_seeds = True
    # The way by which other wrappers get at a sample of a dataset without this one.
    hidden = ('prepare_data', )

    def __init__(self, dataset: Any, padding: int = 0, flip_prob: float = 0.0) -> None:
        if type(padding) is not int or padding < 0:
            raise DataError(f'`padding` of InMemoryImages must be a number of pixels, 0 or more, not {padding!r}.')
        if not 0 <= flip_prob <= 1:
            raise DataError(f'`flip_prob` of InMemoryImages must be in [0, 1], not {flip_prob!r}.')
        self.padding = padding
        self.flip_prob = flip_prob
        if isinstance(dataset, Mapping):
            check_dataset_folder(dataset)
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self._load()

    def _load(self) -> None:
        kind = type(self.dataset).__name__
        if not len(self.dataset):
            raise DataError(f'{kind} in InMemoryImages holds no image.')
        self._labels: list[dict[str, torch.Tensor]] = []
        self._metas: list[dict[str, Any]] = []
        for i in range(len(self.dataset)):
            sample = self.dataset[i]
            image = _image(sample, i)  # C x H x W
            if i == 0:
                self.images = torch.empty((len(self.dataset), *image.shape), dtype=torch.uint8)  # N x C x H x W
            elif image.shape != self.images.shape[1:]:
                raise DataError(
                    f'image {i} of {kind} in InMemoryImages has the shape {tuple(image.shape)}, and those before it '
                    f"{tuple(self.images.shape[1:])}. Add dict(type='Resize', scale=(W, H)) to the dataset's pipeline."
                )
            self.images[i] = image
            label = DataSample()
            for name, store in (('gt_label', label.set_gt_label), ('gt_score', label.set_gt_score)):
                if sample.get(name) is not None:
                    store(sample[name])
            self._labels.append(dict(label.items()))
            meta = {name: sample[name] for name in _META if name in sample}
            self._metas.append(meta | dict(img_shape=tuple(image.shape[1:])))

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.__getitems__([idx])[0]

    def __getitems__(self, indices: Sequence[int]) -> GatheredBatch:
        """Fetch a batch; PyTorch's loaders call this with the indices of one.

        The draws of a :class:`SampleIndex` depend on its seed alone; those of a plain ``int`` come from NumPy's generator.
        """
        chosen = [int(i) for i in indices]
        shift, flip = self._draw(indices)
        samples = []
        for i in chosen:
            sample = DataSample()
            for name, value in self._metas[i].items():  # set_metainfo would copy each
                sample.set_field(value, name, field_type='metainfo')
            for name, value in self._labels[i].items():
                sample.set_field(value, name)
            samples.append(sample)
        # Copies whole images; indexing by a tensor takes twenty times as long.
        images = self.images.index_select(0, torch.tensor(chosen))  # B x C x H x W
        return GatheredBatch(dict(inputs=images, data_samples=samples, shift=shift, flip=flip))

    def _draw(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw where to crop, B x 2, and whether to mirror, B."""
        seeds = np.array(
            [seed if (seed := getattr(i, 'seed', None)) is not None else np.random.randint(2**63 - 1) for i in indices],
            dtype=np.uint64,
        )
        places = 2 * self.padding + 1
        shift = np.stack([uniform_integers(seeds, stream, places) for stream in range(2)], axis=1) - self.padding
        flip = uniform_integers(seeds, 2, 2**32) < self.flip_prob * 2**32
        return torch.from_numpy(shift), torch.from_numpy(flip)


def _image(sample: Any, i: int) -> torch.Tensor:
    """Take the image of a sample, C x H x W."""
    image = sample.get('img') if isinstance(sample, Mapping) else None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return torch.from_numpy(np.ascontiguousarray(image.reshape(*image.shape[:2], -1))).permute(2, 0, 1)
    found = f'an `img` that is {image.dtype} of the shape {image.shape}' if isinstance(image, np.ndarray) else 'no `img`'
    raise DataError(
        f'image {i} in InMemoryImages has {found}, and should have one of H x W x C in uint8. The pipeline '
        'of the dataset ends before PackInputs: [] for images in memory such as CIFAR-10, LoadImage and Resize for files.'
    )
