"""Tables of images and labels -> rows: delimited text, JSON, JSON lines, Parquet.

What columns, labels, splits and paths mean is in `columns`, `records` and `paths`. Images may be
in the table: bytes in Parquet (a binary column, or one of ``bytes`` and ``path``), base64 text in
JSON (as it is, as a ``data:`` address, or under ``bytes``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from simprompt.data.own_images import coco, columns, delimited, records
from simprompt.data.own_images.columns import Columns, looks_like_file
from simprompt.data.own_images.records import Records
from simprompt.data.own_images.rows import Reading
from simprompt.data.own_images.trees import part_of
from simprompt.data.split import DatasetError
from simprompt.errors import install
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import WEIGHTS, check_regular

TEXT = (".csv", ".tsv", ".tab", ".psv", ".txt")
JSON = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")

_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?(-[0-9a-f]{8,})?$")


def read(path: Path, wanted: Columns | None = None) -> Reading:
    """The rows of a table.

    Raises:
        DatasetError: it is no table, lacks a column, or a row cannot be understood.
        OSError: it may not be read.
    """
    return read_files({path: None}, path.parent, wanted)


def read_files(
    files: Mapping[Path, str | None], root: Path, wanted: Columns | None = None
) -> Reading:
    """The rows of tables of one kind.

    Args:
        files: the tables, with the split that all rows of each are of, if it is known.
        root: the folder that paths are below.
    """
    tables_read, notes = [], []
    for path, split_name in files.items():
        table, reasons = _records(path, split_name, root)
        tables_read.append(table)
        notes += reasons
    location = str((next(iter(files)) if len(files) == 1 else root).resolve())
    return records.read(
        location, tables_read, wanted or Columns(), root, list(dict.fromkeys(notes))
    )


def beside_images(folder: Path, wanted: Columns) -> dict[Path, str | None]:
    """The tables that say what images below a folder are: ``metadata.csv`` (or ``.jsonl``,
    ``.parquet``) with a column ``file_name`` and one of labels, as the hub's ImageFolder has it, or
    ``_annotations.coco.json``; in the folder, or in each of its splits."""
    names = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "_annotations.coco.json")
    if table_path := next((folder / name for name in names if (folder / name).is_file()), None):
        return {table_path: None} if _says_labels(table_path, wanted) else {}
    inside = {
        table: part_of(path.name)
        for path in sorted(folder.iterdir())
        if path.is_dir() and part_of(path.name)
        for name in names
        if (table := path / name).is_file() and _says_labels(table, wanted)
    }
    return dict(sorted(inside.items(), key=lambda one: one[1] != "train"))


def shards(folder: Path) -> dict[Path, str | None]:
    """Parquet files of a dataset, ``train-00000-of-00002.parquet``, in a folder or its ``data/``,
    those for training first; empty where there are none."""
    for candidate in (folder, folder / "data"):
        part_by_shard = {
            path: part_of(_SHARD.sub("", path.stem)) for path in sorted(candidate.glob("*.parquet"))
        }
        if part_by_shard:
            unsplit = len(set(part_by_shard.values()) - {None}) == 0
            split_of_shard = {
                path: None if unsplit else split_name for path, split_name in part_by_shard.items()
            }
            used_shards = {
                path: split_name
                for path, split_name in split_of_shard.items()
                if unsplit or split_name
            }
            return dict(sorted(used_shards.items(), key=lambda one: one[1] != "train"))
    return {}


def tables_in(folder: Path) -> list[Path]:
    """The files of a folder that may be tables."""
    kinds = {*TEXT, *JSON, *PARQUET} - {".txt"}
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in kinds and p.is_file()]


def _says_labels(path: Path, wanted: Columns) -> bool:
    """Whether a table beside images has a column of labels, not of captions or boxes alone."""
    if path.suffix == ".json":
        return True
    names = _records(path, None, path.parent)[0].names
    return "file_name" in names and (wanted.label is not None or columns.has_labels(names))


def _records(path: Path, part: str | None, root: Path) -> tuple[Records, list[str]]:
    suffix = path.suffix.lower()
    name = path.stem if path.parent == root else f"{path.parent.name}/{path.stem}"
    if suffix in PARQUET:
        return _parquet(path, name, part), []
    if suffix in JSON:
        return _json(path, name, part, root)
    if suffix in TEXT:
        return _delimited(path, name, part)
    raise DatasetError(
        f"{path}: expected a folder, or a table ({', '.join((*TEXT[:2], *JSON, *PARQUET[:1]))})."
    )


def _delimited(path: Path, name: str, part: str | None) -> tuple[Records, list[str]]:
    lines, notes = delimited.read(path)
    header = lines[0].values
    if any(looks_like_file(value) for value in header):
        header = _without_header(path, [line.values for line in lines])
        notes.append(f"{path.name} has no header; its columns were read as {', '.join(header)}.")
    else:
        lines = lines[1:]
    header = [value or f"column {position}" for position, value in enumerate(header, 1)]
    data = [line.values for line in lines]
    numbers = [line.number for line in lines]
    return _of_rows(path, name, part, header, data, lambda row: f"line {numbers[row]}"), notes


def _without_header(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a table that begins with a row, where it is clear what they are."""
    width = len(rows[0])
    images = [c for c in range(width) if looks_like_file(rows[0][c])]
    splits = [c for c in range(width) if width == 3 and all(part_of(row[c]) for row in rows)]
    class_columns = [c for c in range(width) if c not in images and c not in splits]
    if len(images) != 1 or len(class_columns) != 1 or len(splits) != width - 2:
        raise DatasetError(
            f"{path}, line 1: {', '.join(rows[0])} looks like a row, not like the names of the "
            "columns. Put a line such as path,label in front."
        )
    names = {images[0]: "path", class_columns[0]: "label", **dict.fromkeys(splits, "split")}
    return [names[c] for c in range(width)]


