"""One file from the model hub: resumed, checked against its hash, never half there."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from simprompt.utils.files.hub_requests import (
    FetchError,
    following_opener,
    new_request,
    open_url,
)
from simprompt.utils.progress import has_listener, progress_shown, report_progress

CHUNK = 1 << 20
MB = 10**6
MAX_BREAKS = 5  # of a connection, with not one byte between them


def download(
    url: str,
    target: Path,
    size: int | None,
    hash_of: str | None,
    name: str,
    progress: bool,
) -> None:
    """Download a file, going on where an interrupted download of it stopped.

    The bytes go to ``<target>.part``; the file gets its name when it is whole and its hash is
    right. The caller holds the target's lock.

    Args:
        size: bytes expected, where known.
        hash_of: SHA-256 (64 hex digits) or git blob SHA-1 (40) that the file must have.
        progress: whether it is shown on stderr where nobody listens to it.

    Raises:
        FetchError: see `hub_file`.
        OSError: the bytes cannot be written.
    """
    partial_file = target.with_name(target.name + ".part")
    with ExitStack() as stack:
        file = stack.enter_context(partial_file.open("ab"))
        have = os.fstat(file.fileno()).st_size
        if size is not None and shutil.disk_usage(partial_file.parent).free < size - have:
            raise FetchError(
                f"{name} needs {(size - have) / 1e9:.1f} GB more than is free in "
                f"{partial_file.parent}. Make room, or name another place with HF_HOME."
            )
        if progress and not has_listener():
            stack.enter_context(progress_shown())
        _receive(url, file, size, name)
    size_there = partial_file.stat().st_size
    if size is not None and size_there != size:
        partial_file.unlink()
        raise FetchError(f"{name}: got {size_there} bytes, expected {size}. Try again.")
    if hash_of and (got := _hash(partial_file, 64 if len(hash_of) == 64 else 40)) != hash_of:
        partial_file.unlink()
        raise FetchError(
            f"{name}: the downloaded bytes hash to {got}, the hub states {hash_of}. The file was "
            "removed; try again, and if it happens twice, do not trust the mirror."
        )
    os.replace(partial_file, target)


def _receive(url: str, file: IO[bytes], size: int | None, name: str) -> None:
    """Append to `file` what is missing of `url`; a dropped connection is taken up again."""
    opener = following_opener()
    failures = 0
    while True:
        have = file.seek(0, os.SEEK_END)
        if size is not None and have >= size:
            return
        request = new_request(url)
        if have:
            request.add_header("Range", f"bytes={have}-")
        response, headers = open_url(opener, request, name)
        start = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
        if have and not (response.status == 206 and start and int(start[1]) == have):
            file.truncate(0)  # the server sends the whole file: begin again
            have = file.seek(0)
        length = headers.get("Content-Length")
        total = size if size is not None else have + int(length or 0)
        _report(name, have, total)
        try:
            with response:
                while block := response.read1(CHUNK):
                    file.write(block)
                    have += len(block)
                    failures = 0
                    if have // MB > (have - len(block)) // MB:
                        _report(name, have, total)
            file.flush()
            if have >= total:
                return _report(name, have, have)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the disk, not the connection
            file.flush()
        failures += 1
        if failures == MAX_BREAKS:
            raise FetchError(
                f"{name}: the connection broke {MAX_BREAKS} times at {have} of {total} bytes. What "
                "is there is kept: run the command again to go on."
            )
        time.sleep(min(8.0, 0.5 * 2**failures))


def _report(name: str, done: int, total: int) -> None:
    """Tell how far a download is, in megabytes; a server need not say how many there will be."""
    whole = max(1, -(-max(total, done) // MB))
    report_progress(f"{name} (MB)", whole if done >= total > 0 else done // MB, whole)


def _hash(path: Path, digits: int) -> str:
    """SHA-256 (64 digits) of a file, or SHA-1 (40) the way git names a blob."""
    if digits == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
