"""Records of tables -> rows: what their labels, splits and images mean.

- A label is text. Numbers of a column that has names for them are these names; a whole number that
  came as ``1.0`` is ``1``. No label is: nothing, NaN, null, and -1 among numbers.
- A split is one of `trees.WORDS`, in any case, as a folder's name. Where no column says it, and
  the paths of all images begin with folders named so, these are the splits.
- An image that is there twice under one label is one row; under several labels it is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simprompt.data.images import FileLoader
from simprompt.data.labels import is_missing, problem
from simprompt.data.own_images import columns
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.encoded import EncodedLoader, is_encoded
from simprompt.data.own_images.paths import Finder
from simprompt.data.own_images.rows import (
    NO_IMAGE,
    NO_LABEL,
    TWICE,
    TWO_LABELS,
    Reading,
    Row,
    Unused,
)
from simprompt.data.own_images.trees import WORDS, part_of
from simprompt.data.split import DatasetError

_MISSING = frozenset({"", "nan", "-nan", "null", "<na>", "n/a", "#n/a"})
_WHOLE = re.compile(r"(-?\d+)(\.0*)?")


@dataclass(frozen=True)
class Records:
    """One table.

    Args:
        name: what its items begin with.
        source: what messages call it.
        names: of the columns.
        values: of a column, one a row.
        cell: of a column and row; cheaper than all values.
        where: what messages call a row, ``line 7``.
        classes: names of a column's numbers.
        images: columns that hold images, by their type.
        part: the split that all rows are of; None: a column says it, or the paths do.
    """

    name: str
    source: str
    names: Sequence[str]
    values: Callable[[str], Sequence[Any]]
    cell: Callable[[str, int], Any]
    where: Callable[[int], str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: Sequence[str] = ()
    part: str | None = None


@dataclass
class _Entry:
    """A record on its way to a row."""

    item: str
    label: str
    part: str | None  # None: nothing says one
    shown: str  # for lists of what is not used: where it stands, and its path


def read(
    where: str,
    tables: Sequence[Records],
    wanted: Columns,
    root: Path | None = None,
    notes: Sequence[str] = (),
) -> Reading:
    """The rows of tables of one kind, the first of which says what the columns are.

    Args:
        where: as in `Reading`.
        root: the folder that paths are below; None: there are no paths.
        notes: what was understood before.

    Raises:
        DatasetError: a column cannot be told, a row cannot be understood.
    """
    first_table = tables[0]
    labelled = [c for c in first_table.classes if c in first_table.names]
    known_columns, guessed = columns.find(
        first_table.source,
        first_table.names,
        first_table.values,
        wanted,
        first_table.images,
        labelled,
    )
    assert known_columns.image is not None
    encoded = any(_is_encoded(table, known_columns.image) for table in tables)
    finder = Finder(root) if root is not None else None
    reading = Reading(where, _loader(where, tables, known_columns.image, root, encoded))
    reading.notes += [*notes, *guessed]
    entries: list[_Entry] = []
    for table in tables:
        _add(table, known_columns, wanted, None if encoded else finder, entries, reading)
    if finder is not None:
        reading.notes += finder.notes()
    if not encoded and not any(entry.part for entry in entries):
        _split_by_folder(entries, reading)
    _place(entries, reading)
    return reading


def _is_encoded(table: Records, column: str) -> bool:
    if column in table.images:
        return True
    if column not in table.names:
        return False
    return is_encoded(next((v for v in table.values(column) if v not in (None, "")), None))


def _loader(
    where: str, tables: Sequence[Records], column: str, root: Path | None, encoded: bool
) -> FileLoader | EncodedLoader:
    if not encoded:
        return FileLoader(root or Path(), upright=True)

    def cells(table: Records) -> Callable[[int], Any]:
        return lambda row: table.cell(column, row)

    return EncodedLoader(where, {table.name: cells(table) for table in tables}, root)


def _add(
    table: Records,
    known: Columns,
    wanted: Columns,
    finder: Finder | None,
    entries: list[_Entry],
    reading: Reading,
) -> None:
    """The entries of one table; what has no label or image is told.

    Args:
        finder: of image files; None: the images' bytes are in the table.
    """
    label, image, split = known.label, known.image, known.split
    assert label is not None and image is not None  # noqa: PT018
    if label not in table.names:
        detail = f"{table.source} has no column {label}."
        reading.unused.append(Unused(f"{table.name}/", NO_LABEL, detail))
        return
    labels = _labels(table, table.values(label), table.classes.get(label))
    row_parts: Sequence[str | None] = [table.part] * len(labels)
    if split is not None and split in table.names and table.part is None:
        certain = wanted.split is not None or columns.squeezed(split) == "split"
        row_parts = _parts(table, split, certain, reading)
    files = table.values(image) if finder is not None else None
    for row, (label_text, row_part) in enumerate(zip(labels, row_parts, strict=True)):
        at = table.where(row)
        if files is None or finder is None:
            item_name = item = f"{table.name}/{row}"
        else:
            cell = files[row]
            cell = cell.get("path") if isinstance(cell, Mapping) else cell
            path = "" if cell is None else str(cell).strip()
            item_name = f"{at}: {path}"
            if not path:
                reading.unused.append(Unused(at, NO_IMAGE))
                continue
            item = _found(table, finder, path, row_part, at)
        if len(label_text) != 1:
            several = f"{item_name} has the labels {', '.join(label_text)}." if label_text else ""
            reading.unused.append(
                Unused(item_name, TWO_LABELS if label_text else NO_LABEL, several)
            )
            continue
        entries.append(_Entry(item, label_text[0], row_part, item_name))


def _found(table: Records, finder: Finder, path: str, part: str | None, at: str) -> str:
    if re.match(r"(https?|s3|gs|ftp)://", path):
        raise DatasetError(
            f"{table.source}, {at}: {path[:200]} is an address on the network. Download the images "
            "and write their paths."
        )
    try:
        return finder.find(path, part)
    except DatasetError as error:
        raise DatasetError(
            f"{table.source}, {at}: {error}. Write the whole path, with its suffix."
        ) from None


def _labels(table: Records, values: Sequence[Any], names: Sequence[str] | None) -> list[list[str]]:
    """The labels of each row: none, one, or several.

    Raises:
        DatasetError: a value that is no label, with its row.
    """
    rows = [value if isinstance(value, list | tuple) else [value] for value in values]
    if names is not None:
        return [_named(row, names) for row in rows]
    for number, row in enumerate(rows):
        for value in row:
            if str(value).strip() and not is_missing(value) and (reason := problem(value)):
                raise DatasetError(
                    f"{table.source}, {table.where(number)}: the label is {value!r:.60}, {reason}. "
                    "A label is a text or a whole number; leave it empty where there is none."
                )
    texts = [[text for value in row if (text := _text(value))] for row in rows]
    if all(_WHOLE.fullmatch(text) for row in texts for text in row):
        texts = [[_WHOLE.fullmatch(text)[1] for text in row] for row in texts]  # type: ignore[index]
        texts = [[text for text in row if text != "-1"] for row in texts]
    return [list(dict.fromkeys(row)) for row in texts]


def _named(row: Sequence[Any], names: Sequence[str]) -> list[str]:
    numbers = [int(value) for value in row if isinstance(value, int | float) and value == value]
    texts = [value for value in row if isinstance(value, str) and value in names]
    return list(dict.fromkeys([*(str(names[n]) for n in numbers if 0 <= n < len(names)), *texts]))


def _text(value: Any) -> str:
    """A label as text; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text.lower() in _MISSING else text


