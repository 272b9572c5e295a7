"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it becomes `path` when the block ends.

    A reader sees the old file or the new one, never a half. If the block raises, the old file
    stays. The temporary name begins with a dot and ends in no suffix that anybody looks for; its
    writer is in it, so two that write the same file, on one machine or on two that share a disk,
    do not write into each other's.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        # Some writers, safetensors for one, leave files that only their owner may read.
        with partial.open("xb") as file:
            rights = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield partial
        os.chmod(partial, rights)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder beside `folder` to fill; it becomes `folder` when the block ends.

    A folder that is there is moved aside first and then deleted: for a moment there is none, never
    a mixture of two. If the block raises, the old one stays.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    aside = partial.with_name(f"{partial.name}.old")
    try:
        partial.mkdir()
        yield partial
        if folder.exists():
            os.replace(folder, aside)
        os.replace(partial, folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


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
