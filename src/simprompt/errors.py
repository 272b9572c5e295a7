"""The errors a user can meet. Each message is one paragraph: what was wrong, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2000
"""Characters of a message; one that quotes what was given may be of any length."""


class SimpromptError(Exception):
    """Bad input or an impossible request; the command line prints it and exits with code 2."""

    def __str__(self) -> str:
        """The message; of a long one its beginning, which says what was wrong, and its end."""
        said = super().__str__()
        left_out = len(said) - LONGEST
        if left_out <= 0:
            return said
        end = LONGEST // 4
        return f"{said[: LONGEST - end]} [... {left_out:,} characters ...] {said[-end:]}"


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """ "Did you mean 'coop'? " where a name is near known ones, else empty."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=cutoff)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""


def check_count(value: object, name: str) -> None:
    """Whether the argument `name` is a whole number >= 1, as a number of images at a time has to
    be.

    Raises:
        SimpromptError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SimpromptError(f"{name} must be a whole number of at least 1; got {value!r:.100}.")
