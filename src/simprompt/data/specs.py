"""What is known of the published datasets: sizes, folders, archives, from coop.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

Rows = list[tuple[str, int]]
"""(path below the image folder, label)."""


@dataclass(frozen=True)
class Spec:
    """One dataset of ``coop.json``.

    Args:
        name: as `load` takes it.
        folder: below the data root.
        images: image folder below `folder`.
        rule: how to split, or to read the original lists, where there is no split file.
        split: name of the split file; empty where the dataset's own lists are the split.
        archive, sha256: file of the mirror, and its hash where it is known.
        repo: dataset repository of the authors that has the archive instead of the mirror.
        original: what the authors' archive calls the image folder, if not `images`.
        classes, train, val, test: how many there are, published.
    """

    name: str
    about: str
    folder: str
    images: str
    rule: str
    classes: int
    train: int
    val: int
    test: int
    licence: str
    split: str = ""
    archive: str = ""
    sha256: str = ""
    repo: str = ""
    original: str = ""
    aliases: tuple[str, ...] = field(default=())


def package_json(path: str) -> Any:
    """A JSON file of this folder."""
    file = resources.files("simprompt.data").joinpath(*path.split("/"))
    return json.loads(file.read_text(encoding="utf-8"))
