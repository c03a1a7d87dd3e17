"""Features of a model for all images of a data loader."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmmlo.utils.errors import SettingError

__all__ = [
    'TOKENS', 'batch_features', 'check_finite', 'check_labels', 'check_splits', 'eval_mode', 'extract_features',
    'extract_tokens', 'gather_rows', 'pool_tokens'
]

TOKENS = ('mean', 'cls')


def pool_tokens(feats: Tensor | Sequence[Tensor], token: str) -> Tensor:
    """Make one vector an image, B x C, from what ``extract_feat`` returns.

    Args:
        feats (Tensor | Sequence[Tensor]): Tokens, B x (1+L) x C with the class token first, or vectors, B x C, which
            stay as they are. Of a sequence the last is taken.
        token (str): 'mean' for the mean of the patch tokens, 'cls' for the class token.

    Raises:
        SettingError: An unknown ``token``, or features of another shape.
    """
    if token not in TOKENS:
        raise SettingError(f"`token` must be 'mean' or 'cls', not {token!r}.")
    if not isinstance(feats, Tensor):
        feats = feats[-1]
    if feats.ndim == 2:
        return feats
    if feats.ndim != 3 or feats.shape[1] < 2:
        raise SettingError(
            f'cannot pool features of shape {tuple(feats.shape)}: `extract_feat` must give B x C or '
            'B x (1+L) x C, the class token first.'
        )
    return feats[:, 0] if token == 'cls' else feats[:, 1:].mean(dim=1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every one of its modules back into its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def batch_features(model: Any, batch: dict, token: str) -> tuple[Tensor, list]:
    """Compute the features of one batch, B x C, float32, on the model's device; its mode is left as it is.

    Args:
        model (nn.Module): A model with ``data_preprocessor`` and ``extract_feat``, or a wrapper of one.
        batch (dict): What the data loader gives.
        token (str): See :func:`pool_tokens`.

    Returns:
        tuple[Tensor, list[DataSample]]: The features and the B data samples.

    Raises:
        SettingError: The batch has no labels.
    """
    feats, data_samples = _encode(model, batch)
    return pool_tokens(feats, token).float(), data_samples


def _encode(model: Any, batch: dict) -> tuple[Any, list]:
    model = model.module if is_model_wrapper(model) else model
    batch = model.data_preprocessor(batch, False)
    data_samples = batch.get('data_samples')
    if not data_samples or any('gt_label' not in sample for sample in data_samples):
        raise SettingError('the images have no `gt_label`: use a labelled dataset whose pipeline ends in `PackInputs`.')
    return model.extract_feat(batch['inputs']), data_samples


def extract_features(
    model: nn.Module, dataloader: DataLoader, token: str = 'mean', gather: bool = True, name: str = 'features'
) -> tuple[Tensor, Tensor]:
    """Compute features, N x C, and class indices, N, by one token; see :func:`extract_tokens`."""
    rows, labels = extract_tokens(model, dataloader, (token, ), gather, name)
    return rows[token], labels


@torch.no_grad()
def extract_tokens(
    model: nn.Module,
    dataloader: DataLoader,
    tokens: Sequence[str] = TOKENS,
    gather: bool = True,
    name: str = 'features',
    amp: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the features of all images of a data loader, in eval mode, by several tokens in one pass.

    Args:
        model (nn.Module): A model with ``data_preprocessor`` and ``extract_feat``, or a wrapper of one.
        dataloader (DataLoader): A loader of labelled images.
        tokens (Sequence[str]): See :func:`pool_tokens`. Defaults to 'mean' and 'cls'.
        gather (bool): Whether each process gets the features of all processes rather than its own share. Samples that
            mmengine's sampler repeats to make equal shares are dropped then. Defaults to True.
        name (str): What to call this in the log, where a line tells of progress every ten seconds.
        amp (bool): Whether the encoder runs under bfloat16 autocast. Defaults to False.

    Returns:
        tuple[dict[str, Tensor], Tensor]: Token -> features, N x C, float32, and class indices, N, int64, on the CPU. In
        the order of the dataset unless the sampler shuffles.

    Raises:
        SettingError: The dataset is empty or has no labels, or a token is unknown.
    """
    parts: dict[str, list[Tensor]] = {part: [] for part in (*tokens, 'labels')}
    told = time.monotonic()
    with eval_mode(model):
        for i, batch in enumerate(dataloader, 1):
            # Not enabled=False: that would switch a caller's autocast off.
            with autocast(dtype=torch.bfloat16) if amp else nullcontext():
                encoded, data_samples = _encode(model, batch)
            for token in tokens:
                parts[token].append(pool_tokens(encoded, token).float().cpu())
            parts['labels'].append(torch.tensor([int(sample.gt_label) for sample in data_samples]))
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print_log(f'{name}: {i}/{len(dataloader)} batches', 'current')
    if not parts['labels']:
        raise SettingError(
            f'{name}: the data loader gave no batch. Check that its dataset is not empty and, with '
            '`drop_last`, not smaller than a batch.'
        )
    rows = {part: torch.cat(some) for part, some in parts.items()}
    if gather:
        size = None if dataloader.drop_last else len(dataloader.dataset)  # type: ignore[arg-type]
        rows = {part: gather_rows(some)[:size] for part, some in rows.items()}
    labels = rows.pop('labels')
    return rows, labels


