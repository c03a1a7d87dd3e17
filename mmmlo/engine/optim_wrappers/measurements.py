"""What a level's update costs, without waiting for the device."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceSeconds:
    """Time between two points in a GPU's stream, which can be read once the GPU has passed the second one.

    ``mmmlo.DeferredRuntimeInfoHook`` reads it when something is logged; reading it earlier waits for the device.
    """

    def __init__(self) -> None:
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._start.record()

    def stop(self) -> None:
        """Mark the end."""
        self._end.record()

    def read(self) -> float:
        """Seconds in between."""
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1000


class LevelMeter:
    """Measures the seconds and, on a GPU, the peak memory of the levels' updates.

    Memory is measured in a level's second update, by when its optimizer has its state, and in every hundredth after that:
    it resets the peak, from which mmengine's own ``memory`` in the log is read.

    Args:
        device (torch.device): Where the levels are trained.

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
        """Measure what runs inside.

        Args:
            level (str): The level that is updated inside.

        Yields:
            dict[str, float | DeviceSeconds]: Empty at first; ``seconds``, and ``memory`` in MiB where it is measured, in
            the end.
        """
        costs: dict[str, float | DeviceSeconds] = {}
        if self.device.type != 'cuda':
            start = time.perf_counter()
            yield costs
            costs['seconds'] = time.perf_counter() - start
            return
        memory = self._updates[level] % 100 == 1
        self._updates[level] += 1
        if memory:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = DeviceSeconds() if self.deferred else None
        yield costs
        if seconds is not None:
            seconds.stop()
            costs['seconds'] = seconds
        if memory:
            costs['memory'] = torch.cuda.max_memory_allocated(self.device) / 2**20
