"""A signal to stop: work is brought to a point that it goes on from, and ends within two seconds.

SIGTERM and SIGINT raise `Stopped` where the program is, or, inside `defer_signals`, are noted and
raised by `raise_if_stopped` once its caller has saved its state. What does not reach that point in
`GRACE` seconds, because one step or one download takes longer, is left where it is: files are
renamed into place whole, so nothing is half there.

Nothing is caught until a command says so with `catch_signals`: the library leaves signals alone.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

GRACE = 1.0  # seconds

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
_patience = threading.local()  # `blocks` of a thread that look for themselves; none at first


def stop_requested() -> bool:
    """Whether a signal came that nobody has raised yet."""
    return _asked != 0


def raise_if_stopped(kept: str = "") -> None:
    """Raise `Stopped` if a signal came; `kept` says what was kept because of it."""
    if _asked:
        raise Stopped(_asked, kept)


@contextmanager
def defer_signals() -> Iterator[None]:
    """A signal in here waits for `raise_if_stopped`, or for the end of the block."""
    before = _blocks()
    _patience.blocks = before + 1
    try:
        yield
    finally:
        _patience.blocks = before
    if not before:
        raise_if_stopped()


def _blocks() -> int:
    blocks: int = getattr(_patience, "blocks", 0)
    return blocks


@contextmanager
def catch_signals(
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
    # Python runs a handler when its main thread comes back from what it computes; a byte in this
    # socket says at once which signal came.
    reader, teller = socket.socketpair()
    teller.setblocking(False)

    def watch() -> None:
        while (byte := reader.recv(1)) and byte[0] not in numbers:
            pass
        if byte and not ended.wait(grace):
            try:
                last_words(byte[0])
            finally:
                os._exit(exit_code(byte[0]))

    def handler(number: int, frame: FrameType | None) -> None:
        global _asked
        if _asked:
            return
        _asked = number
        if not _blocks():
            raise Stopped(number)

    before = {number: signal.signal(number, handler) for number in numbers}
    wakes = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except Exception:
        if not _asked:
            raise
        # a module whose loading was broken off may not load again, in whoever tries
        raise Stopped(_asked) from None
    finally:
        ended.set()
        _asked = 0
        signal.set_wakeup_fd(wakes)
        for number, previous in before.items():
            signal.signal(number, previous)
        teller.close()
        watcher.join()
        reader.close()


def exit_code(number: int) -> int:
    """130 for SIGINT, 143 for SIGTERM, as shells have it."""
    return 128 + number