def _json(path: Path, name: str, part: str | None, root: Path) -> tuple[Records, list[str]]:
    text, notes = delimited.text_of(path)
    rows: list[Any] = []
    steps: list[str] = []
    if path.suffix.lower() == ".json":
        try:
            value = json_value(text)
        except ValueError as error:
            raise DatasetError(f"{path} is not JSON: {error}. Mend it or save it anew.") from None
        if coco.is_coco(value):
            value, reasons = coco.listed(path, value, root)
            notes += reasons
        if isinstance(value, dict):
            lists = [inner for inner in value.values() if isinstance(inner, list)]
            value = lists[0] if len(lists) == 1 else None
        if not isinstance(value, list):
            raise DatasetError(
                f"{path} is no list of objects such as "
                '[{"path": "a.jpg", "label": "cat"}], nor COCO annotations.'
            )
        rows, steps = value, [f"entry {position}" for position in range(1, len(value) + 1)]
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows.append(json_value(line))
                except ValueError as error:
                    raise DatasetError(
                        f"{path}, line {number}: not JSON, {error}. Each line is an object such as "
                        '{"path": "a.jpg", "label": "cat"}.'
                    ) from None
                steps.append(f"line {number}")
    for row, at in zip(rows, steps, strict=True):
        if not isinstance(row, dict):
            raise DatasetError(
                f"{path}, {at}: {row!r:.80} is no object such as "
                '{"path": "a.jpg", "label": "cat"}.'
            )
    header = list(dict.fromkeys(key for row in rows for key in row))
    data = [[row.get(key) for key in header] for row in rows]
    return _of_rows(path, name, part, header, data, lambda row: steps[row]), notes


def _of_rows(
    path: Path,
    name: str,
    part: str | None,
    header: Sequence[str],
    data: Sequence[Sequence[Any]],
    where: Callable[[int], str],
) -> Records:
    if not data:
        raise DatasetError(f"{path} holds no rows.")
    index_of = {column: header.index(column) for column in header}
    return Records(
        name,
        str(path),
        header,
        lambda column: [row[index_of[column]] for row in data],
        lambda column, row: data[row][index_of[column]],
        where,
        part=part,
    )


def _parquet(path: Path, name: str, part: str | None) -> Records:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DatasetError(
            f"{path}: Parquet needs pyarrow: {install('datasets')}, or save the table as CSV."
        ) from None
    try:
        check_regular(path, WEIGHTS)
        table = parquet.read_table(path, memory_map=True)
        kinds = {field.name: field.type for field in table.schema}
    except Exception as error:  # pyarrow has its own errors
        raise DatasetError(f"{path} is not a Parquet file: {error}.") from error
    if not table.num_rows:
        raise DatasetError(f"{path} holds no rows.")
    images = [n for n, kind in kinds.items() if "binary" in str(kind)]

    def of(column: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(table.column(column))
        except Exception as error:  # of pyarrow, or of a text or a date that is none
            raise DatasetError(
                f"{path}: the column {column!r} cannot be read: {error}. Write the table anew."
            ) from None

    @cache
    def values(column: str) -> Sequence[Any]:
        return list(of(column, lambda cells: cells.to_pylist()))

    return Records(
        name,
        str(path),
        list(kinds),
        values,
        lambda column, row: of(column, lambda cells: cells[row].as_py()),
        lambda row: f"row {row + 1}",
        _class_names(table.schema.metadata),
        images,
        part,
    )


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """The names of a column's numbers, as the `datasets` library writes them into a file."""
    try:
        features = json_value((metadata or {})[b"huggingface"])["info"]["encode"]
        return {
            column: kind["names"]
            for column, kind in features.items()
            if kind.get("_type") == "ClassLabel" and kind.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
