"""Worker processes, from the side of the one that starts them."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from simprompt.experiments.sweep.child import serve
from simprompt.experiments.sweep.pieces import Outcome, Piece, parted, record
from simprompt.utils import signals
from simprompt.utils.environ import variable
from simprompt.utils.progress import report_progress

TRIES = 2  # a piece whose worker is killed is tried once more: the other one may have eaten memory


class Worker:
    """A process that makes the pieces it is sent, one at a time."""

    def __init__(self, out: str | Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, out), daemon=True)
        self.process.start()
        theirs.close()  # so that reading fails, rather than waits, when the process is gone
        self.piece: Piece = ()

    def send(self, piece: Piece) -> None:
        """Give it its next piece of work."""
        self.piece = piece
        with suppress(OSError):  # it died idle: reading finds out
            self.pipe.send(piece)


def stop(workers: Sequence[Worker]) -> None:
    """End these workers: those that are at work keep what they have, if they can in time."""
    for worker in workers:
        if worker.piece:
            worker.process.terminate()
        worker.pipe.close()
    end = time.monotonic() + 0.9 * signals.GRACE
    for worker in workers:
        worker.process.join(max(0.0, end - time.monotonic()))
    for worker in workers:
        worker.process.kill()
        worker.process.join()


def _handles(piece: Piece) -> tuple[str, ...]:
    return tuple(config.handle for config in piece)


def on_workers(pieces: Sequence[Piece], out: str | Path, n: int) -> Generator[Outcome, None, None]:
    """Make the pieces on `n` processes of this machine."""
    waiting, tries = deque(pieces), Counter[tuple[str, ...]]()
    busy: dict[Any, Worker] = {}
    idle: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < n:
                piece = waiting.popleft()
                tries[_handles(piece)] += 1
                # for libraries that read it when they are loaded
                with variable("OMP_NUM_THREADS", str(piece[0].threads)):
                    worker = idle.pop() if idle else Worker(out)
                worker.send(piece)
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                outcomes: Any = None
                with suppress(EOFError, OSError):
                    outcomes = worker.pipe.recv()
                if isinstance(outcomes, tuple):  # how far it is
                    report_progress(*outcomes)
                    continue
                del busy[pipe]
                piece, worker.piece = worker.piece, ()
                if outcomes is not None:
                    idle.append(worker)
                else:
                    stop([worker])
                    given_up = tries[_handles(piece)] == TRIES
                    if not given_up or len(piece) > 1:
                        waiting.extend(parted(piece, given_up))
                        continue
                    message = (
                        f"its worker process was killed {TRIES} times (exit code "
                        f"{worker.process.exitcode}; -9 means out of memory, perhaps). Try fewer "
                        "--workers"
                    )
                    record(out, piece[0], message)
                    outcomes = [message]
                yield from zip(piece, outcomes, strict=True)
    finally:
        stop([*busy.values(), *idle])
