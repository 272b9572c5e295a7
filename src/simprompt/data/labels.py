"""Which values are labels of images: the one check of every place where labels come in.

A label is a text that is not empty, a whole number (``1.0`` counts as one) or a truth value.
Missing values (None, NaN, pandas' NA and NaT), bytes, other floats and containers are none: they
would become classes called "nan" or "b'cat'".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from simprompt.errors import SimpromptError


def problem(value: Any) -> str:
    """Why a value is no label; empty if it is one."""
    if isinstance(value, str):
        return "" if value.strip() else "an empty text"
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return ""
    if is_missing(value):
        return "a missing value"
    if isinstance(value, bytes | bytearray):
        return "bytes; decode it to a text"
    if isinstance(value, float | np.floating):
        return "" if float(value).is_integer() else "a number that is not whole"
    return f"of the type {type(value).__name__}"


def is_missing(value: Any) -> bool:
    """Whether this is None, NaN, or what pandas and NumPy have for a value that is not there."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and math.isnan(value)


def check_labels(labels: Iterable[Any], what: str = "y") -> None:
    """Check labels one by one.

    Args:
        what: the argument's name, for errors.

    Raises:
        SimpromptError: the first value that is no label, with its row.
    """
    for row, label in enumerate(labels):
        if reason := problem(label):
            raise SimpromptError(
                f"{what}[{row}] is {label!r:.60}, {reason}. A label is a text or a whole number; "
                "leave rows without a label out."
            )
