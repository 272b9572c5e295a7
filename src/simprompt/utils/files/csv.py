"""Lines of CSV that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from simprompt.utils.terminal import visible

# and what some spreadsheets read as these: line breaks before them, the wide forms
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_cell(cell: Any) -> Any:
    """The cell; a text that begins as a formula does gets an apostrophe in front, and in none is
    an order to a terminal."""
    if not isinstance(cell, str):
        return cell
    return visible(f"'{cell}" if cell.startswith(FORMULA) else cell)


def csv_line(cells: Sequence[Any]) -> str:
    """A line of cells."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(map(csv_cell, cells))
    return file.getvalue()
