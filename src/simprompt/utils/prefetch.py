"""Items read in threads before they are asked for, in order and in bounded number.

Images are read so: Pillow lets other threads run while it decodes and scales, so that threads read
as many images a second as processes do (`benchmarks/images.py` measures both), and nothing has to
be pickled or started.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 8


def threads() -> int:
    """How many images are decoded at a time: as many as there are processors, and at most
    `MOST_THREADS`, as each one holds a whole photo."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def read_ahead(read: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`read(item)` of all items in their order, made in threads while the caller is at work.

    An iterator of items is asked for no more than `ahead` of them beyond those whose results were
    taken; as many results are in memory. What `read` raises is raised in its item's place. Whoever
    stops early stops the reading.

    Args:
        ahead: at least 1.
    """
    waiting: deque[Future[R]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads())
    try:
        while True:
            missing = ahead - len(waiting)
            waiting.extend(pool.submit(read, item) for item in itertools.islice(remaining, missing))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
