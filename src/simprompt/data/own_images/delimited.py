"""A text file with delimiters -> records: encoding, delimiter, header, ragged lines.

- UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, UTF-16 without one; what is
  none of these is read as cp1252 (Windows), and that is said.
- The delimiter is a comma, semicolon, tab or bar: the one that makes a table of the first lines. A
  first line ``sep=;``, as Excel writes it, decides.
- Blanks around values go; empty lines are skipped; quoted values may hold delimiters and newlines.
- A line with more or fewer values than the header is refused, but for empty ones at its end.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from simprompt.data.split import DatasetError
from simprompt.utils.files.regular import TABLE, read_bytes
from simprompt.utils.files.text import decoded

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class Line(NamedTuple):
    """One record: the line it begins at, counting from 1, and its values."""

    number: int
    values: list[str]


def read(path: Path) -> tuple[list[Line], list[str]]:
    """(records, the header being the first of them; what was understood).

    Raises:
        DatasetError: no text, no table, or a line that does not fit; says which.
    """
    text, notes = text_of(path)
    lines = text.splitlines()
    skip = 0
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].rstrip()) == 5:
        delimiter, skip = lines[0][4], 1
    elif lines and lines[0].lower() == "sep=\t":
        delimiter, skip = "\t", 1
    else:
        delimiter = _delimiter(text)
    records = _records(path, text, delimiter, skip)
    if not records:
        raise DatasetError(f"{path} is empty. Write a table with the columns path and label.")
    if delimiter != ",":
        name = DELIMITERS.get(delimiter, repr(delimiter))
        notes.append(f"{path.name}: values are separated by {name}.")
    return _fitted(path, records, delimiter), notes


def text_of(path: Path) -> tuple[str, list[str]]:
    """The text of a table, whatever its encoding, and notes on what was assumed."""
    try:
        text, encoding = decoded(read_bytes(path, TABLE))
    except ValueError as error:
        raise DatasetError(f"{path}{error}. Save the table as CSV in UTF-8.") from None
    if encoding != "cp1252":
        return text, []
    return text, [f"{path.name} is not UTF-8; it was read as cp1252, as Windows writes it."]


def _delimiter(text: str) -> str:
    """The delimiter under which most of the first lines have as many values as the first, and that
    makes the most columns."""

    def score(delimiter: str) -> tuple[bool, int, int]:
        rows = []
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t"
        )
        try:
            for row in reader:
                if row:
                    rows.append(len(row))
                if len(rows) == 50:
                    break
        except csv.Error:
            pass
        width = rows[0] if rows else 1
        return width > 1, sum(row == width for row in rows) if width > 1 else 0, width

    return max(DELIMITERS, key=score)


def _records(path: Path, text: str, delimiter: str, skip: int) -> list[Line]:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=delimiter != "\t",
    )
    records, before = [], 0
    try:
        for values in reader:
            number, before = before + 1, reader.line_num
            values = [value.strip() for value in values]
            if number > skip and any(values):
                records.append(Line(number, values))
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {before + 1}: {error}. A value that holds a quote, a newline or the "
            'delimiter stands in quotes, and a quote in it is doubled ("").'
        ) from None
    return records


def _fitted(path: Path, records: list[Line], delimiter: str) -> list[Line]:
    """Records of one width, that of the header."""
    header = records[0].values
    while len(header) > 1 and not header[-1]:
        header.pop()
    fitted = []
    for number, values in records:
        while len(values) > len(header) and not values[-1]:
            values.pop()
        if len(values) != len(header):
            raise DatasetError(
                f"{path}, line {number}: {len(values)} values, and the first line has "
                f"{len(header)} ({', '.join(header)}). A value that holds "
                f"{_called(delimiter)} stands in quotes."
            )
        fitted.append(Line(number, values))
    return fitted


def _called(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}.get(
        delimiter, repr(delimiter)
    )
