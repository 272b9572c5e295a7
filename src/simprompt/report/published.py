"""Published base-to-new numbers to set results beside, and what makes them not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simprompt.report.table import Table
from simprompt.runs import Result


def records(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Published rows of the methods and datasets of these results."""
    return []


def tables(results: Sequence[Result]) -> list[Table]:
    """The same as tables."""
    return []
