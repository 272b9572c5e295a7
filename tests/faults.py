"""A disk that fails: the Nth time that something is changed below a folder, the system refuses.

Counted are files that are opened to be written, each of their writes, what safetensors writes,
renamed, made and given other rights. A write that fails has written half of what it was given.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
WRITERS = (
    "simprompt.features.store",
    "simprompt.prompt.storage",
    "simprompt.experiments.runner",
)


class Disk:
    """Fails at the change of this number, counted from 1; 0 only counts."""

    def __init__(self, root: Path, at: int = 0) -> None:
        self.root, self.at, self.count = str(root), at, 0
        self.number = ERRORS[at % len(ERRORS)]

    def changes(self, path: Any) -> bool:
        """Count a change; whether it is the one that fails."""
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(self.root):
            return False
        self.count += 1
        return self.count == self.at

    def refuse(self, path: Any) -> OSError:
        return OSError(self.number, os.strerror(self.number), str(path))


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """The disk fails in here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "chmod"):
            patch.setattr(os, name, _guarded(disk, getattr(os, name), name))
        opened = _opening(disk, io.open)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        for module in WRITERS:
            patch.setattr(f"{module}.save_file", _saving(disk, module))
        yield disk


def _guarded(disk: Disk, real: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(path: Any, *args: Any, **more: Any) -> Any:
        if disk.changes(path):
            raise disk.refuse(path)
        return real(path, *args, **more)

    return call


def _opening(disk: Disk, real: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        writes = any(sign in mode for sign in "wax+")
        if writes and disk.changes(file):
            raise disk.refuse(file)
        handle = real(file, mode, *args, **more)
        if writes and isinstance(file, str | os.PathLike):
            write = handle.write

            def half(data: Any) -> Any:
                if disk.changes(file):
                    write(data[: len(data) // 2])
                    handle.flush()
                    raise disk.refuse(file)
                return write(data)

            try:
                handle.write = half
            except AttributeError:  # a file of bytes takes no other method
                return _Bytes(handle, half)
        return handle

    return opened


class _Bytes:
    """A file of bytes whose writes go another way."""

    def __init__(self, handle: Any, write: Callable[[Any], Any]) -> None:
        self._handle, self.write = handle, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _saving(disk: Disk, module: str) -> Callable[..., Any]:
    from safetensors.torch import save_file

    def save(tensors: Any, path: str, *args: Any, **more: Any) -> None:
        if disk.changes(path):
            Path(path).write_bytes(b"half")
            reason = f"{os.strerror(disk.number)} (os error {disk.number})"
            raise SafetensorError(f"Error while serializing: I/O error: {reason}")
        save_file(tensors, path, *args, **more)

    return save
