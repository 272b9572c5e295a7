"""A table of paths and labels -> rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from simprompt.data.dataset import DatasetError
from simprompt.data.images import FileLoader
from simprompt.data.rows import PARTS, Reading, Row

TABLES = (".csv", ".tsv", ".parquet")


def read(path: Path) -> Reading:
    """The rows of a table.

    Raises:
        DatasetError: it is no table, lacks a column, or a row cannot be used.
    """
    if path.suffix.lower() not in TABLES:
        raise DatasetError(f"{path}: expected a folder, or a table ({', '.join(TABLES)}).")
    records = _records(path)
    if not records or not {"path", "label"} <= records[0].keys():
        have = ", ".join(records[0]) if records else "no rows"
        raise DatasetError(f"{path} needs the columns path and label (and split, if any): {have}.")
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for number, record in enumerate(records, start=2):
        part = str(record.get("split") or "train").lower()
        part = "val" if part.startswith("val") else part
        if part not in parts:
            raise DatasetError(f"{path}, row {number}: split {part!r} is none of {PARTS}.")
        label, item = record["label"], record["path"]
        if label in (None, "") or item in (None, ""):
            raise DatasetError(f"{path}, row {number}: path or label is empty.")
        parts[part].append(Row(str(item), str(label)))
    return Reading(str(path.resolve()), FileLoader(path.parent, upright=True), parts)


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise DatasetError(
                f"{path}: Parquet needs pyarrow: `pip install simprompt[datasets]`, or save the "
                "table as CSV."
            ) from None
        try:
            return list(parquet.read_table(path).to_pylist())
        except Exception as error:  # pyarrow has its own errors
            raise DatasetError(f"{path} is not a Parquet file: {error}.") from error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            return list(csv.DictReader(file, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a UTF-8 table: {error}.") from error
