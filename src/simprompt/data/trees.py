"""A folder tree -> rows."""

from __future__ import annotations

import os
from pathlib import Path

from simprompt.data.images import SUFFIXES, FileLoader
from simprompt.data.rows import PARTS, Reading, Row


def read(root: Path) -> Reading:
    """Class folders, or such folders inside train/ and test/ (and val/)."""
    loader = FileLoader(root, upright=True)
    return Reading(str(root.resolve()), loader, _from_folders(root))


def _from_folders(root: Path) -> dict[str, list[Row]]:
    inside = {entry.name for entry in root.iterdir() if entry.is_dir()}
    split_up = "train" in inside and inside <= {*PARTS, "valid", "validation"}
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    if split_up:
        for name in sorted(inside):
            part = "val" if name.startswith("val") else name
            parts[part] += _classes(root, root / name)
    else:
        parts["train"] = _classes(root, root)
    return parts


def _classes(root: Path, folder: Path) -> list[Row]:
    """Images below each class folder, at any depth; hidden files and folders are left out."""
    rows = []
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        for at, folders, files in os.walk(entry):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for file in sorted(files):
                path = Path(at, file)
                if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                    rows.append(Row(path.relative_to(root).as_posix(), entry.name))
    return rows