def gather_rows(rows: Tensor, chunk_size: int = 8192) -> Tensor:
    """Collect the rows of all processes in the order in which mmengine's sampler dealt them out.

    The sampler gives sample ``i`` to process ``i % world_size``. Rows travel in chunks, because with NCCL they pass
    through GPU memory, where the features of a large dataset would not fit.

    Args:
        rows (Tensor): The rows of this process, N_p x ...; N_p may differ by one between processes.
        chunk_size (int): How many rows of each process travel at a time. Defaults to 8192.

    Returns:
        Tensor: All rows, N x ....
    """
    if get_world_size() == 1:
        return rows
    counts = torch.stack(all_gather(torch.tensor(len(rows)))).tolist()
    longest = max(counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    gathered = torch.cat([torch.stack(all_gather(chunk.contiguous()), dim=1) for chunk in padded.split(chunk_size)])
    # longest x processes x ...: flattened, it runs as the sampler dealt.
    real = torch.arange(longest)[:, None] < torch.tensor(counts)[None]
    return gathered[real]


def check_finite(feats: Tensor, name: str) -> None:
    """Check that features, N x C, are finite; a SettingError has their ``name`` and the first row that is not."""
    finite = torch.isfinite(feats).all(dim=1)  # N
    if not finite.all():
        raise SettingError(
            f'the {name} features hold NaN or infinite values: the encoder has diverged. The first such row is '
            f'{int((~finite).nonzero()[0])}.'
        )


def check_labels(labels: Tensor, num_classes: int, name: str) -> None:
    """Check that class indices lie in [0, ``num_classes``); a SettingError calls them by their ``name`` otherwise."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise SettingError(
            f'{name} run from {int(labels.min())} to {int(labels.max())}, but there are {num_classes} classes.'
        )


def check_splits(train: Mapping[str, Tensor], labels: Tensor, test: Mapping[str, Tensor], truth: Tensor) -> None:
    """Check that features of one or more tokens, N x C and M x C, fit each other and their class indices, N and M.

    Raises:
        SettingError: Tokens or shapes do not fit, a feature is not finite, or a class is in the test data alone.
    """
    if not len(train) or set(train) != set(test):
        raise SettingError(
            f'training and test features must be of the same tokens, one at least, not {sorted(train)} and {sorted(test)}.'
        )
    for part, features, classes in (('training', train, labels), ('test', test, truth)):
        for token, feats in features.items():
            name = f'{part} {token!r}'
            if feats.ndim != 2 or classes.shape != feats.shape[:1] or not len(classes):
                raise SettingError(
                    f'the {name} features {tuple(feats.shape)} and labels {tuple(classes.shape)} do not fit: '
                    'they must be N x C and N, N at least 1.'
                )
            width = train[token].shape[1]
            if feats.shape[1] != width:
                raise SettingError(
                    f'the {token!r} features do not fit: they have {width} channels for training, {feats.shape[1]} for test.'
                )
            check_finite(feats, name)
    absent = sorted(set(truth.tolist()) - set(labels.tolist()))
    if absent:
        raise SettingError(f'classes {absent} of the test data have no training image.')
