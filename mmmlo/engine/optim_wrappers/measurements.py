"""What a level's update costs, without waiting for the device."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch


class DeviceSeconds(NamedTuple):
    """Time between two events in a GPU's stream, for ``mmmlo.DeferredRuntimeInfoHook``; an early read waits for it."""

    start: torch.cuda.Event
    end: torch.cuda.Event

    def read(self) -> float:
        """Seconds in between."""
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1000


class LevelMeter:
    """Measures the seconds and, on a GPU, the peak memory in MiB of the levels' updates.

    Memory is measured in a level's second update, by when its optimizer has its state, and in every hundredth after that:
    it resets the peak, from which mmengine's own ``memory`` in the log is read.

    Attributes:
        deferred (bool): Whether somebody reads :class:`DeviceSeconds` later. If not, a GPU's seconds are left out, because
            reading them at once would wait for the device. Defaults to False.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.deferred = False
        self._updates: Counter[str] = Counter()

    @contextmanager
    def measure(self, level: str) -> Iterator[dict[str, float | DeviceSeconds]]:
        """Measure what runs inside, and write ``seconds`` and ``memory`` to the dict that this yields."""
        costs: dict[str, float | DeviceSeconds] = {}
        if self.device.type != 'cuda':
            begin = time.perf_counter()
            yield costs
            costs['seconds'] = time.perf_counter() - begin
            return
        memory = self._updates[level] % 100 == 1
        self._updates[level] += 1
        if memory:
            torch.cuda.reset_peak_memory_stats(self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield costs
        end.record()
        if self.deferred:
            costs['seconds'] = DeviceSeconds(start, end)
        if memory:
            costs['memory'] = torch.cuda.max_memory_allocated(self.device) / 2**20
