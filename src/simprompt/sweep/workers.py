"""Worker processes: each makes the pieces it is sent, one at a time."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from simprompt.environ import variable
from simprompt.progress import listening, tell
from simprompt.sweep.pieces import Outcome, Piece, make_piece, record

TRIES = 2  # a run whose worker is killed is tried once more: the other one may have eaten memory


class Worker:
    """A process that makes the pieces it is sent, one at a time."""

    def __init__(self, out: str | Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, out), daemon=True)
        self.process.start()
        theirs.close()  # so that reading fails, rather than waits, when the process is gone
        self.piece: Piece = ()

    def send(self, piece: Piece) -> None:
        self.piece = piece
        with suppress(OSError):  # it died idle: reading finds out
            self.pipe.send(piece)

    def stop(self) -> None:
        if self.piece:
            self.process.terminate()
        self.pipe.close()
        self.process.join(10)


def _serve(pipe: Connection, out: str | Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no half-written folder

    def pass_on(*told: Any) -> None:
        with suppress(OSError):  # the parent is gone: that is no fault of the run
            pipe.send(told)

    with suppress(EOFError, OSError), listening(pass_on):  # the parent is done, or gone
        while True:
            pipe.send(make_piece(pipe.recv(), out))


def on_workers(pieces: Sequence[Piece], out: str | Path, n: int) -> Iterator[Outcome]:
    waiting, tries = deque(pieces), Counter[str]()
    busy: dict[Any, Worker] = {}
    idle: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < n:
                piece = waiting.popleft()
                tries.update(config.handle for config in piece)
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
                    tell(*outcomes)
                    continue
                del busy[pipe]
                piece, worker.piece = worker.piece, ()
                if outcomes is not None:
                    idle.append(worker)
                else:
                    worker.stop()
                    again = [config for config in piece if tries[config.handle] < TRIES]
                    waiting.extend((config,) for config in again)  # it takes no other along twice
                    piece = tuple(config for config in piece if config not in again)
                    message = (
                        f"its worker process was killed {TRIES} times (exit code "
                        f"{worker.process.exitcode}; -9 means out of memory, perhaps). Try fewer "
                        "--workers"
                    )
                    for config in piece:
                        record(out, config, message)
                    outcomes = [message] * len(piece)
                yield from zip(piece, outcomes, strict=True)
    finally:
        for worker in (*busy.values(), *idle):
            worker.stop()
