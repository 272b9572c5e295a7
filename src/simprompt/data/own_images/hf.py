"""A dataset of the Hugging Face hub, or a folder that `save_to_disk` wrote -> rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from simprompt.data.own_images import records, tables
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.records import Records
from simprompt.data.own_images.rows import STRAY, Reading, Unused
from simprompt.data.own_images.trees import part_of
from simprompt.data.split import DatasetError
from simprompt.errors import install
from simprompt.utils.files.regular import expanded


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote this folder: a dataset, or several
    splits of one."""
    several, single = ("dataset_dict.json",), ("state.json", "dataset_info.json")
    return any(all((folder / name).is_file() for name in names) for names in (several, single))


def read(name: str, wanted: Columns | None = None) -> Reading:
    """The rows of a hub dataset, ``org/name`` or a folder of its files, or of a folder that
    `save_to_disk` wrote.

    A split of another name than those of `trees.WORDS` is not used, but where it is the only one.

    Raises:
        DatasetError: the library is missing, or the dataset cannot be used.
    """
    path = expanded(name)
    saved = is_saved(path)
    try:
        import datasets
    except ImportError:
        if saved:
            raise DatasetError(
                f"{path} was written by save_to_disk of the datasets library, which is needed to "
                f"read it: {install('datasets')}."
            ) from None
        if shards := tables.shards(Path(name)):
            return tables.read_files(shards, Path(name), wanted)
        raise DatasetError(
            f"hf:{name} needs the datasets library: {install('datasets')}."
        ) from None
    source = str(path) if saved else f"hf:{name}"
    try:
        loaded = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(name)
    except Exception as error:  # its errors are many
        raise DatasetError(f"{source} could not be loaded: {error}.") from error
    if saved and not isinstance(loaded, dict):  # one split, whose name is often not saved
        loaded = {"train": loaded}
    part_of_split = {key: part_of(key) for key in loaded}
    notes = []
    if len(loaded) == 1:
        part_of_split = dict.fromkeys(loaded, "train")
        if (only := next(iter(loaded))) != "train":
            notes = [f"{source} has one split, {only}: it is divided."]
    used_splits = sorted(
        (key for key in loaded if part_of_split[key]), key=lambda key: part_of_split[key] != "train"
    )
    if not used_splits:
        raise DatasetError(
            f"{source} has the splits {', '.join(loaded)}, of which none is named like train or "
            "test. Save the one that is meant as Parquet, and name that file."
        )
    tables_read = [
        _records(datasets, source, key, loaded[key], part_of_split[key]) for key in used_splits
    ]
    prints = ",".join(f"{key}:{table._fingerprint}" for key, table in sorted(loaded.items()))
    location = str(path.resolve()) if saved else source
    reading = records.read(f"{location}@{prints}", tables_read, wanted or Columns(), notes=notes)
    for key in loaded:
        if key not in used_splits:
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
        key,
        source,
        list(kinds),
        values,
        cell,
        lambda row: f"{key}, row {row + 1}",
        classes,
        images,
        part,
    )
