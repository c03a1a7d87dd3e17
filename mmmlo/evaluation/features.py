"""Features of a model for all images of a data loader."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmmlo.utils.errors import DataError, SettingError
from mmmlo.utils.modules import unwrap
from mmmlo.utils.progress import progress

__all__ = [
    'batch_features', 'check_finite', 'eval_mode', 'extract_features', 'extract_tokens', 'gather_rows', 'pool_tokens'
]

TOKENS = ('mean', 'cls')


def pool_tokens(feats: Tensor | Sequence[Tensor], token: str) -> Tensor:
    """Make one vector an image, B x C, from what ``extract_feat`` returns.

    Args:
        feats (Tensor | Sequence[Tensor]): Tokens, B x (1+L) x C with the class token first, or vectors, B x C, which
            stay as they are. Of a sequence the last is taken.
        token (str): 'mean' for the mean of the patch tokens, 'cls' for the class token.
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
    """Compute the features of one labelled batch, B x C, float32, on the model's device, and give its B data samples.

    The mode of the model, which may be wrapped, is left as it is. For ``token`` see :func:`pool_tokens`.
    """
    feats, data_samples = _encode(model, batch)
    return pool_tokens(feats, token).float(), data_samples


def _encode(model: Any, batch: dict) -> tuple[Any, list]:
    model = unwrap(model)
    batch = model.data_preprocessor(batch, False)
    data_samples = batch.get('data_samples')
    if not data_samples or any('gt_label' not in sample for sample in data_samples):
        raise SettingError('the images have no `gt_label`: use a labelled dataset whose pipeline ends in `PackInputs`.')
    return model.extract_feat(batch['inputs']), data_samples


def extract_features(
    model: nn.Module, dataloader: DataLoader, token: str = 'mean', name: str = 'features'
) -> tuple[Tensor, Tensor]:
    """Compute features, N x C, and class indices, N, by one token; see :func:`extract_tokens`."""
    rows, labels = extract_tokens(model, dataloader, (token, ), name)
    return rows[token], labels


@torch.no_grad()
def extract_tokens(
    model: nn.Module, dataloader: DataLoader, tokens: Sequence[str] = TOKENS, name: str = 'features', amp: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the features of all images of a data loader, in eval mode, by several tokens in one pass.

    With several processes each computes a share and gets the features of all, without the samples that mmengine's sampler
    repeats to make equal shares.

    Args:
        model (nn.Module): A model with ``data_preprocessor`` and ``extract_feat``, or a wrapper of one.
        dataloader (DataLoader): A loader of labelled images.
        tokens (Sequence[str]): See :func:`pool_tokens`. Defaults to 'mean' and 'cls'.
        name (str): What to call this in the log. Defaults to 'features'.
        amp (bool): Whether the encoder runs under bfloat16 autocast. Defaults to False.

    Returns:
        tuple[dict[str, Tensor], Tensor]: Token -> features, N x C, float32, and class indices, N, int64, on the CPU, in the
        order of the dataset unless the sampler shuffles.

    Raises:
        SettingError: The dataset is empty or has no labels.
    """
    parts: dict[str, list[Tensor]] = {part: [] for part in (*tokens, 'labels')}
    tell = progress(name)
    with eval_mode(model):
        for i, batch in enumerate(dataloader, 1):
            # Not enabled=False: that would switch a caller's autocast off.
            with autocast(dtype=torch.bfloat16) if amp else nullcontext():
                encoded, data_samples = _encode(model, batch)
            for token in tokens:
                parts[token].append(pool_tokens(encoded, token).float().cpu())
            parts['labels'].append(torch.tensor([int(sample.gt_label) for sample in data_samples]))
            tell(i, len(dataloader))
    if not parts['labels']:
        raise SettingError(
            f'{name}: the data loader gave no batch. Check that its dataset is not empty and, with '
            '`drop_last`, not smaller than a batch.'
        )
    size = None if dataloader.drop_last else len(dataloader.dataset)  # type: ignore[arg-type]
    rows = {part: gather_rows(torch.cat(some))[:size] for part, some in parts.items()}
    labels = rows.pop('labels')
    return rows, labels


def gather_rows(rows: Tensor, chunk_size: int = 8192) -> Tensor:
    """Collect the rows of all processes in the order in which mmengine's sampler dealt them out.

    It gives sample ``i`` to process ``i % world_size``, so that shares differ by one. Rows, N_p x ..., travel in chunks,
    because with NCCL they pass through GPU memory, where the features of a large dataset would not fit.
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


def check_finite(feats: Tensor, name: str, where: str = '') -> None:
    """Check that features, N x C, are finite; a DataError has their ``name`` and the rows that are not."""
    wrong = (~torch.isfinite(feats).all(dim=1)).nonzero().flatten()
    if len(wrong):
        raise DataError(
            f'{where}the {name} features hold NaN or infinite values, {len(wrong)} of {len(feats)}, first row '
            f'{int(wrong[0])}: the encoder has diverged. Take an earlier checkpoint.'
        )
