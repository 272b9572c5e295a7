"""Files that others wrote: only regular files of a limited size are opened.

A path that a user, a table or a card names may lead to a pipe without a writer, to a device without
an end, to a socket, or to a sparse file of 200 GB. Every reader opens files here, or calls
`check_regular` before a library opens one by its path.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from simprompt.errors import SimpromptError

TEXT = 128 << 20
"""Bytes of a card, configuration, vocabulary, result or list of names. The largest known are
tokenizers of some 35 MB."""
TABLE = 5 << 28
"""Bytes of a table of images. LVIS' annotations have 1.1 GB."""
IMAGE = 1 << 30
"""Bytes of an image file. Pillow's limit of pixels, uncompressed with 16 bits, is about as much."""
PROMPT = 1 << 30
"""Bytes of a prompt's tensors: kilobytes, but for the cache of image features in Tip-Adapter."""
WEIGHTS = 64 << 30
"""Bytes of a file of weights, features or a Parquet table, which is mapped, not read. The largest
CLIP has 10 GB, and its training checkpoint three times as much."""

BLOCK = 1 << 20

NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)
"""Why there is nothing at a path; other errors say why a path may not be looked at."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "a directory, not a file"),
    (stat.S_ISFIFO, errno.EINVAL, "a pipe, not a regular file"),
    (stat.S_ISSOCK, errno.EINVAL, "a socket, not a regular file"),
    (stat.S_ISCHR, errno.EINVAL, "a device, not a regular file"),
    (stat.S_ISBLK, errno.EINVAL, "a device, not a regular file"),
)


class NotRegularError(SimpromptError, OSError):
    """A path that leads to no regular file, to one that is too large, or to one that may not be
    looked at; ``strerror`` has the reason alone."""

    def __init__(self, path: str | os.PathLike[str], reason: str, number: int) -> None:
        super().__init__(number, reason, str(path)[:300])

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}."


def open_regular(path: str | os.PathLike[str], most: int = TEXT) -> BinaryIO:
    """Open a regular file for reading bytes; never blocks.

    Args:
        most: the largest size in bytes.

    Raises:
        NotRegularError: a directory, pipe, socket or device, or a file of more than `most` bytes.
        OSError: there is no such file, or it may not be read.
        ValueError: a name that no file can have.
    """
    check_regular(path, most)  # a device is not even opened: some act on it
    file = cast(BinaryIO, open(path, "rb", opener=_without_waiting))  # noqa: SIM115
    try:  # another file may have taken the name
        _check(path, os.fstat(file.fileno()), most)
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: str | os.PathLike[str], most: int = TEXT) -> bytes:
    """The content of a regular file; raises what `open_regular` does."""
    with open_regular(path, most) as file:
        # read(most + 1) would ask for as much memory at once
        blocks = [file.read(os.fstat(file.fileno()).st_size + 1)]
        size = len(blocks[0])
        while blocks[-1] and size <= most:  # it grew, or is of a file system that states no sizes
            blocks.append(file.read(BLOCK))
            size += len(blocks[-1])
    if size > most:
        raise _too_large(path, f"more than {most:,}", most)
    return blocks[0] if len(blocks) == 2 else b"".join(blocks)


def read_text(path: str | os.PathLike[str], most: int = TEXT, *, encoding: str = "utf-8") -> str:
    r"""The text of a regular file, its line ends as ``\n``; raises what `open_regular` does.

    Raises:
        UnicodeDecodeError: it is no text in this encoding.
    """
    text = read_bytes(path, most).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_regular(path: str | os.PathLike[str], most: int = TEXT) -> None:
    """Raise what `open_regular` would raise, but for missing rights to read the file."""
    _check(path, os.stat(path), most)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether anything exists at a path.

    `Path.exists`, `is_dir` and `is_file` answer False from Python 3.14 on for a path that may not
    be looked at, of which no message may say that it does not exist.

    Raises:
        NotRegularError: the path may not be looked at; the message has the reason.
    """
    return _mode(path) is not None


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a folder; raises what `is_there` does."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to something that is no folder; raises what `is_there` does.

    Pipes and devices count as files here: whoever opens them gets the reason why they cannot be
    read, and not "there is no such file".
    """
    mode = _mode(path)
    return mode is not None and not stat.S_ISDIR(mode)


def expanded(path: str | os.PathLike[str]) -> Path:
    """`Path.expanduser`, but unchanged where it raises: for a user that does not exist, or without
    a home folder (a container that runs under a bare number, without HOME)."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def entry_is_folder(entry: os.DirEntry[str]) -> bool:
    """`DirEntry.is_dir`, but False where it raises: for a link to itself, or to a path that may not
    be looked at, which would end the walk of a whole tree."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def entry_is_file(entry: os.DirEntry[str]) -> bool:
    """`DirEntry.is_file`, but False where it raises; see `entry_is_folder`."""
    return entry.is_file(follow_symlinks=False) or (
        entry.is_symlink() and os.path.isfile(entry.path)
    )


def _mode(path: str | os.PathLike[str]) -> int | None:
    """Type and rights of what is at a path; None where nothing is."""
    try:
        return os.stat(path).st_mode
    except ValueError:  # a name that no file can have
        return None
    except OSError as error:
        if error.errno in (*NOT_THERE, errno.ENAMETOOLONG):
            return None
        reason = f"cannot be looked at, {error.strerror or error}"
        raise NotRegularError(path, reason, error.errno or errno.EACCES) from error


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe without waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(path: str | os.PathLike[str], found: os.stat_result, most: int) -> None:
    for is_kind, number, reason in _KINDS:
        if is_kind(found.st_mode):
            raise NotRegularError(path, reason, number)
    if found.st_size > most:
        raise _too_large(path, f"{found.st_size:,}", most)


def _too_large(path: str | os.PathLike[str], size: str, most: int) -> NotRegularError:
    return NotRegularError(path, f"{size} bytes, at most {most:,} are read", errno.EFBIG)
