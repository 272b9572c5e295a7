"""What a worker process does: it makes the pieces that it is sent, until its parent wants no more.

Nothing here imports torch until the process watches its parent: that takes seconds, in which nobody
would notice that the parent is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from simprompt import stopping
from simprompt.progress import listening


def serve(pipe: Connection, out: str | Path) -> None:
    """Send the outcomes of each piece that comes, and now and then how far it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us

    def pass_on(*told: Any) -> None:
        with suppress(OSError):  # the parent is gone, and the watch on it stops the work
            pipe.send(told)

    try:
        with (
            stopping.catching([signal.SIGTERM], grace=0.8 * stopping.GRACE),
            suppress(EOFError, OSError),  # the parent is done, or gone
            listening(pass_on),
        ):
            threading.Thread(target=_stop_without_parent, daemon=True).start()
            make_piece = import_module("simprompt.sweep.pieces").make_piece
            while True:
                pipe.send(make_piece(pipe.recv(), out))
    except stopping.Stopped as stopped:
        # what has to be kept is kept, and to take torch down by the book takes its time
        os._exit(stopping.exit_code(stopped.number))


def _stop_without_parent() -> None:
    """Ask this process to stop when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # `stopping` ends it in time, whatever it is at
