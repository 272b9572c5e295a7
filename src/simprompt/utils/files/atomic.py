"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from simprompt.errors import SimpromptError
from simprompt.utils.cache import Memo

_MAKER = re.compile(r"\..*-(\d+)@([0-9a-f]{8})-[^-]+(-aside)?")
TOO_OLD = 7 * 24 * 3600  # seconds; nothing takes that long to write

_swept: Memo[str, bool] = Memo(1 << 12)  # folders; the ones left out are swept once more


def temporary(path: Path) -> Path:
    """A name beside `path` for what is to become it.

    It begins with a dot, ends in no suffix that anybody looks for, and says who makes it: two that
    make the same file, on one machine or on two that share a disk, do not write into each other's,
    and what a dead process left can be told from what is being written.
    """
    return path.with_name(f".{path.name}-{os.getpid()}@{_place()}-{secrets.token_hex(4)}")


def remove_abandoned(folder: str | Path) -> int:
    """Delete what dead processes left in a folder under names of `temporary`; how many there were.

    What living processes make stays. Of processes elsewhere (another machine on a shared file
    system, another container, before a reboot) nothing is known here: theirs stays for a week.
    """
    removed = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and _abandoned(Path(entry.path)):
                remove(Path(entry.path))
                removed += 1
    return removed


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it, if it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    maker = _MAKER.fullmatch(path.name)
    if maker is None:
        return False
    if maker[2] == _place() and os.name == "posix":  # elsewhere signal 0 is no question
        try:
            os.kill(int(maker[1]), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False  # it lives, as another user's
        return False
    try:
        return time.time() - path.stat().st_mtime > TOO_OLD
    except OSError:
        return False  # it was finished at this moment, or it is not for us to see


@cache
def _place() -> str:
    """Where a process id means one process: this boot of this machine, this container of it.

    Not the host's name, which machines on one file system may share.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        boot_mark = f"{boot}{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        boot_mark = f"{platform.node()}{uuid.getnode()}"
    return hashlib.sha256(boot_mark.encode()).hexdigest()[:8]


def beginning(path: Path) -> Path:
    """Make the folder that `path` will stand in, without what dead processes left there, which is
    looked for once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (place := os.path.abspath(path.parent)) not in _swept:
        _swept.put(place, True)
        remove_abandoned(place)
    return temporary(path)


class WriteError(SimpromptError, OSError):
    """A file or folder that cannot be written; says which, why, and what to do."""

    def __str__(self) -> str:  # OSError's own leaves the sentence out
        return str(self.args[0])


_REMEDIES = {
    errno.ENOSPC: "Make room there, or give another place",
    errno.EDQUOT: "Make room there, or give another place",
    errno.EROFS: "Give a place that can be written to",
    errno.EACCES: "Give a place that can be written to, or change the rights of this one",
    errno.EPERM: "Give a place that can be written to, or change the rights of this one",
    errno.ENOTDIR: "A file stands where a folder has to be: give another place",
    errno.EEXIST: "A file stands where a folder has to be: give another place",
    errno.EISDIR: "A folder or a device stands where a file has to be: give another place",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EIO: "The disk fails: give a place on another one",
}


def cannot_write(path: str | Path, error: Exception) -> WriteError:
    """The error that says it, of what the system or safetensors says."""
    number = getattr(error, "errno", None)
    if number is None and (code := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(code[1])
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    remedy = _REMEDIES.get(number or 0, "Give another place")
    failure = WriteError(f"{path} cannot be written: {reason}. {remedy}; what was there is kept.")
    failure.errno, failure.strerror, failure.filename = number, reason, str(path)
    return failure


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """An error of the disk in this block becomes a `WriteError` about `path`."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error


def check_folder(folder: str | Path, keep: bool = True) -> None:
    """Make a folder and write into it, before the work of hours that is to be kept there.

    Args:
        keep: leave new folders there; otherwise the work makes them again when it is done.

    Raises:
        WriteError: it cannot be made or written to.
    """
    folder = Path(folder)
    created = [] if keep else [p for p in (folder, *folder.parents) if not p.exists()]
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    with suppress(OSError):  # another process has put something into it
        for path in created:
            path.rmdir()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it becomes `path` when the block ends.

    A reader sees the old file or the new one, never a half. If the block raises, the old file
    stays.

    Raises:
        WriteError: the disk refuses.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # to replace /dev/null by a file would be a disaster
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, ""))
    with writing_to(path), _replacing(path) as partial:
        yield partial


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    partial = beginning(path)
    try:
        # Some writers, safetensors for one, leave files that only their owner may read.
        with partial.open("xb") as file:
            rights = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield partial
        os.chmod(partial, rights)
        os.replace(partial, path)
    except BaseException:
        remove(partial)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all.

    A file's name may hold bytes that are no UTF-8, which Python has as lone surrogates: they are
    written as escapes, in JSON those that it reads back.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file that people can read as well, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def checksum(contents: bytes | memoryview) -> str:
    """CRC-32 of bytes, eight hex digits, to be kept beside them: it tells damage, not forgery.

    At some 5 GB a second it costs less than reading does.
    """
    return f"{zlib.crc32(contents):08x}"
