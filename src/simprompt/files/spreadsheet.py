"""Lines of CSV that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def csv_cell(cell: Any) -> Any:
    """The cell; a text that begins as a formula does gets an apostrophe in front."""
    formula = isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{cell}" if formula else cell


def csv_line(cells: Sequence[Any]) -> str:
    """A line of cells."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(map(csv_cell, cells))
    return file.getvalue()
