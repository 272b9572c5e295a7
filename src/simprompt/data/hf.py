"""A dataset of the Hugging Face hub -> rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from simprompt.data import records, tables
from simprompt.data.columns import Columns
from simprompt.data.dataset import DatasetError
from simprompt.data.records import Records
from simprompt.data.rows import STRAY, Reading, Unused
from simprompt.data.trees import part_of
from simprompt.errors import install


def read(name: str, wanted: Columns | None = None) -> Reading:
    """The rows of a hub dataset, ``org/name`` or a folder of its files.

    A split of another name than those of `trees.WORDS` is not used, but where it is the only one.

    Raises:
        DatasetError: the library is missing, or the dataset cannot be used.
    """
    try:
        import datasets
    except ImportError:
        if shards := tables.shards(Path(name)):
            return tables.read_files(shards, Path(name), wanted)
        raise DatasetError(
            f"hf:{name} needs the datasets library: {install('datasets')}."
        ) from None
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # its errors are many
        raise DatasetError(f"hf:{name} could not be loaded: {error}.") from error
    parts = {key: part_of(key) for key in loaded}
    notes = []
    if len(loaded) == 1:
        parts = dict.fromkeys(loaded, "train")
        if (only := next(iter(loaded))) != "train":
            notes = [f"hf:{name} has one split, {only}: it is divided."]
    used = sorted((key for key in loaded if parts[key]), key=lambda key: parts[key] != "train")
    if not used:
        raise DatasetError(
            f"hf:{name} has the splits {', '.join(loaded)}, of which none is named like train or "
            "test. Save the one that is meant as Parquet, and name that file."
        )
    made = [_records(datasets, f"hf:{name}", key, loaded[key], parts[key]) for key in used]
    prints = ",".join(f"{key}:{table._fingerprint}" for key, table in sorted(loaded.items()))
    reading = records.read(f"hf:{name}@{prints}", made, wanted or Columns(), notes=notes)
    for key in loaded:
        if key not in used:
            detail = f"{key}: a split named like none of train, val and test."
            reading.unused.append(Unused(f"{key}/", STRAY, detail))
    return reading


def _records(datasets: Any, source: str, key: str, table: Any, part: str | None) -> Records:
    kinds = table.features
    images = [column for column, kind in kinds.items() if isinstance(kind, datasets.Image)]
    classes = {
        column: inner.names
        for column, kind in kinds.items()
        if isinstance(inner := getattr(kind, "feature", kind), datasets.ClassLabel)
    }
    for column in images:
        table = table.cast_column(column, datasets.Image(decode=False))

    @cache
    def values(column: str) -> Sequence[Any]:
        return list(table[column])

    cell: Callable[[str, int], Any] = lambda column, row: table[row][column]  # noqa: E731
    return Records(
        key, source, list(kinds), values, cell, lambda row: f"{key}, row {row + 1}", classes,
        images, part,
    )  # fmt: skip
