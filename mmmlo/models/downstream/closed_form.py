"""Classifiers without parameters, solved on labelled images in every step: level II of MLO-MAE solved and not stepped."""

from abc import ABCMeta, abstractmethod

import torch
from mmengine.dist import all_gather
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

__all__ = ['ClosedFormHead', 'RidgeHead', 'SoftNeighboursHead']


class ClosedFormHead(nn.Module, metaclass=ABCMeta):
    """Head that is a function of labelled features, so that its loss is differentiated through its solution.

    With one as ``downstream``, :class:`mmmlo.models.MLOMAE` has the levels ``pretrain`` and ``masking`` alone, and each
    batch of D_val gets one of D_tr by ``train_cfg.dataloaders.labelled``, a loader of its own that keeps the two disjoint.
    On weak features a solution on few images guesses all the same: there should be several for each feature channel. A
    ``bank`` of those of earlier batches makes them many, at no cost but that no gradient reaches them. Of several processes
    each solves on its own batch and the bank of all, so that two do not train exactly what one does with twice the batch.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Width C of the tokens.
        token (str): 'cls', or 'mean' over the patch tokens. Defaults to 'mean'.
        bank (int): Features of earlier images of D_tr that are kept, also in checkpoints. Defaults to 0.

    Raises:
        SettingError: The token is unknown.
    """

    closed_form = True

    bank: torch.Tensor
    bank_labels: torch.Tensor

    def __init__(self, num_classes: int, in_channels: int, token: str = 'mean', bank: int = 0) -> None:
        super().__init__()
        if token not in ('cls', 'mean'):
            raise SettingError(f"model.downstream.token must be 'cls' or 'mean', got {token!r}")
        self.num_classes, self.token = num_classes, token
        self.register_buffer('bank', torch.zeros(bank, in_channels))  # the latest first
        self.register_buffer('bank_labels', torch.full((bank,), -1))  # -1 where there is none yet
        self._filled: int | None = 0  # images in the bank, known without asking the device; None after loading
        self.register_load_state_dict_post_hook(_forget_filled)

    def loss(self, feats: tuple, data_samples: list, solved_on: tuple[tuple, list]) -> dict[str, torch.Tensor]:
        """Compute the cross entropy of images by the head that others solve.

        Args:
            feats (tuple[torch.Tensor]): Features of D_val, the last B x (1 + L) x C.
            data_samples (list): Their labels.
            solved_on (tuple[tuple, list]): Features and labels of D_tr, N x (1 + L) x C.

        Returns:
            dict[str, torch.Tensor]: ``loss``, and ``accuracy`` in per cent.

        Raises:
            SettingError: D_tr's batch has fewer images than there are classes.
        """
        train, test = self._pool(solved_on[0]), self._pool(feats)  # N x C, B x C, in fp32 at least
        if len(train) < self.num_classes:
            raise SettingError(
                f'train_cfg.dataloaders.labelled.batch_size is {len(train)}, fewer than model.downstream.num_classes, '
                f'{self.num_classes}: a head that is solved on them would not know every class'
            )
        train, known = self._with_bank(train, _labels(solved_on[1], train))
        labels = one_hot(known, self.num_classes).to(train.dtype)  # N x K
        truth = _labels(data_samples, test)  # B
        with torch.autocast(test.device.type, enabled=False):  # bfloat16 would leave little of a solution
            scores = self.solve(train, labels, test)  # B x K
        accuracy = 100 * (scores.argmax(dim=1) == truth).float().mean()
        return dict(loss=cross_entropy(scores, truth), accuracy=accuracy)

    def _pool(self, feats: tuple) -> torch.Tensor:
        tokens = feats[-1].to(torch.promote_types(feats[-1].dtype, torch.float32))
        return tokens[:, 0] if self.token == 'cls' else tokens[:, 1:].mean(dim=1)

    def _with_bank(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, N x C, and labels, N, with those of the bank, into which they go, of all processes alike."""
        if not len(self.bank):
            return features, labels
        filled = int((self.bank_labels >= 0).sum()) if self._filled is None else self._filled
        joined = torch.cat([features, self.bank[:filled].to(features)]), torch.cat([labels, self.bank_labels[:filled]])
        for bank, new in ((self.bank, features.detach()), (self.bank_labels, labels)):
            latest = torch.cat([own.to(bank) for own in all_gather(new)])
            bank.copy_(torch.cat([latest, bank])[: len(bank)])
        self._filled = min(filled + len(latest), len(bank))
        return joined

    @abstractmethod
    def solve(self, train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        """Solve on features N x C with labels N x K in one-hot form, and score others, B x C; returns logits, B x K."""


def _forget_filled(head: ClosedFormHead, _: object) -> None:
    head._filled = None


def _labels(data_samples: list, like: torch.Tensor) -> torch.Tensor:
    return torch.cat([sample.gt_label for sample in data_samples]).to(like.device)


@MODELS.register_module()
class RidgeHead(ClosedFormHead):
    """Ridge regression to one-hot labels on standardized features, as in R2-D2 (Bertinetto et al., ICLR 2019).

    Args:
        num_classes, in_channels, token, bank: See :class:`ClosedFormHead`.
        penalty (float): Weight of the squared weights over that of an image's squared error. Defaults to 10.
        scale (float): Factor that makes logits of the regression's values. Defaults to 5.

    Raises:
        SettingError: The penalty is not positive, so that the system may be singular.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        token: str = 'mean',
        bank: int = 0,
        penalty: float = 10.0,
        scale: float = 5.0,
    ) -> None:
        super().__init__(num_classes, in_channels, token, bank)
        if penalty <= 0:
            raise SettingError(f'model.downstream.penalty must be positive, or the system may be singular; got {penalty}')
        self.penalty, self.scale = penalty, scale

    def solve(self, train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        """Solve and score; see :meth:`ClosedFormHead.solve`."""
        variance, mean = torch.var_mean(train, dim=0, correction=0)  # C
        train, test = ((x - mean) / (variance + 1e-8).sqrt() for x in (train, test))
        centre = labels.mean(dim=0)  # K
        # By solve_ex: solve waits for the device, to tell of a singular matrix, which the penalty excludes.
        penalty = self.penalty * torch.eye(min(train.shape), dtype=train.dtype, device=train.device)
        if len(train) < train.shape[1]:  # the smaller of the two systems, of the same solution
            gram = train @ train.T + penalty  # N x N
            values = test @ train.T @ torch.linalg.solve_ex(gram, labels - centre).result
        else:
            gram = train.T @ train + penalty  # C x C
            values = test @ torch.linalg.solve_ex(gram, train.T @ (labels - centre)).result
        return self.scale * (centre + values)


@MODELS.register_module()
class SoftNeighboursHead(ClosedFormHead):
    """Vote of all labelled images, weighted by the softmax of their cosine (Goldberger et al., NeurIPS 2004).

    Args:
        num_classes, in_channels, token, bank: See :class:`ClosedFormHead`.
        temperature (float): What cosines are divided by. Defaults to 0.07.
    """

    def __init__(
        self, num_classes: int, in_channels: int, token: str = 'mean', bank: int = 0, temperature: float = 0.07
    ) -> None:
        super().__init__(num_classes, in_channels, token, bank)
        self.temperature = temperature

    def solve(self, train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        """Vote; see :meth:`ClosedFormHead.solve`."""
        cosines = normalize(test, dim=1) @ normalize(train, dim=1).T / self.temperature  # B x N
        votes = cosines.softmax(dim=1) @ labels  # B x K, each row with the sum 1
        return (votes + 1e-6).log()
