"""How far something is: a bar on a terminal, a line every 30 seconds anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from tqdm import tqdm

__all__ = ['SECONDS', 'progress', 'track']

SECONDS = 30
_T = TypeVar('_T')


def progress(name: str, start: int = 0, bar: bool = True) -> Callable[[int, int], None]:
    """Make a function that takes how much is done and how much there is, and shows it with rate and time left.

    Args:
        name (str): What goes on.
        start (int): How much was done before. Defaults to 0.
        bar (bool): Whether a terminal gets a bar; without, it gets lines too, as beside those of a log. Defaults to True.
    """
    begin = told = time.monotonic()
    shown: tqdm | None = None

    def tell(done: int, total: int) -> None:
        nonlocal told, shown
        if bar and sys.stderr.isatty() and is_main_process():
            options = dict(initial=start, leave=False, dynamic_ncols=True, unit_scale=total > 100_000)
            shown = shown or tqdm(total=total, desc=name, **options)
            shown.update(done - shown.n)
            if done >= total:
                shown.close()
            return
        now = time.monotonic()
        if now - told >= SECONDS and done > start:
            told, rate = now, (done - start) / (now - begin)
            left = tqdm.format_interval((total - done) / rate)
            print_log(f'{name}: {done}/{total} ({100 * done / total:.0f} %), {rate:.3g}/s, {left} left', 'current')

    return tell


def track(items: Sequence[_T], name: str) -> Iterator[_T]:
    """Go through a sequence, and show how far this is."""
    tell = progress(name)
    for done, item in enumerate(items, 1):
        yield item
        tell(done, len(items))
