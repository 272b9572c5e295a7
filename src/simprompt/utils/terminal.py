"""Text on its way to a terminal, which takes some characters for orders.

A class name, a label or a path may come from anywhere. Whatever is printed goes through here.
"""

from __future__ import annotations

import re

# control characters but line feed and tab; marks that turn the direction of writing; halves of
# characters, as Python has bytes of a file's name that are no UTF-8, which cannot be written
_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: object) -> str:
    """A text in which nothing is an order to a terminal; each stands as an escape that JSON reads
    as well.

    >>> visible("\\x1b[2Jred fox")
    '\\\\u001b[2Jred fox'
    """
    return _ORDERS.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def printable(text: object) -> str:
    """A text as a cell of a row: each character that a terminal would obey, a line break and a tab
    is U+FFFD."""
    return "".join(
        sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(text)
    )


def one_line(text: object) -> str:
    """The same without line breaks and tabs, as a cell of a table has it."""
    return visible(re.sub(r"[\r\n\t]+", " ", str(text)))


def markup(text: object) -> str:
    """The same for Rich, in which square brackets say nothing."""
    from rich.markup import escape

    return escape(visible(text))


def say(text: object = "", err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or on stderr, and a line break behind it."""
    import typer

    typer.echo(visible(text), err=err, nl=nl)
