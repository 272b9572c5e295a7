"""Environment variables: read as a number, or set for a block and as before afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from simprompt.errors import SimpromptError


def seconds(name: str, default: float) -> float:
    """How many seconds a variable says; `default` where it is not set.

    Raises:
        SimpromptError: it says no number that is at least 0.
    """
    value = os.environ.get(name, "")
    try:
        number = float(value) if value else default
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise SimpromptError(
            f"The environment variable {name} takes a number of seconds, such as {default:g}; it "
            f"is {value!r}."
        )
    return number


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """`name` is `value` in here, for this process and for those that are started in here."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
