"""Which image files decode, and digests of their bytes and of the pictures that these are.

Each file is read once, at first sight. A record in the cache holds the stamp and the digests of
those that decode.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from simprompt.data.image_files import SUFFIXES, ImageError, NeedsReaderError, NotAnImageError
from simprompt.data.images import READER, FileLoader, check_image, is_image
from simprompt.data.own_images.encoded import EncodedLoader
from simprompt.data.own_images.rows import DAMAGED, NEEDS_READER, NOT_AN_IMAGE
from simprompt.utils.files.atomic import WriteError, write_text
from simprompt.utils.files.cache_folders import cache_dir, not_kept
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import IMAGE, TABLE, read_bytes, read_text
from simprompt.utils.progress import report_progress

AT_ONCE = 64 << 20
"""Bytes of a file named like an image that are read without a look at its start."""


@dataclass(frozen=True)
class FileCheck:
    """One file.

    Args:
        digest: SHA-256 of its bytes, hex; empty for what does not decode.
        picture: what `images.check_image` returns; equal where other bytes are the same picture.
        reason: one of `rows.REASONS`; empty for what decodes.
        detail: what is wrong, a sentence.
    """

    digest: str = ""
    picture: str = ""
    reason: str = ""
    detail: str = ""


def check_files(loader: FileLoader | EncodedLoader, items: Sequence[str]) -> dict[str, FileCheck]:
    """Every one of these files, or images in a table.

    Of several processes that start together one decodes, and the others wait for it. A file that
    does not decode is looked at each time, for it may have been mended.
    """
    source = loader.root.resolve() if isinstance(loader, FileLoader) else loader.name
    key = hashlib.sha256(f"{READER}|{source}".encode()).hexdigest()[:16]
    record = cache_dir() / "readable" / f"{key}.json"
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_file(record.with_suffix(".lock")))
        except OSError as error:
            not_kept(record, error)
            return _decode(loader, items)
        record_known = _read_record(record)
        stamps = {item: loader.stamp(item) for item in items}
        looks = {}
        for item, stamp in stamps.items():
            cached = record_known.get(item)
            if stamp and cached and cached[0] == stamp:
                looks[item] = FileCheck(digest=cached[1], picture=cached[2])
        fresh = [item for item in stamps if item not in looks]
        if fresh:
            decoded = _decode(loader, fresh)
            record_known |= {
                i: (stamps[i], decoded[i].digest, decoded[i].picture)
                for i in fresh
                if decoded[i].digest
            }
            try:
                write_text(record, json.dumps(record_known))
            except WriteError as error:
                not_kept(record, error)
            looks |= decoded
    return looks


def _read_record(path: Path) -> dict[str, tuple[str, str, str]]:
    """Stamp and digests by item; empty where there is nothing yet, or it is damaged."""
    try:
        values = json_value(read_text(path, TABLE))
        return {
            str(item): (str(stamp), str(digest), str(picture))
            for item, (stamp, digest, picture) in values.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _decode(loader: FileLoader | EncodedLoader, items: Sequence[str]) -> dict[str, FileCheck]:
    looks = {}
    name = loader.root.name if isinstance(loader, FileLoader) else Path(loader.name).name
    task_name = f"images of {name} looked at"
    report_progress(task_name, 0, len(items))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for count, (item, check) in enumerate(
            zip(items, pool.map(partial(_look, loader), items), strict=True), 1
        ):
            looks[item] = check
            if count % 100 == 0 or count == len(items):
                report_progress(task_name, count, len(items))
    return looks


def _look(loader: FileLoader | EncodedLoader, item: str) -> FileCheck:
    """Decode and hash an image in one read; of a file that is no image only the start is read."""
    if isinstance(loader, EncodedLoader):
        try:
            content = loader.content(item)
            picture = check_image(content, loader.called(item))
        except ImageError as error:
            needs = isinstance(error, NeedsReaderError)
            return FileCheck(reason=NEEDS_READER if needs else DAMAGED, detail=str(error))
        return FileCheck(hashlib.sha256(content).hexdigest(), picture)
    path = loader.path(item)
    content = b""
    try:  # of a large file that is no image, no more than the start is read
        small = path.suffix.lower() in SUFFIXES and os.stat(path).st_size <= AT_ONCE
        if small or is_image(path):
            content = read_bytes(path, IMAGE)
    except (OSError, ValueError):
        pass  # check_image says what is wrong with it
    try:
        picture = check_image(content or path, str(path)[:300])
    except ImageError as error:
        return FileCheck(reason=_reason(path, error), detail=str(error))
    return FileCheck(hashlib.sha256(content).hexdigest(), picture)


def _reason(path: Path, error: ImageError) -> str:
    if isinstance(error, NeedsReaderError):
        return NEEDS_READER
    if isinstance(error, NotAnImageError) and path.suffix.lower() not in SUFFIXES:
        return NOT_AN_IMAGE
    return DAMAGED
