"""Lines of CSV that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def csv_line(cells: Sequence[Any]) -> str:
    """A line; a text that begins as a formula does gets an apostrophe in front."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(
        f"'{cell}"
        if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
        else cell
        for cell in cells
    )
    return file.getvalue()
