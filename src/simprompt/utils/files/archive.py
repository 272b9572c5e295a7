"""Archives from elsewhere: unpacked within limits, and never outside their folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import cannot_write, remove_abandoned, temporary
from simprompt.utils.files.download import CHUNK
from simprompt.utils.files.hub_requests import FetchError
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.regular import (
    NotRegularError,
    check_regular,
    open_regular,
)

LARGEST = 300 * 10**9  # bytes of an archive; ImageNet's has half as many


def unpack(
    archive: Path, target: Path, *, max_bytes: int = 200 * 10**9, max_files: int = 5_000_000
) -> list[str]:
    """Unpack a zip or tar file into `target`, all of it or nothing.

    Nothing is trusted: a member with an absolute path, ``..``, a drive letter or a backslash, a
    link, a device, or more bytes than it announces stops the unpacking, and `target` stays as it
    was. What macOS adds (``__MACOSX``, ``.DS_Store``, ``._x``) is left out. Processes that unpack
    into one target at once end with the files of all.

    Returns:
        The names of the entries now directly inside `target` that came from the archive.

    Raises:
        FetchError: any of the above, over the limits, encrypted, damaged, compressed in a way that
            Python cannot undo, too little room, or not an archive.
        WriteError: the disk refuses. No other error leaves this function.
    """
    with _told(archive, target):
        target.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        staging = temporary(target / "unpacking")
        staging.mkdir()
        try:
            if _is_zip(archive):
                _unzip(archive, staging, max_bytes, max_files)
            else:
                _untar(archive, staging, max_bytes, max_files)
            names = sorted(entry.name for entry in staging.iterdir())
            with lock_file(target / ".unpacking.lock"):  # two that merge may both see no folder yet
                for name in names:
                    _merge(staging / name, target / name)
            return names
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def top_level(archive: Path) -> set[str]:
    """Names of the entries that unpacking an archive would put into its target.

    Raises:
        FetchError: not an archive, a damaged one, or one with a name that `unpack` refuses.
    """
    with _told(archive):
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                names = zipped.namelist()
        else:
            with tarfile.open(archive, tarinfo=_Member) as tarred:
                names = tarred.getnames()
        paths = (_safe(name, archive) for name in names)
        return {path.parts[0] for path in paths if path}


@contextlib.contextmanager
def _told(archive: Path, target: Path | None = None) -> Iterator[None]:
    """Whatever reading an archive raises, as one sentence; what the disk under `target` refuses,
    with the remedy.

    Damage shows in any way: zipfile and tarfile let through what the decompressors raise, and
    errors of their own arithmetic.
    """
    try:
        check_regular(archive, LARGEST)
        yield
    except NotRegularError as error:
        raise FetchError(f"{archive} cannot be unpacked: {error.strerror}.") from error
    except SimpromptError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
        )
        if target and full:
            raise cannot_write(target, error) from error
        about = str(error).strip() or "no reason is given"
        kind = "" if isinstance(error, OSError) and error.errno else f"{type(error).__name__}, "
        raise FetchError(f"{archive} cannot be unpacked: {kind}{about[:200]}.") from error


def _is_zip(archive: Path) -> bool:
    """True for a zip file, False for a tar file."""
    if zipfile.is_zipfile(archive):
        return True
    with open_regular(archive, LARGEST) as file:  # the xz reader would skip all of a file of zeros
        empty = not file.read(tarfile.BLOCKSIZE).strip(b"\0")
    if empty or not tarfile.is_tarfile(archive):
        raise FetchError(f"{archive} is neither a zip nor a tar file. Download it again.")
    return False


_EXTRA_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Member(tarfile.TarInfo):
    """A member whose long name or extended header is of a sane size.

    tarfile reads those whole into memory, and goes one call deeper for each.
    """

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.type in _EXTRA_HEADERS and self.size > CHUNK:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


def _merge(source: Path, target: Path) -> None:
    """Move a tree over another one; files of the same name are replaced."""
    if source.is_dir() and target.is_dir() and not target.is_symlink():
        for entry in list(source.iterdir()):
            _merge(entry, target / entry.name)
    elif target.is_dir():
        raise FetchError(f"{target} is in the way of a file of the archive; move it elsewhere.")
    else:
        os.replace(source, target)


def _safe(name: str, archive: Path) -> PurePosixPath | None:
    """The member's path if it stays inside the target; None for what is left out."""
    path = PurePosixPath(name)
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        raise FetchError(
            f"{archive} holds a member {name[:100]!r} with a control character in its name. It was "
            "not unpacked; do not trust this archive."
        )
    outside = path.is_absolute() or ".." in path.parts or "\\" in name
    if outside or re.match("[A-Za-z]:", name):
        raise FetchError(
            f"{archive} holds a member {name!r} that would land outside the target folder. It was "
            "not unpacked; do not trust this archive."
        )
    junk = any(p in ("__MACOSX", ".DS_Store") or p.startswith("._") for p in path.parts)
    return None if junk or not path.parts else path


def _write(source: IO[bytes], target: Path, size: int, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        remaining = size
        while block := source.read(min(CHUNK, remaining + 1)):
            remaining -= len(block)
            if remaining < 0:
                raise FetchError(f"{archive}: {target.name} is larger than it says. Not unpacked.")
            file.write(block)
    if remaining:
        raise FetchError(
            f"{archive}: {target.name} ends {remaining} bytes early. Not unpacked: download it "
            "again."
        )


def _check_limits(archive: Path, size: int, count: int, most: int, files: int) -> None:
    if size > most or count > files:
        raise FetchError(
            f"{archive} unpacks to {size:,} bytes in {count:,} files or more; the limit is "
            f"{most:,} bytes and {files:,} files. Not unpacked."
        )


_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _unzip(archive: Path, folder: Path, most: int, files: int) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        total = sum(member.file_size for member in members)
        _check_limits(archive, total, len(members), most, files)
        if total > shutil.disk_usage(folder).free:
            raise FetchError(f"{archive} needs {total / 1e9:.1f} GB; less is free at {folder}.")
        for member in members:
            path = _safe(member.filename, archive)
            if path is None or member.is_dir():
                continue
            kind = (member.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000):
                raise FetchError(f"{archive}: {member.filename!r} is a link, not a file.")
            if member.flag_bits & 0x1:
                raise FetchError(
                    f"{archive}: {member.filename!r} is encrypted. Unpack it by hand with its "
                    "password."
                )
            if member.compress_type not in _METHODS:
                raise FetchError(
                    f"{archive}: {member.filename!r} is compressed with method "
                    f"{member.compress_type}, which is not supported. Unpack it by hand, or pack "
                    "it with deflate."
                )
            with zipped.open(member) as source:
                _write(source, folder / path, member.file_size, archive)


def _untar(archive: Path, folder: Path, most: int, files: int) -> None:
    total = count = 0
    with tarfile.open(archive, tarinfo=_Member) as tarred:
        for member in tarred:
            path = _safe(member.name, archive)
            if path is None or member.isdir():
                continue
            source = tarred.extractfile(member) if member.isreg() else None
            if source is None:
                raise FetchError(f"{archive}: {member.name!r} is a link or a device, not a file.")
            total, count = total + member.size, count + 1
            _check_limits(archive, total, count, most, files)
            _write(source, folder / path, member.size, archive)
        stream = tarred.fileobj
        while stream and (block := stream.read(CHUNK)):  # a compressed file's checksum comes last
            total += len(block)
            _check_limits(archive, total, count, most, files)
