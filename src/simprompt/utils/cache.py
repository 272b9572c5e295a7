"""Results that a process keeps: bounded, shared by threads, left out of pickles and forks.

Every table of the package that grows while it works is a `Memo`. `functools.cache` serves where
the package itself bounds the number of keys, such as the files that it ships.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lock:
    """A re-entrant lock for objects that are pickled, copied or inherited by a forked process.

    A copy is a new, open lock. A forked child finds the lock open, whatever thread of the parent
    held it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _forkable.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()

    def after_fork(self) -> None:
        """Open the lock in a forked child."""
        self._lock = threading.RLock()


class Memo(Generic[K, V]):
    """The values used last, by key. Thread-safe.

    Threads that ask for one missing key wait for the first of them; threads that ask for different
    keys compute at the same time. A copy or pickle of a memo is empty.

    Args:
        most: total weight of the values that are kept. The value used last is kept, whatever it
            weighs.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0
        self._lock = Lock()
        self._turns: dict[K, threading.RLock] = {}  # of the keys that are computed now
        _forkable.add(self)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._values

    def get(self, key: K, compute: Callable[[], V], weight: int = 1) -> V:
        """The value of a key, computed where it is not kept.

        Args:
            weight: of the value, in the unit of `most`.

        Raises:
            Exception: what `compute` raises; nothing is kept then.
        """
        with self._lock:
            if key in self._values:
                return self._used(key)
            turn = self._turns.setdefault(key, threading.RLock())
        try:
            with turn:
                with self._lock:
                    if key in self._values:
                        return self._used(key)
                value = compute()
                self.put(key, value, weight)
                return value
        finally:
            with self._lock:
                if self._turns.get(key) is turn:
                    del self._turns[key]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep a value; the values used longest ago make room for it."""
        dropped = []  # destroyed outside of the lock
        with self._lock:
            if key in self._values:
                dropped.append(self._values.pop(key))
                self._weight -= dropped[-1][1]
            self._values[key] = value, weight
            self._weight += weight
            while self._weight > self.most and len(self._values) > 1:
                dropped.append(self._values.popitem(last=False)[1])
                self._weight -= dropped[-1][1]

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            dropped, self._values, self._weight = self._values, OrderedDict(), 0
        dropped.clear()

    def _used(self, key: K) -> V:
        self._values.move_to_end(key)
        return self._values[key][0]

    def __reduce__(self) -> tuple[type[Memo[Any, Any]], tuple[int]]:
        return Memo, (self.most,)

    def after_fork(self) -> None:
        """Forget which keys the parent's threads were computing."""
        self._turns = {}


_forkable: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    for shared in list(_forkable):
        shared.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
