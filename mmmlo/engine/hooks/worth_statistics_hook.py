"""Logs whether scores find the patches that are worth something, where the data tells."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from sklearn.metrics import roc_auc_score

from mmmlo.models.selfsup import patch_worth
from mmmlo.models.weighting import effective_sample_size
from mmmlo.registry import HOOKS
from mmmlo.utils.modules import unwrap

__all__ = ['WorthStatisticsHook', 'worth_statistics']


def worth_statistics(
    mask_prob: torch.Tensor, worth: torch.Tensor, weight: torch.Tensor | None, mask: torch.Tensor
) -> dict[str, float]:
    """Measure how well scores find the patches of worth, and how evenly the weights spread.

    Args:
        mask_prob (torch.Tensor): Scores, B x L.
        worth (torch.Tensor): 1 = of worth, 0 = not, B x L; both occur.
        weight (torch.Tensor | None): Weights of the loss, B x L.
        mask (torch.Tensor): 1 = masked, 0 = visible, B x L.

    Returns:
        dict[str, float]: ``auc``, the probability that a patch of worth has the higher score of two, 0.5 by chance;
        ``correlation`` of scores and worth; and, with weights, the mean of their
        :func:`mmmlo.models.weighting.effective_sample_size`.
    """
    flat = torch.stack((mask_prob.flatten(), worth.flatten())).double().cpu()  # 2 x BL
    found = dict(auc=float(roc_auc_score(flat[1], flat[0])), correlation=flat.corrcoef()[0, 1].item())
    if weight is not None:
        found['effective_sample_size'] = effective_sample_size(weight, mask).mean().item()
    return found


@HOOKS.register_module()
class WorthStatisticsHook(Hook):
    """Measures the scores of fixed images against their worth, and logs :func:`worth_statistics` as ``train/worth/<name>``.

    For looking at: no training reads what it reads. The random state of the training is left as it was.

    Args:
        dataset (dict): A data set whose samples tell their worth, as :class:`mmmlo.datasets.ClutteredDigits` with
            ``PackInputs(meta_keys=('worth', ))``.
        interval (int): Iterations between measurements. Defaults to 80.
        num_images (int): Images that are measured, from the first on. Defaults to 256.
    """

    # Before the logger, which prints what is measured here.
    priority = 'NORMAL'

    def __init__(self, dataset: dict, interval: int = 80, num_images: int = 256) -> None:
        self.dataset, self.interval, self.num_images = dataset, interval, num_images

    def before_train(self, runner: Runner) -> None:
        """Read the images."""
        loader = dict(
            dataset=dict(self.dataset, indices=self.num_images),
            batch_size=self.num_images,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        model = unwrap(runner.model)
        self._batch = model.data_preprocessor(next(iter(Runner.build_dataloader(loader))), False)
        worth = patch_worth(self._batch['data_samples'], model.backbone.grid_size)
        self._worth = worth.to(self._batch['inputs'].device)  # B x L

    @torch.no_grad()
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Measure every ``interval`` iterations, the first one included."""
        if runner.iter and not self.every_n_train_iters(runner, self.interval):
            return
        model = unwrap(runner.model)
        with torch.random.fork_rng([self._worth.device] if self._worth.is_cuda else []):
            scores, weight, selection, _ = model.fix_level('pretrain', self._batch)
        for name, value in worth_statistics(scores, self._worth, weight, selection.mask).items():
            runner.message_hub.update_scalar(f'train/worth/{name}', value)
