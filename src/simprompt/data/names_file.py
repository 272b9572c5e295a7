"""A file of class names -> the names: the one reader of every option and function that takes one.

Forms:

- one name per line; blank lines and lines that begin with ``#`` are skipped, as is a comment behind
  a blank, `` # ...``. A name in quotes loses them; so does a list pasted with ``- `` or ``,``;
- numbered lines, ``0: circle``, ``1,square`` or ``2 star``, where all lines are numbered;
- a table whose first line has a column ``name``, ``class`` or ``label``;
- JSON: a list, ``{"names": [...]}``, or names by number in either direction,
  ``{"0": "circle"}``, ``{"circle": 0}``.

A name may hold commas (``dog, small``) where there are several lines. A single line with commas may
be one name or many, and is refused with both ways to write it.
"""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simprompt.clip.same_text import check_name
from simprompt.errors import SimpromptError
from simprompt.utils.files.text import text_of

HEADERS = frozenset(
    {"name", "names", "class", "classes", "class name", "classname", "category", "label", "labels"}
)
"""What the column of names is called in the first line of a table."""

LONGEST_LINE = 100_000
"""Characters; the reader of tables takes no longer values, and a name is far shorter."""

_NUMBERED = re.compile(r"(\d{1,9})(\s*[:;,\t|=]\s*|[.)]\s+|\s+)(.*\S)")
_COMMENT = re.compile(r"\s#(?!\d).*")


class Line(NamedTuple):
    """A line of a file, counting from 1, without blanks at its ends."""

    number: int
    text: str


def names_in(path: str | Path, *, check: bool = True) -> list[str]:
    """The class names of a file, as they are written in it.

    Args:
        check: refuse an entry that cannot be a class name; a caller that judges names itself does
            without.

    Raises:
        SimpromptError: not a readable text file, no name in it, or a line that is no name, with the
            line.
    """
    path = Path(path)
    text = text_of(path)
    start = text.lstrip()[:1]
    if path.suffix.lower() == ".json" or start in ("[", "{"):
        names = _of_json(path, text)
        sources = [f"{path}, entry {number}" for number in range(1, len(names) + 1)]
    else:
        lines = _lines(text)
        for line in lines:
            if len(line.text) > LONGEST_LINE:
                raise SimpromptError(
                    f"{path}, line {line.number} has {len(line.text):,} characters, and begins "
                    f"with {line.text[:40]!a}. Write one name per line."
                )
        lines = _of_lines(path, lines)
        names = [line.text for line in lines]
        sources = [f"{path}, line {line.number}" for line in lines]
    if not names:
        raise SimpromptError(f"{path} names no classes. Write one name per line.")
    for name, source in zip(names, sources, strict=True) if check else ():
        check_name(name, source)
        if controls := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", name):
            raise SimpromptError(
                f"{source} holds the control character {controls[0]!a}: {name!a:.100}. Write one "
                "name per line, as plain text."
            )
    return names


