"""What tells from outside that a file changed, and digests of files that are kept by it.

A size and a time of change are not enough: `rsync -t`, `cp -p`, `tar` and a restored backup give
other content the old time. On POSIX systems the time of the last change of the inode, `ctime`,
cannot be set by a program, and a file that is renamed into place has another inode.

On Windows, and on file systems that keep no such times (FAT, some network disks), a file that is
overwritten in place with as many bytes and gets its old time back is not seen to have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from simprompt.utils.files.atomic import WriteError, write_text
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text

Mark = tuple[int, ...]

SETTLED = 2_000_000_000
"""Nanoseconds after which a further change of a file gets another time on every file system; FAT
counts in steps of two seconds. Until then a digest is not remembered."""


def mark_of(path: str | os.PathLike[str]) -> Mark:
    """Size, time of change, time of change of the inode, inode: four numbers that a file which was
    replaced or written to does not share with what it was before.

    Raises:
        OSError, ValueError: there is no such file.
    """
    status = os.stat(path)
    # what Windows calls ctime is when the file was made
    changed = 0 if sys.platform == "win32" else status.st_ctime_ns
    return status.st_size, status.st_mtime_ns, changed, status.st_ino


def is_settled(mark: Mark) -> bool:
    """Whether a file with this mark could not change any more without getting another one."""
    return time.time_ns() - max(mark[1:3]) > SETTLED


class Digests:
    """SHA-256 of the files below a folder, each read once: a record on disk holds the digests by
    the files' marks. Safe to use from several threads and processes.

    Args:
        root: the folder.
        kept_in: folder of such records.
        read: path -> digest, or an OSError.
    """

    def __init__(self, root: Path, kept_in: Path, read: Callable[[Path], str]) -> None:
        self.root, self._read = root, read
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        self.record = kept_in / f"{name}.json"
        self._known: dict[str, tuple[Mark, str]] | None = None
        self._lock = threading.Lock()

    def of(self, items: Sequence[str]) -> list[str]:
        """The digest of each file, by its path below the root; empty for one that is not there."""
        with self._lock:
            if self._known is None:
                self._known = self._stored()
            cached = self._known
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                digests = list(pool.map(lambda item: self._look(item, cached.get(item)), items))
            fresh = {
                item: (mark, digest)
                for item, (mark, digest) in zip(items, digests, strict=True)
                if mark and digest and cached.get(item) != (mark, digest) and is_settled(mark)
            }
            cached |= fresh
            if fresh:
                self._keep(fresh)
            return [digest for _, digest in digests]

    def _look(self, item: str, known: tuple[Mark, str] | None) -> tuple[Mark, str]:
        """(mark, digest) of a file; the mark is that of before it was read."""
        path = self.root / item
        try:
            mark = mark_of(path)
            if known and known[0] == mark:
                return known
            return mark, self._read(path)
        except (OSError, ValueError):
            return (), ""

    def _stored(self) -> dict[str, tuple[Mark, str]]:
        """What the record holds; nothing where there is none or it is damaged."""
        try:
            values = json_value(read_text(self.record))
            return {
                str(item): (tuple(map(int, mark)), str(digest))
                for item, (mark, digest) in values.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _keep(self, fresh: dict[str, tuple[Mark, str]]) -> None:
        """Add to the record. Of two processes that write at once one's additions are lost, which
        costs reading these files again."""
        with suppress(OSError, WriteError):  # where nothing can be kept the files are read again
            write_text(self.record, json.dumps(self._stored() | fresh))