def _parts(table: Records, column: str, sure: bool, reading: Reading) -> list[str | None]:
    """The split of each row; all None where a column that may hold splits (not `sure`) does not."""
    values = [_text(value) for value in table.values(column)]
    row_parts = [part_of(value) for value in values]
    if not sure and not any(row_parts):
        reading.notes.append(f"{table.source}: the column {column!r} names no splits; not used.")
        return [None] * len(values)
    for row, (value, row_part) in enumerate(zip(values, row_parts, strict=True)):
        if row_part is None:
            words = ", ".join(WORDS)
            raise DatasetError(
                f"{table.source}, {table.where(row)}: the split in the column {column} is "
                f"{repr(value) if value else 'empty'}. Write train, val or test, or one of the "
                f"words that mean the same ({words})."
            )
    return [*row_parts]


def _split_by_folder(entries: Sequence[_Entry], reading: Reading) -> None:
    """Splits by the first folder of each path, where all are named like one and train is there."""
    tops = [entry.item.partition("/")[0] for entry in entries if "/" in entry.item]
    part_of_folder = {top: part_of(top) for top in set(tops)}
    split_names = {split_name for split_name in part_of_folder.values() if split_name}
    if (
        len(tops) < len(entries)
        or None in part_of_folder.values()
        or "train" not in split_names
        or len(split_names) < 2
    ):
        return
    for entry, top in zip(entries, tops, strict=True):
        entry.part = part_of_folder[top]
    folders_text = ", ".join(
        f"{top} as {split_name}" for top, split_name in sorted(part_of_folder.items())
    )
    reading.notes.append(f"Splits by the first folder of each path: {folders_text}.")


def _place(entries: Sequence[_Entry], reading: Reading) -> None:
    """Rows of the entries, without those that are there twice or under several labels."""
    labels: dict[str, dict[str, str]] = {}
    for entry in entries:
        labels.setdefault(entry.item, {}).setdefault(entry.label, entry.shown)
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        split_name = entry.part or "train"
        if len(labels_of_item := labels[entry.item]) > 1:
            labels_text = " and ".join(
                f"{label!r} ({place_text})" for label, place_text in [*labels_of_item.items()][:4]
            )
            detail = f"{entry.item} has the labels {labels_text}."
            reading.unused.append(Unused(entry.shown, TWO_LABELS, detail))
        elif (entry.item, split_name) in seen:
            reading.unused.append(Unused(entry.shown, TWICE))
        else:
            seen.add((entry.item, split_name))
            reading.parts[split_name].append(Row(entry.item, entry.label))
