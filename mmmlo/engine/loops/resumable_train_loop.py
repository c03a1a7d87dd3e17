"""A training loop that goes on after a checkpoint as if nothing had been."""

import logging
import math
from typing import Any

import torch
from mmengine.dist import gather_object, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmlo.registry import LOOPS
from mmmlo.utils.modules import unwrap

from ..non_finite import random_state, set_random_state
from .resumable_batches import ResumableBatches, build_resumable_loader


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """Runs mmengine's ``EpochBasedTrainLoop`` so that it can be interrupted anywhere.

    Together with :class:`mmmlo.SafeCheckpointHook`, which puts :meth:`state_dict` into its checkpoints, a run that is
    resumed from one goes on with the very next batch and the very next random number: on a CPU bit by bit, see
    ``docs/reliability.md``. The augmentation of a sample is a function of seed, epoch and index, whatever the number of
    workers, and validation does not move the random state of training.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): ``train_dataloader``. One that is built already gets no seeds for its samples, and an
            epoch that was begun begins anew on resume.
        max_epochs (int): Epochs.
        **kwargs: ``val_begin``, ``val_interval`` and ``dynamic_intervals`` of mmengine's ``EpochBasedTrainLoop``.
    """

    _max_epochs: int
    # Whether the length of the run is given in iterations.
    _counts_iters = False

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_epochs: int, **kwargs) -> None:
        if isinstance(dataloader, dict):
            dataloader = build_resumable_loader(runner, dataloader, runner.seed)
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self._model = unwrap(runner.model)
        self._device = next(self._model.parameters()).device
        self._base_batches = ResumableBatches(self.dataloader, 'train_dataloader')
        self._all_batches = [self._base_batches]
        # Where training goes on, while something else may draw.
        self._random: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return where this loop stands between two iterations: the place in each loader, and for each process its random
        state and gradients, of which all processes but the main one get None. All of them have to call it."""
        # After a step there are no gradients. Before one each process has its own: their mean would round otherwise.
        gradients = {name: p.grad.cpu() for name, p in self._model.named_parameters() if p.grad is not None}
        own = dict(random=self._random or random_state(self._device), gradients=gradients)
        loaders = {batches.name: batches.state_dict() for batches in self._all_batches}
        return dict(loaders=loaders, processes=gather_object(own))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, when the loop runs."""
        self._loaded = state

    def run(self) -> nn.Module:
        """Launch training."""
        if self._iter:
            self._resume()
        self.runner.message_hub.update_info('epoch_length', len(self.dataloader))
        return super().run()

    def _resume(self) -> None:
        """Go to where the checkpoint stands, whose epoch and iteration are here already."""
        base, state = self._base_batches, self._loaded
        base.round = self._epoch
        if state is None:
            _warn(
                'The checkpoint says nothing about loaders and random numbers, which begin anew. Those of '
                'mmmlo.SafeCheckpointHook do'
            )
        else:
            for batches in self._all_batches:
                if batches.name in state['loaders']:
                    batches.load_state_dict(state['loaders'][batches.name])
            self._resume_process(state['processes'])
        length = len(self.dataloader)
        changed = self.runner.message_hub.get_info('epoch_length', length) != length
        if not self._counts_iters and (changed or state is not None):
            # With another batch size or number of processes: the epochs that are left, whatever the iterations were.
            self._max_iters = self._iter - base.batch + (self._max_epochs - self._epoch) * length
        # The iterations say how many epochs are left: one that begins anew takes more of them than it had left.
        self._max_epochs = self._epoch + math.ceil((max(self._max_iters - self._iter, 0) + base.batch) / length)

    def _resume_process(self, states: list[dict[str, Any]]) -> None:
        if len(states) != get_world_size():
            _warn(
                f'The checkpoint is of {len(states)} processes, and there are {get_world_size()}: random numbers, and '
                'gradients that were accumulated but not yet applied, begin anew'
            )
            return
        own = states[get_rank()]
        # The Runner may have put its tensors on the GPU.
        self._random = {name: v.cpu() if isinstance(v, torch.Tensor) else v for name, v in own['random'].items()}
        parameters = dict(self._model.named_parameters())
        for name, gradient in own['gradients'].items():
            parameters[name].grad = gradient.to(parameters[name].device)

    def run_epoch(self) -> None:
        """Iterate over what is left of an epoch."""
        batches = self._base_batches
        begun, state = batches.batch, self._random
        self._go_on_drawing(state)
        self.runner.call_hook('before_train_epoch')
        if begun:  # these were called before the checkpoint was saved
            self._go_on_drawing(state)
        self.runner.model.train()
        if self._iter < self._max_iters:
            for idx, batch in enumerate(batches.rest_of_round(), begun):
                self.run_iter(idx, self._gather(batch))
                if self._iter >= self._max_iters:
                    break
        batches.finish_round()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self._random = random_state(self._device)

    def _go_on_drawing(self, state: dict[str, Any] | None) -> None:
        self._random = None
        if state is not None:
            set_random_state(state, self._device)

    def _gather(self, batch: Any) -> Any:
        return batch


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
