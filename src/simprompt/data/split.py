"""A table of images with labels: what is learned from, tested on and cached.

A :class:`Split` is a table of (item, label) with class names. An *item* is a string that
names one image inside its dataset (a relative path, or an id such as ``"train/fox/03"``); the
dataset's *loader* turns it into an image when it is asked for, never earlier.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from simprompt.errors import SimpromptError
from simprompt.utils.notebook import html_table

if TYPE_CHECKING:
    from PIL.Image import Image

Loader = Callable[[str], "Image"]
"""Takes an item, returns its image (PIL, mode RGB). Must be safe to call from threads.

A loader of files that may change has a method ``stamp(item) -> str`` that changes with the file;
caches of features ask for it. One that leaves photos as they are stored, whatever their EXIF
orientation says, has an attribute ``upright`` that is False.
"""


class DatasetError(SimpromptError, ValueError):
    """A dataset, a split or a request to one is not what it should be."""


def check_learnable(classnames: Sequence[str], images: int, where: str) -> None:
    """Raise DatasetError where there is nothing to tell apart, or nothing to learn it from.

    Args:
        classnames: all that are trained on.
        images: how many training images there are.
        where: what the message calls them.
    """
    if len(classnames) < 2:
        count_text = f"one class, {classnames[0]!r}" if classnames else "no class"
        raise DatasetError(
            f"{where} has {count_text}; learning needs at least two. Sort the images into one "
            "folder per "
            "class, or give each a label."
        )
    if not images:
        raise DatasetError(
            f"{where} has {len(classnames)} classes and no image to learn from. Add an image for "
            "each class at least."
        )


@dataclass(frozen=True)
class Origin:
    """Which dataset a split was taken from: what learning and caching need to know of it.

    Args:
        dataset: its name; with ``version`` and the item this names an image for good.
        templates: its hand-crafted prompts, the first one being the baseline's.
        other_classes: its classes that are not in the split (for a base split: the new ones).
        hidden: names that may not be seen at all, see :class:`Dataset`.
    """

    dataset: str
    version: str
    templates: tuple[str, ...]
    other_classes: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A table of images: one item and one label a row.

    Args:
        items: names of the images, each understood by ``loader``; length N.
        labels: integers in ``[0, len(classnames))``; length N. A class may have no row.
        classnames: names in label order, as they are put into a template (no underscores).
        loader: item -> PIL image (RGB).
        groups: optional, length N: what an image was made from, where several images share a
            source (drawings of an icon, frames of a film). A validation split must not tear a
            group apart; see :meth:`View.rehearsal`.
        origin: the dataset it comes from; None for images that belong to none.

    Raises:
        DatasetError: lengths differ, or a label is out of range.
    """

    items: tuple[str, ...]
    labels: tuple[int, ...]
    classnames: tuple[str, ...]
    loader: Loader = field(repr=False)
    groups: tuple[str, ...] | None = field(default=None, repr=False)
    origin: Origin | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.items) != len(self.labels):
            raise DatasetError(
                f"A split needs one label an item: got {len(self.items)} items and "
                f"{len(self.labels)} labels."
            )
        if self.groups is not None and len(self.groups) != len(self.items):
            raise DatasetError(
                f"A split needs one group an item: got {len(self.items)} items and "
                f"{len(self.groups)} groups."
            )
        if isinstance(self.classnames, str):
            raise DatasetError(
                f"classnames has to be a list of names, such as ('cat', 'dog'); got "
                f"{self.classnames!r:.100}."
            )
        for row, (item, label) in enumerate(zip(self.items, self.labels, strict=True)):
            try:
                index = operator.index(label)
            except TypeError:
                raise DatasetError(
                    f"labels[{row}], of the item {item!r:.200}, is {label!r:.60}. A label of a "
                    "split is a whole number, the position of its class in classnames."
                ) from None
            if not 0 <= index < len(self.classnames):
                raise DatasetError(
                    f"Item {item!r} has label {label}, but there are {len(self.classnames)} "
                    f"class names: labels run from 0 to {len(self.classnames) - 1}."
                )

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        of = f" of {self.origin.dataset}" if self.origin else ""
        return f"<Split{of}: {len(self)} images, {some_names(self.classnames)}>"

    def _repr_html_(self) -> str:
        """A row a class, for notebooks."""
        counts = {label: len(rows) for label, rows in self.rows_by_label().items()}
        rows = [(name, counts.get(label, 0)) for label, name in enumerate(self.classnames)]
        return html_table(repr(self), ("class", "images"), rows)

    @property
    def source(self) -> str:
        """``"icons/animals@1"``: equal (source, item) means equal pixels, which caches rely on.

        Empty for images that belong to no dataset: their features are not kept on disk.
        """
        return f"{self.origin.dataset}@{self.origin.version}" if self.origin else ""

    def load(self, i: int) -> Image:
        """Image of row ``i`` (PIL, mode RGB)."""
        return self.loader(self.items[i])

    def rows_by_label(self) -> dict[int, list[int]]:
        """Row numbers of each label; labels in the order in which they first occur."""
        rows: dict[int, list[int]] = {}
        for row, label in enumerate(self.labels):
            rows.setdefault(label, []).append(row)
        return rows

    def take(self, rows: Iterable[int]) -> Split:
        """The split made of these rows, in this order; labels and class names stay."""
        rows = list(rows)
        return replace(
            self,
            items=tuple(self.items[r] for r in rows),
            labels=tuple(self.labels[r] for r in rows),
            groups=None if self.groups is None else tuple(self.groups[r] for r in rows),
        )

    def restrict(self, labels: Sequence[int]) -> Split:
        """Rows of these labels, relabelled 0, 1, ... in the order in which ``labels`` stand."""
        new_label = {old_label: new for new, old_label in enumerate(labels)}
        rows = [r for r, label in enumerate(self.labels) if label in new_label]
        subset = self.take(rows)
        return replace(
            subset,
            labels=tuple(new_label[label] for label in subset.labels),
            classnames=tuple(self.classnames[label] for label in labels),
        )

    def set_aside(self, seed: int) -> tuple[Split, Split]:
        """(rest, set aside), rows in order: of each class one whole group, or a quarter of the
        images where there are no groups. A class with a single group or image keeps it."""
        rng = random.Random(seed)
        rows_aside = {
            row
            for rows in self.rows_by_label().values()
            for row in _set_aside(rows, self.groups, rng)
        }
        return self.take(r for r in range(len(self)) if r not in rows_aside), self.take(
            sorted(rows_aside)
        )


def some_names(names: Sequence[str], most: int = 3) -> str:
    """ "40 classes: cat, dog, fish, ..." """
    names_text = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} classes: {names_text}"


def _set_aside(
    rows: Sequence[int], groups: Sequence[str] | None, rng: random.Random
) -> Sequence[int]:
    """Rows of one class that a rehearsal tests on: one whole group, or a quarter of the rows."""
    if groups is None:
        return rng.sample(rows, len(rows) // 4 or (1 if len(rows) > 1 else 0))
    # sorted: the order of a set of texts differs from process to process, and the draw must not
    names = sorted({groups[r] for r in rows})
    if len(names) < 2:
        return []
    group = rng.choice(names)
    return [r for r in rows if groups[r] == group]
