"""A folder of images with a table of their labels in it, such as `metadata.csv`."""

from __future__ import annotations

from pathlib import Path

from simprompt.data.own_images import tables
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.rows import Reading

ORDER = 30


def recognises(source: str, wanted: Columns) -> bool:
    """Whether a table of a known name lies in it that has labels."""
    return bool(tables.beside_images(Path(source), wanted))


def read(source: str, wanted: Columns) -> Reading:
    """The rows of the table."""
    found = tables.beside_images(Path(source), wanted)
    assert found is not None
    return tables.read_files(found, Path(source), wanted)
