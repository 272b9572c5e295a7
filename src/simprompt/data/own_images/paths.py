"""What a table calls an image -> the file.

A path is looked for below the table's folder; if it is not there, in the folders beside the table,
one deep (``images/``, ``train/``), and beside the folder of a table that lies in ``annotations/``
or the like. On the way

- backslashes are slashes, a URL's ``file://`` goes;
- of a path that is absolute on another machine the longest end that is there is taken;
- a name without suffix, or with one in another case, is the one image file of that name.

Of several folders that have it the one named like the row's split is meant; else it is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from simprompt.data.own_images.columns import looks_like_file
from simprompt.data.own_images.trees import part_of
from simprompt.data.split import DatasetError
from simprompt.utils.files.regular import entry_is_file, entry_is_folder

BESIDE = frozenset({"annotations", "annotation", "labels", "metadata", "meta", "tables", "csv"})
"""Folders of tables, beside which the images are."""

_ABSOLUTE = re.compile(r"[A-Za-z]:[/\\]|[/\\]")


class Finder:
    """Files below a table's folder.

    Args:
        root: the folder; paths that are returned are relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moved = 0  # absolute paths of another machine that were found below the folder
        self.elsewhere: dict[str, int] = {}  # paths that were found in a folder beside the table
        self._files: dict[str, dict[tuple[str, str], list[str]]] = {}
        self._beside: list[str] | None = None

    def find(self, text: str, part: str | None = None) -> str:
        """The path below the root, as the text has it where there is no such file.

        Args:
            part: the row's split, where it has one.

        Raises:
            DatasetError: several files may be meant; the message does not say where it stands.
        """
        if self._is_file(text):
            return _normal(self.root, text)
        path = text.removeprefix("file://").replace("\\", "/")
        if self._is_file(path):
            return _normal(self.root, path)
        ends = [path]
        if _ABSOLUTE.match(path):
            pieces = [piece for piece in path.split("/") if piece]
            ends = ["/".join(pieces[start:]) for start in range(len(pieces))]
        for end in ends:
            if item := self._below(end, part):
                self.moved += len(ends) > 1
                return item
        return _normal(self.root, path)

    def _below(self, path: str, part: str | None) -> str:
        """The file of this path, exactly or nearly, in the root or a folder beside; or nothing."""
        if item := self._nearly("", path):
            return item
        by_folder = {
            folder: item for folder in self.beside() if (item := self._nearly(folder, path))
        }
        if len(by_folder) > 1 and part:
            mine = {f: i for f, i in by_folder.items() if part_of(os.path.basename(f)) == part}
            by_folder = mine or by_folder
        if len(by_folder) > 1:
            raise DatasetError(f"{path} may be {' or '.join(sorted(by_folder.values())[:4])}")
        for folder, item in by_folder.items():
            self.elsewhere[folder] = self.elsewhere.get(folder, 0) + 1
            return item
        return ""

    def _nearly(self, folder: str, path: str) -> str:
        parent, _, name = os.path.normpath(os.path.join(folder, path)).rpartition("/")
        if name in ("", ".", ".."):
            return ""
        files, low = self._listed(parent), name.casefold()
        keys = (("name", name), ("any case", low), ("stem", name), ("any stem", low))
        candidates = next((files[key] for key in keys if key in files), [])
        items = [
            _normal(self.root, f"{parent}/{candidate}" if parent else candidate)
            for candidate in sorted(candidates)
        ]
        if len(items) > 1:
            raise DatasetError(f"{path} may be {' or '.join(items[:4])}")
        return items[0] if items else ""

    def _listed(self, place: str) -> dict[tuple[str, str], list[str]]:
        """The files of a folder by name, and images by their name without suffix as well."""
        if place not in self._files:
            listing: dict[tuple[str, str], list[str]] = {}
            try:
                entries = [
                    entry.name for entry in os.scandir(self.root / place) if entry_is_file(entry)
                ]
            except (OSError, ValueError):
                entries = []
            for name in entries:
                keys = [("name", name), ("any case", name.casefold())]
                if looks_like_file(name):
                    stem = os.path.splitext(name)[0]
                    keys += [("stem", stem), ("any stem", stem.casefold())]
                for key in keys:
                    listing.setdefault(key, []).append(name)
            self._files[place] = listing
        return self._files[place]

    def beside(self) -> list[str]:
        """Folders in which the images may be, relative to the root."""
        if self._beside is None:
            self._beside = list(self._folders("."))
            if self.root.resolve().name.lower() in BESIDE:
                self._beside += ["..", *self._folders("..")]
        return self._beside

    def _folders(self, place: str) -> Iterator[str]:
        root_name = self.root.resolve().name
        for entry in sorted(os.scandir(self.root / place), key=lambda e: e.name):
            if entry_is_folder(entry) and not entry.name.startswith((".", "__")):
                if place == ".":
                    yield entry.name
                elif entry.name != root_name:
                    yield f"{place}/{entry.name}"

    def _is_file(self, path: str) -> bool:
        try:
            return (self.root / path).is_file()
        except (OSError, ValueError):
            return False

    def notes(self) -> list[str]:
        """What was understood of the paths."""
        notes = []
        if self.elsewhere:
            folders_text = ", ".join(
                f"{folder}/ ({count})" for folder, count in self.elsewhere.items()
            )
            notes.append(f"The images were found in {folders_text}.")
        if self.moved:
            notes.append(
                f"{self.moved} absolute paths lead nowhere here; the files of these names below "
                f"{self.root} were taken."
            )
        return notes


def _normal(root: Path, path: str) -> str:
    """One way to write a path, relative to the root where it is below it."""
    try:
        normal = os.path.normpath(path)
        if os.path.isabs(normal):
            top = os.path.realpath(root)
            inside = os.path.relpath(os.path.realpath(normal), top)
            return normal if inside.startswith("..") else inside.replace(os.sep, "/")
    except ValueError:
        return path
    return normal.replace(os.sep, "/")
