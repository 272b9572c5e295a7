"""Look at every image file of a dataset: what is missing, unreadable, double or unusual."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from simprompt.data.dataset import Dataset
from simprompt.data.image_files import ImageError
from simprompt.data.images import FileLoader, inspect_image, thumbnail_digest
from simprompt.data.own_images.duplicates import same_picture
from simprompt.data.own_images.encoded import EncodedLoader
from simprompt.utils.files.regular import IMAGE, read_bytes
from simprompt.utils.progress import report_progress

BAD = ("missing", "unreadable", "duplicate")
"""Kinds of findings that make a check fail; a "note" says how an unusual file is read."""


@dataclass(frozen=True)
class Finding:
    """One thing about one file."""

    kind: str  # "missing", "unreadable", "duplicate" or "note"
    item: str
    what: str


@dataclass(frozen=True)
class Report:
    """What a check saw.

    Args:
        counts: images by split (or ``{"files": n}`` for a folder).
        readable: files that decode.
        findings: in the order of the files.
    """

    counts: dict[str, int]
    readable: int
    findings: tuple[Finding, ...]

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [f for f in self.findings if f.kind == kind]

    @property
    def ok(self) -> bool:
        """Nothing missing, unreadable or double."""
        return not any(f.kind in BAD for f in self.findings)


def check_dataset(dataset: Dataset) -> Report:
    """Check every file that a dataset's splits name.

    Raises:
        ValueError: a dataset whose images are not files.
    """
    loader = dataset.train.loader
    if not isinstance(loader, FileLoader | EncodedLoader):
        raise ValueError(f"{dataset.name} has no image files to check")
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    counts = {name: len(split) for name, split in splits.items() if split is not None}
    items_of_digest: dict[str, list[str]] = {}
    for name, split in splits.items():
        for item in split.items if split is not None else ():
            items_of_digest.setdefault(item, []).append(name)
    if isinstance(loader, FileLoader):
        files = {item: loader.path(item) for item in items_of_digest}
        findings, readable = _look(files, loader.upright)
    else:
        findings, readable = _look_inside(loader, list(items_of_digest))
    twice = [
        Finding("duplicate", item, f"named more than once: in {', '.join(names)}")
        for item, names in items_of_digest.items()
        if len(names) > 1
    ]
    return Report(counts, readable, (*findings, *twice))


def check_folder(folder: Path) -> Report:
    """Check whatever lies below a folder, whether or not its name says that it is an image."""
    files = {}
    for at, folders, names in os.walk(folder):
        folders.sort()
        # a folder that is named like an image is worth a word, and is looked into all the same
        named_so = [n for n in folders if Path(n).suffix.lower() in _LIKE_IMAGES]
        for name in sorted([*names, *named_so]):
            path = Path(at, name)
            if not name.startswith("."):
                files[path.relative_to(folder).as_posix()] = path
    findings, readable = _look(files)
    return Report({"files": len(files)}, readable, tuple(findings))


_LIKE_IMAGES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


def _look(files: Mapping[str, Path], upright: bool = True) -> tuple[list[Finding], int]:
    """(findings, how many decode); `upright` as `FileLoader` has it."""
    pictures: dict[str, str] = {}

    def look(item: str) -> list[Finding]:
        path = files[item]
        try:
            picture, notes = inspect_image(path, upright=upright, flatten=upright)
            pictures[item] = thumbnail_digest(picture)
        except ImageError as error:
            kind = "unreadable" if os.path.lexists(path) else "missing"
            return [Finding(kind, item, str(error).removeprefix(f"{path}: ").rstrip("."))]
        return [Finding("note", item, note) for note in notes]

    findings: list[Finding] = []
    failed: set[str] = set()
    report_progress("files checked", 0, len(files))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for count, problems in enumerate(pool.map(look, files), start=1):
            findings += problems
            failed.update(f.item for f in problems if f.kind != "note")
            if count % 100 == 0 or count == len(files):
                report_progress("files checked", count, len(files))
    digests: dict[str, str] = {}
    findings += _copies({item: path for item, path in files.items() if item not in failed}, digests)
    findings += _same_pictures([item for item in files if item in pictures], digests, pictures)
    return findings, len(files) - len(failed)


def _same_pictures(
    items: Sequence[str], digests: Mapping[str, str], pictures: Mapping[str, str]
) -> list[Finding]:
    """A note for each group of different files that are one picture; see `twins.Twins`."""
    return [
        Finding(
            "note",
            group[0],
            f"identical after reading to {len(group) - 1} of {len(items)} images whose files "
            f"differ, {group[1]} for example; open both in a viewer, something may be lost",
        )
        for group in same_picture(items, digests, pictures)
    ]


def _look_inside(loader: EncodedLoader, items: Sequence[str]) -> tuple[list[Finding], int]:
    """As `_look`, at images whose bytes are in a table."""
    findings: list[Finding] = []
    first_of_digest: dict[str, str] = {}
    pictures: dict[str, str] = {}
    failed = 0
    for item in items:
        try:
            picture, notes = inspect_image(loader.content(item), upright=True, name=item)
            pictures[item] = thumbnail_digest(picture)
        except ImageError as error:
            reason = str(error).removeprefix(f"{item}: ").rstrip(".")
            findings.append(Finding("unreadable", item, reason))
            failed += 1
            continue
        findings += [Finding("note", item, note) for note in notes]
        if (earlier := first_of_digest.setdefault(loader.stamp(item), item)) != item:
            findings.append(Finding("duplicate", item, f"the same bytes as {earlier}"))
    digests = {item: loader.stamp(item) for item in pictures}
    findings += _same_pictures(list(pictures), digests, pictures)
    return findings, len(items) - failed


def _copies(files: Mapping[str, Path], digests: dict[str, str]) -> Iterable[Finding]:
    """Files whose bytes equal those of an earlier one; only files of equal size are read.

    Args:
        digests: is filled with the digest of each file that was read.
    """
    by_size: dict[int, list[str]] = {}
    for item, path in files.items():
        by_size.setdefault(path.stat().st_size, []).append(item)
    for items in by_size.values():
        if len(items) < 2:
            continue
        first_of_digest: dict[str, str] = {}
        for item in items:
            digest = hashlib.sha256(read_bytes(files[item], IMAGE)).hexdigest()
            digests[item] = digest
            if digest in first_of_digest:
                yield Finding("duplicate", item, f"the same bytes as {first_of_digest[digest]}")
            else:
                first_of_digest[digest] = item
