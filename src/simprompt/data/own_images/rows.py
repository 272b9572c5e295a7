"""What a reader of your own images hands on: rows by split, what it left out, what it understood.

`trees`, `tables` and `hf` are such readers; `folder` makes a dataset of what they return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simprompt.data.split import Loader

PARTS = ("train", "val", "test")

NOT_AN_IMAGE = "not an image"
DAMAGED = "image that cannot be read"
NEEDS_READER = "image of a kind that needs another package"
SYSTEM = "file of the operating system or of a tool"
HIDDEN = "hidden file or folder"
LINK = "link that leads nowhere, or to what is read already"
BESIDE = "outside every class folder"
STRAY = "in a folder beside the splits"
EMPTY_CLASS = "class without images that can be read"
ONLY_TEST = "class without training images"
NO_LABEL = "without a label"
NO_IMAGE = "row without an image"
TWO_LABELS = "image with several labels"
TWICE = "row that is there twice"

REASONS = (
    DAMAGED,
    NEEDS_READER,
    NOT_AN_IMAGE,
    LINK,
    TWO_LABELS,
    NO_IMAGE,
    EMPTY_CLASS,
    ONLY_TEST,
    NO_LABEL,
    BESIDE,
    STRAY,
    TWICE,
    HIDDEN,
    SYSTEM,
)
"""Why something is not used; all that there are, in the order in which they are told."""


class Row(NamedTuple):
    """One image.

    Args:
        item: what the loader takes: a path below its root, or an id.
        name: its class as the folder or label spells it.
    """

    item: str
    name: str


@dataclass(frozen=True)
class Unused:
    """A file, folder or table row that is not used.

    Args:
        path: relative to the source, with ``/``; of a row its number and path.
        reason: one of `REASONS`.
        detail: a sentence more, where there is one.
    """

    path: str
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is none of REASONS")

    def __str__(self) -> str:
        return self.detail or f"{self.path}: {self.reason}."


def by_reason(unused: Iterable[Unused]) -> dict[str, int]:
    """How many there are of each reason, in the order of `REASONS`."""
    counts = Counter(u.reason for u in unused)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def lines_of(unused: Sequence[Unused], most: int = 5, rest: str = "") -> list[str]:
    """Lines for the screen: how much is not used; of each reason at most `most` are named.

    Args:
        rest: where all of them are listed, behind "and 3 more".
    """
    lines = []
    for reason, count in by_reason(unused).items():
        matching = [u for u in unused if u.reason == reason]
        lines.append(f"not used: {count} x {reason}")
        lines += [f"  {u}" if u.detail else f"  {u.path}" for u in matching[:most]]
        if count > most:
            lines.append(f"  and {count - most} more{rest}")
    return lines


@dataclass
class Reading:
    """What a reader returns.

    Args:
        where: stands for the source in the dataset's identity: a whole path, or a name and version.
        loader: item -> image.
        parts: rows by split, each of `PARTS`; no test rows: a part of train is held out later.
        unused: everything that is there and is in no row.
        notes: sentences on what was understood, for the user.
    """

    where: str
    loader: Loader
    parts: dict[str, list[Row]] = field(default_factory=lambda: {part: [] for part in PARTS})
    unused: list[Unused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
