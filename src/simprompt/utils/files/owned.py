"""Folders in which simprompt replaces its own files and leaves everything else alone.

A prompt, an export, a classifier, and the results of `learn` are each a set of files with a JSON
card among them. The card records a checksum of every file, its own included, under `CHECKSUMS`. A
later write replaces those files. A file that was changed since then, or that was never recorded, is
kept beside the new one as NAME.bak.

The steps of a write into a folder that is there:

1. The new files are written into a temporary folder inside it.
2. `FORMER`, a hidden folder inside it, gets hard links to (or copies of) the old files and a
   journal of the names that are about to appear.
3. The old card is removed, the other files are replaced, and the new card is put in place last.
4. `FORMER` is removed.

So a folder never has a card beside another version's files. If step 3 raises, the old files are put
back. If the process is killed in step 3, `current` finds the old version in `FORMER`, and the next
write puts it back first.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import (
    beginning,
    cannot_write,
    checksum,
    remove,
    temporary,
    write_json,
    write_text,
    writing_to,
)
from simprompt.utils.files.locks import lock_folder

CHECKSUMS = "checksums"
"""Key of a card: file name relative to the folder -> CRC-32."""
FORMER = ".simprompt-former"
JOURNAL = ".journal.json"
_BLANK = "00000000"
_EXISTS = (errno.EEXIST, errno.ENOTEMPTY)


def check_owned(folder: str | Path, card: str, kind: str) -> None:
    """Check that `replacing_owned` may write to a folder.

    Args:
        card: the name of the card, such as ``"card.json"``.
        kind: what the files are, such as ``"prompt"``.

    Raises:
        SimpromptError: it is a file, or a folder with other files and no card.
    """
    folder = Path(folder)
    with writing_to(folder):
        _check_owned(folder, card, kind)


def _check_owned(folder: Path, card: str, kind: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise SimpromptError(f"{folder} is a file; a saved {kind} is a folder. Name another one.")
    if not folder.is_dir() or _has_card(folder, card) or (folder / FORMER).is_dir():
        return
    if any(folder.iterdir()):
        raise SimpromptError(
            f"{folder} holds other files and no {kind}; give a folder that is new or empty."
        )


def current(folder: str | Path, card: str) -> Path:
    """The folder to read: `folder`, or the old version in it if a write was killed."""
    folder = Path(folder)
    former = folder / FORMER
    return former if not _has_card(folder, card) and _has_card(former, card) else folder


@contextmanager
def replacing_owned(folder: str | Path, card: str) -> Iterator[Path]:
    """An empty folder to fill; when the block ends its files become files of `folder`.

    Files of earlier writes are replaced or removed; all other files stay. A link to a folder stays
    a link. If the block raises, everything stays.

    Args:
        card: the name of the JSON object, among the files, that records the others.

    Raises:
        WriteError: the disk refuses, or a file to be replaced is read-only or a folder.
    """
    folder = Path(os.path.realpath(folder))
    with writing_to(folder):
        is_new = not folder.exists()
        partial = beginning(folder if is_new else folder / "new")
        try:
            partial.mkdir()
            yield partial
            _seal(partial, card)
            if is_new:
                try:
                    os.rename(partial, folder)
                    return
                except OSError as error:  # another process has made the folder
                    if error.errno not in _EXISTS or not folder.is_dir():
                        raise
            with lock_folder(folder):
                _recover(folder)
                _exchange(partial, folder, card)
        finally:
            remove(partial)


def _seal(folder: Path, card: str) -> None:
    """Record every file of a folder in its card."""
    value = json.loads((folder / card).read_text(encoding="utf-8"))
    sums = {name: checksum((folder / name).read_bytes()) for name in _names(folder)}
    text = _text({**value, CHECKSUMS: {**sums, card: _BLANK}})
    text_sum = checksum(text.encode("utf-8", "backslashreplace"))
    write_text(folder / card, _text({**value, CHECKSUMS: {**sums, card: text_sum}}))


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _recorded(folder: Path, card: str) -> dict[str, str]:
    """What a card records. Names that lead out of the folder are left out: a card may come from
    anywhere."""
    try:
        sums = json.loads((folder / card).read_text(encoding="utf-8"))[CHECKSUMS]
        return {str(name): str(value) for name, value in sums.items() if _is_inside(name)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _is_inside(name: str) -> bool:
    path_parts = PurePosixPath(name).parts
    return bool(path_parts) and not PurePosixPath(name).is_absolute() and not (
        {"..", FORMER} & {*path_parts} or re.search(r"[\\:\0]", name)
    )  # fmt: skip


def _is_recorded(folder: Path, name: str, card: str, sums: dict[str, str]) -> bool:
    """Whether a file is as it was written."""
    contents = (folder / name).read_bytes()
    if name == card and name in sums:
        entry = f'"{card}": "{sums[name]}"'.encode()
        contents = contents.replace(entry, f'"{card}": "{_BLANK}"'.encode())
    return sums.get(name) == checksum(contents)


def _names(folder: Path) -> list[str]:
    """The files of a folder and of those in it, relative to it."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _has_card(folder: Path, card: str) -> bool:
    return (folder / card).is_file()


