"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import secrets
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
    # Not `tempfile`: its files are private, and a file should be as readable as its folder.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file that people can read as well, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def checksum(contents: bytes | memoryview) -> str:
    """CRC-32 of bytes, eight hex digits, to be kept beside them: it tells damage, not forgery.

    At some 5 GB a second it costs less than reading does.
    """
    return f"{zlib.crc32(contents):08x}"
