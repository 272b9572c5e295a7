"""One at a time: locks among threads and processes, which the system drops if their holder dies."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """One at a time of all that change a folder, by a lock on the folder itself, so that no file is
    left behind. Where folders cannot be locked, on Windows and some network disks, several at a
    time."""
    with ExitStack() as stack:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            stack.enter_context(locked(handle))
        yield


@contextmanager
def locked(file: IO[bytes] | int) -> Iterator[None]:
    """Hold an exclusive lock on an open file or folder; the system drops it if the process dies."""
    number = file if isinstance(file, int) else file.fileno()
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(number, msvcrt.LK_LOCK, 1)
                break
            except OSError as error:
                if error.errno != errno.EDEADLOCK:  # what it says after ten seconds of waiting
                    raise
        unlock = partial(msvcrt.locking, number, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX)
        unlock = partial(fcntl.flock, number, fcntl.LOCK_UN)
    try:
        yield
    finally:
        unlock()


@contextmanager
def lock_file(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock among threads and processes; `lock` is a file that exists meanwhile.

    Raises:
        OSError: the file cannot be made.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("ab") as file, locked(file):
            if not _names(lock, file):  # who held it has removed it, and the next made it anew
                continue
            try:
                yield
            finally:
                with suppress(PermissionError):  # Windows, where others have it open
                    lock.unlink()
            return


def _names(path: Path, file: IO[bytes]) -> bool:
    """Whether `path` leads to this open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