def _exchange(partial: Path, folder: Path, card: str) -> None:
    """Replace the files of the last write by those in `partial`."""
    sums, replacements = _recorded(folder, card), _names(partial)
    present = [name for name in {*replacements, *sums} if os.path.lexists(folder / name)]
    _check_replaceable(folder, present)
    edited = {
        name
        for name in present
        if not _is_recorded(folder, name, card, sums) and not _is_same(folder, partial, name)
    }
    backups = {name: _free(folder, name) for name in sorted(edited & {*replacements})}
    journal = {"card": card, "new": replacements, "backups": [*backups.values()]}
    former, prepared = folder / FORMER, temporary(folder / "former")
    try:
        prepared.mkdir()
        for name in present:
            _link(folder / name, prepared / name)
        write_json(prepared / JOURNAL, journal)
        os.rename(prepared, former)
    finally:
        remove(prepared)
    try:
        for name, backup in backups.items():
            _link(folder / name, folder / backup)
        (folder / card).unlink(missing_ok=True)
        for name in sorted(replacements, key=lambda name: name == card):
            if name == card:  # first everything that the new version lacks
                for former_name in sorted({*sums} - {*replacements} - edited):
                    _delete(folder, former_name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, folder / name)
    except BaseException:
        _restore(folder)
        raise
    remove(former)
    for name, backup in backups.items():
        warnings.warn(
            f"{folder / name} is not as simprompt wrote it. It was replaced, and the file that was "
            f"there is kept as {backup}.",
            stacklevel=5,
        )


def _check_replaceable(folder: Path, names: Collection[str]) -> None:
    """Raises: WriteError: a file is read-only, or a folder stands in its place."""
    for name in sorted(names):
        path = folder / name
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(errno.EISDIR, ""))
        if path.is_file() and not path.stat().st_mode & 0o222:
            raise cannot_write(path, PermissionError(errno.EACCES, ""))


def _is_same(folder: Path, partial: Path, name: str) -> bool:
    """Whether a file is what it would be replaced by, or leads nowhere."""
    if not (folder / name).is_file():
        return True
    replacement = partial / name
    return replacement.is_file() and replacement.read_bytes() == (folder / name).read_bytes()


def _free(folder: Path, name: str) -> str:
    """A name for the backup of a file, relative to the folder."""
    number, backup = 2, f"{name}.bak"
    while os.path.lexists(folder / backup):
        number, backup = number + 1, f"{name}.bak{number}"
    return backup


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the disk has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        return  # a link that leads nowhere
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _delete(folder: Path, name: str) -> None:
    """Delete a file of ours, what Python compiled of it, and folders that are empty then."""
    path = folder / name
    path.unlink(missing_ok=True)
    if path.suffix == ".py":
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)
    for parent in (path.parent / "__pycache__", *path.relative_to(folder).parents):
        with suppress(OSError):
            if str(parent) != ".":
                (folder / parent).rmdir()


def _restore(folder: Path) -> None:
    """Put back what `FORMER` holds, and remove what was to take its place."""
    former = folder / FORMER
    journal = json.loads((former / JOURNAL).read_text(encoding="utf-8"))
    card, former_names = journal["card"], [name for name in _names(former) if name != JOURNAL]
    for name in [*{*journal["new"]} - {*former_names}, *journal["backups"]]:
        if _is_inside(name):
            _delete(folder, name)
    for name in sorted(former_names, key=lambda name: name == card):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(former / name, folder / name)
    remove(former)


def _recover(folder: Path) -> None:
    """Finish or undo a write that was killed."""
    former = folder / FORMER
    if not former.is_dir():
        return
    try:
        card = str(json.loads((former / JOURNAL).read_text(encoding="utf-8"))["card"])
        if not _has_card(folder, card):
            _restore(folder)
    except (ValueError, LookupError, TypeError, FileNotFoundError):
        pass  # not a journal of ours: nothing is to be put back
    remove(former)