def _lines(text: str) -> list[Line]:
    """The lines that say something."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            if not line.startswith(('"', "'")):
                line = _COMMENT.sub("", line).rstrip()
            lines.append(Line(number, line))
    return lines


def _of_lines(path: Path, lines: list[Line]) -> list[Line]:
    if len(lines) > 1 and re.fullmatch(r"(?i)(names|classes|labels)\s*:", lines[0].text):
        lines = lines[1:]  # the key of a YAML list
    if len(lines) < 2:
        return [_single(path, line) for line in lines]
    if all(line.text.startswith("- ") for line in lines):
        lines = [Line(number, text[2:].strip()) for number, text in lines]
    table = _table(path, lines)
    if table is not None:
        return table
    lines = _numbered(lines)
    for number, text in lines:
        if text.endswith(",") and "," in text[:-1] and not _quoted(text[:-1]):
            raise SimpromptError(
                f"{path}, line {number}: {text!a:.100} ends with a comma, so it seems to be one "
                "line of a longer list. Write one name per line."
            )
        if "\t" in text:
            raise SimpromptError(
                f"{path}, line {number}: {text!a:.100} holds a tab. Write one name per line, or a "
                'table whose first line names the column "name".'
            )
    return [Line(number, _unquoted(text.removesuffix(","))) for number, text in lines]


def _single(path: Path, line: Line) -> Line:
    """The name of a file with one line."""
    number, text = line
    if _quoted(text):
        return Line(number, _unquoted(text))
    match = _NUMBERED.fullmatch(text)
    if match and match[1] in ("0", "1") and ":" in match[2]:
        text = match[3]
    if sign := next((sign for sign in (",", ";", "\t") if sign in text.strip(",;")), ""):
        called = {",": "commas", ";": "semicolons", "\t": "tabs"}[sign]
        raise SimpromptError(
            f"{path}, line {number}: {text!a:.100} is the only line and holds {called}. Write one "
            f'name per line; if it is one name, put it in quotes, "dog, small".'
        )
    return Line(number, text.strip(",; "))


def _quoted(text: str) -> bool:
    """Whether one pair of quotes stands around the text."""
    return bool(re.fullmatch(r'"[^"]+"|\'[^\']+\'', text))


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if _quoted(text) else text


def _numbered(lines: list[Line]) -> list[Line]:
    """Lines without the numbers that count them."""
    matches = [_NUMBERED.fullmatch(line.text) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(lines) or len(set(numbers)) < len(lines):
        return lines
    counting = (list(range(len(lines))), list(range(1, len(lines) + 1)))
    # "737 max" and "747 jumbo" are names: a blank separates numbers that count without gaps
    if any(match and match[2].isspace() for match in matches) and sorted(numbers) not in counting:
        return lines
    return [
        Line(line.number, match[3]) for line, match in zip(lines, matches, strict=True) if match
    ]


def _table(path: Path, lines: Sequence[Line]) -> list[Line] | None:
    """The names of a table whose first line says which column has them; None: it is no table."""
    for delimiter in ("\t", ";", ","):
        rows = [_cells(line.text, delimiter) for line in lines]
        columns = [cell.lower().replace("_", " ") for cell in rows[0]]
        if len(columns) == 1 and (delimiter != "," or _quoted(lines[0].text)):
            continue
        name_columns = [index for index, column in enumerate(columns) if column in HEADERS]
        if not name_columns:
            continue
        for line, row in zip(lines, rows, strict=True):
            # a column alone may hold names with commas
            if len(row) != len(columns) and len(columns) > 1:
                raise SimpromptError(
                    f"{path}, line {line.number}: {line.text!a:.100} has {len(row)} values, and "
                    f"the first line, {lines[0].text!a:.100}, has {len(columns)}. Put a value that "
                    "holds a separator in quotes, or write one name per line."
                )
        called = next((c for c in ("name", "class name", "classname") if c in columns), "")
        best = columns.index(called) if called else name_columns[0]
        warnings.warn(
            f"{path.name}, line {lines[0].number} was read as a header: the names are in the "
            f"column {columns[best]!r}. If it is a name, put it in quotes.",
            stacklevel=2,
        )
        if len(columns) == 1:
            return [Line(line.number, _unquoted(line.text)) for line in lines[1:]]
        return [Line(line.number, row[best]) for line, row in zip(lines[1:], rows[1:], strict=True)]
    return None


def _cells(text: str, delimiter: str) -> list[str]:
    row = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in row]


def _of_json(path: Path, text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        number = getattr(error, "lineno", 1)
        line = [*text.splitlines(), ""][number - 1].strip()
        raise SimpromptError(
            f"{path} begins like JSON and is not JSON; line {number}: {line!a:.100}. Write "
            '["cat", "dog"], or one name per line.'
        ) from None
    names = _listed(value)
    for number, name in enumerate(names or [None], 1):
        if not isinstance(name, str):
            raise SimpromptError(
                f"{path} holds no list of names; entry {number} is "
                f'{name if names else value!r:.100}. Write ["cat", "dog"], or one name per line.'
            )
    return list(names or [])


def _listed(value: Any) -> list[Any] | None:
    """The names in a JSON value."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    for key in ("names", "classes", "labels"):
        if isinstance(value.get(key), list | dict):
            return _listed(value[key])
    if all(re.fullmatch(r"\d{1,9}", key) for key in value):  # number -> name
        return [value[key] for key in sorted(value, key=int)]
    if all(isinstance(number, int) for number in value.values()):  # name -> number
        return sorted(value, key=value.__getitem__)
    return None
