"""What a worker process does: it makes the pieces that it is sent, until its parent wants no more.

It watches its parent, and ends with it. Loading torch takes seconds in which no thread of Python's
has its turn, so that comes after, and the system watches meanwhile.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from simprompt.utils import signals
from simprompt.utils.progress import listening

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def serve(pipe: Connection, out: str | Path) -> None:
    """Send the outcomes of each piece that comes, and now and then how far it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us

    def pass_on(*told: Any) -> None:
        with suppress(OSError):  # the parent is gone, and the watch on it stops the work
            pipe.send(told)

    try:
        with (
            signals.catch_signals([signal.SIGTERM], grace=0.8 * signals.GRACE),
            suppress(EOFError, OSError),  # the parent is done, or gone
            listening(pass_on),
        ):
            threading.Thread(target=_stop_without_parent, daemon=True).start()
            with _killed_with_parent():
                make_piece = import_module("simprompt.experiments.sweep.pieces").make_piece
            while True:
                pipe.send(make_piece(pipe.recv(), out))
    except signals.Stopped as stopped:
        # what has to be kept is kept, and to take torch down by the book takes its time
        os._exit(signals.exit_code(stopped.number))


@contextmanager
def _killed_with_parent() -> Iterator[None]:
    """In here the system ends this process when the one that started it is gone, where it can:
    Linux. Nothing is lost, for nothing has begun."""
    parent = multiprocessing.parent_process()
    set_signal = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    if parent is None or set_signal is None:
        yield
        return
    set_signal(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it went before it could be asked for
        os._exit(signals.exit_code(signal.SIGTERM))
    try:
        yield
    finally:
        set_signal(PARENT_DEATH_SIGNAL, 0)


def _stop_without_parent() -> None:
    """Ask this process to stop when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # `stopping` ends it in time, whatever it is at
