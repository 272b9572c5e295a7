"""Threads and processes that want the same files at the same moment."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 300  # seconds that one waits for the others to come to the start


def contend(start: Any, answer: Callable[[list[str]], None], rounds: int, folder: Path) -> None:
    """Download and unpack what others download and unpack at once; answers with what went wrong.

    Round `i` is file ``weights.bin`` of ``org/thing-i``, and the archive `folder`/archive.zip
    unpacked into `folder`/`i`.
    """
    from simprompt.utils.files.archive import unpack
    from simprompt.utils.files.hub import hub_file

    errors = []
    for i in range(rounds):
        for step in (
            lambda i=i: hub_file(f"org/thing-{i}", "weights.bin", progress=False).read_bytes(),
            lambda i=i: unpack(folder / "archive.zip", folder / str(i)),
        ):
            start.wait(PATIENCE)
            try:
                step()
            except Exception:
                errors.append(f"round {i}: {traceback.format_exc()}")
    answer(errors)


def threads(n: int, rounds: int, folder: Path) -> list[str]:
    """What went wrong where `n` threads contend."""
    errors: list[str] = []
    start = threading.Barrier(n)
    running = [
        threading.Thread(target=contend, args=(start, errors.extend, rounds, folder))
        for _ in range(n)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return errors


def processes(n: int, rounds: int, folder: Path) -> list[str]:
    """What went wrong where `n` processes contend."""
    context = multiprocessing.get_context("spawn")
    start, pipes, running = context.Barrier(n), [], []
    for _ in range(n):
        ours, theirs = context.Pipe()
        process = context.Process(target=contend, args=(start, theirs.send, rounds, folder))
        process.start()
        theirs.close()
        pipes.append(ours)
        running.append(process)
    errors = [error for pipe in pipes for error in pipe.recv()]
    for process in running:
        process.join()
    return errors
