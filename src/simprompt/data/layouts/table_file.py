"""One file with a row per image: CSV, TSV, JSON, JSON lines, Parquet, COCO annotations."""

from __future__ import annotations

from pathlib import Path

from simprompt.data.own_images import tables
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.rows import Reading
from simprompt.utils.files.regular import is_file

ORDER = 20


def recognises(source: str, wanted: Columns) -> bool:
    """Whether it is a file."""
    return is_file(Path(source))


def read(source: str, wanted: Columns) -> Reading:
    """Its rows; images are paths in it or bytes."""
    return tables.read(Path(source), wanted)
