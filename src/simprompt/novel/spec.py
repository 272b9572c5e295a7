"""The little language that says where novel names come from: `bundled:150+wordnet[depth=6]:50`.

One part is `SOURCE`, then optional settings in brackets, then an optional count; `file` takes its
path first (`file:mine.txt:80`). Parts are joined by `+`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from simprompt.novel.names import NovelNameError


@dataclass(frozen=True)
class Part:
    """One source of a list, with its settings; `count` is None where the spec gives none."""

    source: str
    count: int | None = None
    settings: dict[str, str] = field(default_factory=dict)


MOST_PARTS = 50
_COUNT = re.compile("[0-9]{1,9}")


def parse_spec(text: str, known: Collection[str]) -> list[Part]:
    """Read a specification; `known` are the names of the sources.

    Raises:
        NovelNameError: an unknown source, a count that is not a positive whole number, a setting
            without a value, or `file` without a path.
    """
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    # A `+` divides only before the name of a source: a path may hold one.
    pieces = re.split(rf"\+(?=\s*(?:{names})\s*(?:[:\[+]|$))", text.strip())
    if len(pieces) > MOST_PARTS:
        raise NovelNameError(
            f"The novel names {text[:100]!r}... have {len(pieces):,} parts; at most {MOST_PARTS} "
            "are read. Write the names into a file, and file:PATH."
        )
    return [_parse_part(piece.strip(), text, known) for piece in pieces]


_PART = re.compile(r"(?P<source>[a-z-]+)(?:\[(?P<settings>[^\]]*)\])?(?::(?P<rest>.*))?")


def _parse_part(piece: str, text: str, known: Collection[str]) -> Part:
    match = _PART.fullmatch(piece)
    if match is None or match["source"] not in known:
        raise NovelNameError(
            f"{piece!r} in the novel names {text!r} is not a source. Use one of "
            f"{', '.join(sorted(known))}, with a count after a colon, joined by +, such as "
            "bundled:150+wordnet:50."
        )
    settings = {}
    for item in filter(None, (match["settings"] or "").split(",")):
        name, equals, value = (word.strip() for word in item.partition("="))
        if not equals or not name or not value:
            raise NovelNameError(
                f"{item!r} in the novel names {text!r} is not a setting. Write name=value, such "
                "as wordnet[distance=3]."
            )
        settings[name] = value
    remainder = match["rest"]
    if match["source"] == "file":
        return _parse_file(remainder, text, settings)
    if remainder is None:
        return Part(match["source"], None, settings)
    return Part(match["source"], _count(remainder, piece, text), settings)


def _parse_file(rest: str | None, text: str, settings: dict[str, str]) -> Part:
    path, colon, count = (rest or "").rpartition(":")
    if not (colon and _COUNT.fullmatch(count)):
        path, count = rest or "", ""
    if not path:
        raise NovelNameError(
            f"The novel names {text!r} name no file. Write file:PATH, such as file:names.txt."
        )
    return Part("file", int(count) if count else None, {**settings, "path": path})


def _count(rest: str, piece: str, text: str) -> int:
    if not _COUNT.fullmatch(rest) or int(rest) < 1:
        raise NovelNameError(
            f"{rest!r} after {piece.partition(':')[0]!r} in the novel names {text!r} is not a "
            "count. Write a whole number from 1, such as bundled:150."
        )
    return int(rest)


def share(parts: list[Part], n: int) -> list[int]:
    """How many names each part gives to a list of at most `n`.

    Counts are kept where they fit into `n` and are scaled down in proportion where they do not;
    parts without a count share what is left evenly.

    >>> share([Part("bundled", 150), Part("wordnet", 50)], 100)
    [75, 25]
    >>> share([Part("bundled", 150), Part("wordnet")], 200)
    [150, 50]
    """
    counted = sum(spec_part.count or 0 for spec_part in parts)
    open_parts = sum(spec_part.count is None for spec_part in parts)
    scale = min(1.0, n / counted) if counted else 1.0
    remainder = max(0, n - counted)
    exact = [
        spec_part.count * scale if spec_part.count is not None else remainder / open_parts
        for spec_part in parts
    ]
    shares = [int(value) for value in exact]
    # Largest remainders first, so that the shares add up to what was asked for.
    by_remainder = sorted(range(len(parts)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: round(sum(exact)) - sum(shares)]:
        shares[i] += 1
    return shares
