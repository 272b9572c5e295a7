"""A signal to stop: work is brought to a point that it goes on from, and ends within two seconds.

SIGTERM and SIGINT raise `Stopped` where the program is, or, inside `at_a_good_moment`, are noted
and raised by `check` when its caller has kept what it has. What does not come to that point in
`GRACE` seconds, because one step or one download takes longer, is left where it is: files are
renamed into place whole, so nothing is half there.

Nothing is caught until a command says so with `catching`: the library leaves signals alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

GRACE = 1.5  # seconds

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked the program to end; no failure of what was being done.

    Attributes:
        number: of the signal.
        kept: what the program goes on from when it is started again; empty where nobody knows.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number)
        self.number, self.kept = number, kept


_asked = 0  # the signal, once one came
_patient = 0  # how many blocks look for themselves


def asked() -> bool:
    """Whether a signal came that nobody has raised yet."""
    return _asked != 0


def check(kept: str = "") -> None:
    """Raise `Stopped` if a signal came; `kept` says what was kept because of it."""
    if _asked:
        raise Stopped(_asked, kept)


@contextmanager
def at_a_good_moment() -> Iterator[None]:
    """A signal in here waits for `check`, or for the end of the block."""
    global _patient
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1
    if not _patient:
        check()


@contextmanager
def catching(
    numbers: Sequence[int] = SIGNALS,
    last_words: Callable[[int], object] = lambda number: None,
    grace: float = GRACE,
) -> Iterator[None]:
    """Signals in here become `Stopped`, in the main thread.

    Args:
        numbers: which signals.
        last_words: called with the signal's number, in another thread, where the program has not
            ended within `grace` seconds; the process ends when it returns.
    """
    global _asked
    ended = threading.Event()

    def watch(number: int) -> None:
        if not ended.wait(grace):
            try:
                last_words(number)
            finally:
                os._exit(exit_code(number))

    def handler(number: int, frame: FrameType | None) -> None:
        global _asked
        if _asked:
            return
        _asked = number
        threading.Thread(target=watch, args=(number,), daemon=True).start()
        if not _patient:
            raise Stopped(number)

    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        ended.set()
        _asked = 0
        for number, old in before.items():
            signal.signal(number, old)


def exit_code(number: int) -> int:
    """130 for SIGINT, 143 for SIGTERM, as shells have it."""
    return 128 + number
