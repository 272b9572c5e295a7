"""Folders named like the classes, alone or inside train, val and test; also folders of Parquet
files, where no folder has an image."""

from __future__ import annotations

from pathlib import Path

from simprompt.data.own_images import tables, trees
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.rows import Reading
from simprompt.data.split import DatasetError

ORDER = 100


def recognises(source: str, wanted: Columns) -> bool:
    """Any folder; what is wrong with it is said when it is read."""
    return True


def read(source: str, wanted: Columns) -> Reading:
    """The images below the folder by the folders that they lie in."""
    path = Path(source)
    try:
        reading = trees.read(path)
    except DatasetError as error:
        if table_paths := tables.tables_in(path):
            names = " or ".join(str(table_path) for table_path in table_paths[:3])
            hint = f"If a table there has the labels, name it: {names}."
            raise DatasetError(f"{error} {hint}") from None
        raise
    if not any(reading.parts.values()) and (shards := tables.shards(path)):
        return tables.read_files(shards, path, wanted)
    return reading
