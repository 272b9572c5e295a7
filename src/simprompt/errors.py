"""The errors a user can meet. Each message is one paragraph: what was wrong, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

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


def check_argument(value: object, kind: Any, function: str, takes: str) -> None:
    """Whether an argument is of a type that a function takes.

    Args:
        kind: a type, or several with | between them.
        function: its name with brackets, such as "learn()".
        takes: what it takes, in words with an example.

    Raises:
        SimpromptError: it is of another type.
    """
    if not isinstance(value, kind):
        raise SimpromptError(f"{function} takes {takes}; got {value!r:.100}.")


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """ "Did you mean 'coop'? " where a name is near known ones, else empty."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=cutoff)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
