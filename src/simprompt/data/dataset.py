"""Images with class names: splits, the few-shot draw, the base/new split.

A :class:`Split` is a table of (item, label) with class names. An *item* is a string that
names one image inside its dataset (a relative path, or an id such as ``"train/fox/03"``); the
dataset's *loader* turns it into an image when it is asked for, never earlier.

A :class:`Dataset` holds the splits over all its classes. What protocols work with is a
:class:`View` of some of its classes::

    data = simprompt.load_dataset("icons/animals")
    shots = data.base.few_shot(16, seed=1)      # Split: 16 images for each base class
    data.base.test, data.new.test               # Splits, labels counted from 0 in each view
    data.new.classnames

Both rules are those of CoOp and all that came after it, number for number:

- *base/new*: labels sorted; base = the first ceil(n/2), new = the rest; relabelled from 0.
- *few-shot*: ``random.seed(seed)``; for each label **of all classes**, in the order in which
  labels first occur in ``train``, ``random.sample(items, shots)``; then the same over ``val``
  with ``min(shots, 4)``; and only then are the base classes taken. Drawing from the base
  classes alone would give other images for the same seed.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from simprompt.errors import SimpromptError, check_argument
from simprompt.utils.terminal import visible

if TYPE_CHECKING:
    from PIL.Image import Image

Loader = Callable[[str], "Image"]
"""Takes an item, returns its image (PIL, mode RGB). Must be safe to call from threads.

A loader of files that may change has a method ``stamp(item) -> str`` that changes with the file;
caches of features ask for it. One that leaves photos as they are stored, whatever their EXIF
orientation says, has an attribute ``upright`` that is False.
"""

VAL_SHOTS = 4
"""The few-shot draw takes at most this many validation images a class (CoOp's rule)."""


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
        return f"<Split{of}: {len(self)} images, {_some(self.classnames)}>"

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


def _some(names: Sequence[str], most: int = 3) -> str:
    """ "40 classes: cat, dog, fish, ..." """
    names_text = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} classes: {names_text}"


def html_table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    most: int = 100,
    *,
    bold: Container[tuple[int, int]] = (),
    note: str = "",
) -> str:
    """A small HTML table for notebooks; whatever is in it is shown as text.

    Args:
        most: rows that are shown.
        bold: (row, column) of cells that are written bold.
        note: a line below.
    """

    def shown(cell: object) -> str:
        return escape(visible(cell))

    def cells(number: int, row: Sequence[object]) -> str:
        texts = [
            f"<b>{shown(c)}</b>" if (number, i) in bold else shown(c) for i, c in enumerate(row)
        ]
        return "".join(f"<td>{text}</td>" for text in texts)

    remainder = f"<p>and {len(rows) - most} more</p>" if len(rows) > most else ""
    body = "".join(f"<tr>{cells(number, row)}</tr>" for number, row in enumerate(rows[:most]))
    return (
        f"<p>{shown(title.strip('<>'))}</p><table><thead><tr>"
        f"{''.join(f'<th>{shown(name)}</th>' for name in head)}</tr></thead>"
        f"<tbody>{body}</tbody></table>{remainder}{f'<p>{shown(note)}</p>' if note else ''}"
    )


def draw_shots(split: Split, shots: int, rng: random.Random) -> list[int]:
    """Rows of ``shots`` images for each class, drawn as CoOp/Dassl draw them.

    A class with fewer than ``shots`` images gives all it has and uses no random number.

    Args:
        split: over *all* classes; see the module's docstring for why.
        shots: images a class, at least 1.
        rng: ``random.Random(seed)`` gives the field's lists for that seed.

    Returns:
        Row numbers, class after class in first-seen order.
    """
    if shots < 1:
        raise DatasetError(f"A few-shot draw needs at least 1 shot a class, got {shots}.")
    rows_drawn: list[int] = []
    for rows in split.rows_by_label().values():
        rows_drawn += rng.sample(rows, shots) if len(rows) >= shots else rows
    return rows_drawn


@dataclass(frozen=True)
class Dataset:
    """Images over a set of classes, in splits, with the templates that suit them.

    Args:
        name: as the catalogue knows it, e.g. ``"icons/animals"``.
        classnames: all class names in label order.
        templates: prompts with ``{}`` where the class name goes; the first is the hand-crafted
            template of the zero-shot baseline.
        train, val, test: over all classes; ``val`` may be None. A dataset that is only tested on
            (ImageNet-V2) has an empty ``train``.
        version: changes whenever an item may show other pixels than before; caches of features
            key on (name, version, item).
        notes: what a reader of results must know, e.g. that the split is not the published one.
        hidden: names of classes that nobody may see while settings are chosen on this dataset:
            those that a :meth:`View.rehearsal` leaves out. No list of novel names holds them,
            whatever its source, and no protocol that looks beyond the dataset takes it.
        unused: files of somebody's own images that are in no split: (path, reason).

    Raises:
        DatasetError: class names repeat, a template has no ``{}``, or the splits name other
            classes than the dataset does.
    """

    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    train: Split = field(repr=False)
    val: Split | None = field(repr=False)
    test: Split = field(repr=False)
    version: str = ""
    notes: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    unused: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for template in self.templates:
            if "{}" not in template:
                raise DatasetError(
                    f"Template {template!r} of {self.name} has no {{}} for the class name."
                )
        if not self.templates:
            raise DatasetError(f"{self.name} needs at least one template.")
        for split in (self.train, self.val, self.test):
            if split is not None and split.classnames != self.classnames:
                raise DatasetError(f"A split of {self.name} has other class names than it.")

    def __repr__(self) -> str:
        val = "" if self.val is None else f"{len(self.val)} to validate, "
        return (
            f"<Dataset {self.name}: {_some(self.classnames)}; {len(self.train)} images to learn "
            f"from, {val}{len(self.test)} to test>"
        )

    def _repr_html_(self) -> str:
        """A row a class, for notebooks."""
        train, test = self.train.rows_by_label(), self.test.rows_by_label()
        rows = [
            (
                name,
                "base" if label < self._middle else "new",
                len(train.get(label, ())),
                len(test.get(label, ())),
            )
            for label, name in enumerate(self.classnames)
        ]
        return html_table(repr(self), ("class", "half", "to learn from", "to test"), rows)

    @cached_property
    def all(self) -> View:
        """All classes."""
        return View(self, "all", tuple(range(len(self.classnames))))

    @cached_property
    def base(self) -> View:
        """The first ceil(n/2) classes."""
        return View(self, "base", tuple(range(self._middle)))

    @cached_property
    def new(self) -> View:
        """The classes after the first ceil(n/2)."""
        return View(self, "new", tuple(range(self._middle, len(self.classnames))))

    @property
    def _middle(self) -> int:
        return (len(self.classnames) + 1) // 2

    def filter(self, keep: Callable[[str], bool], name: str | None = None) -> Dataset:
        """The dataset with only those items for which ``keep(item)`` holds; classes stay."""

        def kept(split: Split) -> Split:
            return split.take(r for r, item in enumerate(split.items) if keep(item))

        return replace(
            self,
            name=self.name if name is None else name,
            train=kept(self.train),
            val=None if self.val is None else kept(self.val),
            test=kept(self.test),
        )


@dataclass(frozen=True)
class View:
    """Some classes of a dataset, relabelled from 0 in the order of ``labels``.

    Args:
        dataset: where the images are.
        name: ``"base"``, ``"new"``, ``"all"``, or what you call it.
        labels: the dataset's labels that belong to this view.
    """

    dataset: Dataset
    name: str
    labels: tuple[int, ...]

    def __repr__(self) -> str:
        return (
            f"<View {self.name} of {self.dataset.name}: {_some(self.classnames)}; "
            f"{len(self.train)} images to learn from, {len(self.test)} to test>"
        )

    def _repr_html_(self) -> str:
        """A row a class, for notebooks."""
        train, test = self.train.rows_by_label(), self.test.rows_by_label()
        rows = [
            (name, len(train.get(label, ())), len(test.get(label, ())))
            for label, name in enumerate(self.classnames)
        ]
        return html_table(repr(self), ("class", "to learn from", "to test"), rows)

    @property
    def classnames(self) -> tuple[str, ...]:
        """Names of this view's classes; position = label in its splits."""
        return tuple(self.dataset.classnames[label] for label in self.labels)

    @property
    def templates(self) -> tuple[str, ...]:
        """The dataset's templates."""
        return self.dataset.templates

    @cached_property
    def train(self) -> Split:
        """All training images of these classes."""
        return self._of(self.dataset.train)

    @cached_property
    def val(self) -> Split | None:
        """All validation images of these classes, or None where the dataset has none."""
        return None if self.dataset.val is None else self._of(self.dataset.val)

    @cached_property
    def test(self) -> Split:
        """All test images of these classes."""
        return self._of(self.dataset.test)

    @property
    def images(self) -> Split:
        """All images of these classes as one split, those of training first."""
        splits = [split for split in (self.train, self.val, self.test) if split is not None]
        return Split(
            tuple(item for split in splits for item in split.items),
            tuple(label for split in splits for label in split.labels),
            self.classnames,
            self.test.loader,
            origin=self.test.origin,
        )

    def few_shot(self, shots: int = 16, seed: int = 1) -> Split:
        """``shots`` training images a class: the field's draw for this seed.

        Returns:
            Split with ``shots`` rows a class (fewer where a class has fewer images), class after
            class in the order in which they first occur in the dataset's training split.
        """
        for value, name in ((shots, "shots"), (seed, "seed")):
            check_argument(value, int, "few_shot()", f"a whole number as {name}, such as 16")
        return self._draw(shots, seed)[0]

    def few_shot_val(self, shots: int = 16, seed: int = 1) -> Split | None:
        """The ``min(shots, 4)`` validation images a class that go with :meth:`few_shot`."""
        return self._draw(shots, seed)[1]

    def _draw(self, shots: int, seed: int) -> tuple[Split, Split | None]:
        # One generator for both, and over all classes: the validation draw goes on where the
        # training draw stopped, and taking the view's classes comes last.
        data, rng = self.dataset, random.Random(seed)
        train = data.train.take(draw_shots(data.train, shots, rng))
        if data.val is None:
            return self._of(train), None
        val = data.val.take(draw_shots(data.val, min(shots, VAL_SHOTS), rng))
        return self._of(train), self._of(val)

    def _of(self, split: Split) -> Split:
        """This view's part of a split over all classes, told where it comes from."""
        data, mine = self.dataset, set(self.labels)
        other_labels = tuple(n for label, n in enumerate(data.classnames) if label not in mine)
        origin = Origin(data.name, data.version, data.templates, other_labels, data.hidden)
        return replace(split.restrict(self.labels), origin=origin)

    def rehearsal(self, shots: int | None = None, seed: int = 0) -> Dataset:
        """A dataset of this view's classes that never touches their test images.

        For choosing settings. ``data.base.rehearsal()`` is a dataset in its own right, whose
        ``base`` and ``new`` are a pseudo-base and a pseudo-new half of the base classes: run
        any protocol on it. The names of all other classes are its ``hidden`` ones.

        Args:
            shots: use the images of ``few_shot(shots, seed)`` and no others, as somebody must who
                has no more labels: one group (drawing) of each class is set aside to test on, or
                a quarter of its images where they have no groups; the rest is ``train``.
                None: use all labelled images. The test split is then ``val`` where the dataset
                has one, and else is set aside from ``train`` in the same way.
            seed: of the draw of shots and of what is set aside.

        A class with a single group or image keeps it for training and is not tested.
        """
        pool = self.train if shots is None else self.few_shot(shots, seed)
        if shots is None and self.val is not None:
            train, test = pool, self.val
        else:
            train, test = pool.set_aside(seed)
        data, mine = self.dataset, set(self.labels)
        return Dataset(
            name=f"{data.name}:{self.name}-rehearsal",
            classnames=self.classnames,
            templates=self.templates,
            train=train,
            val=None,
            test=test,
            version=data.version,
            notes=data.notes,
            hidden=(
                *(name for label, name in enumerate(data.classnames) if label not in mine),
                *data.hidden,
            ),
        )


def _set_aside(
    rows: Sequence[int], groups: Sequence[str] | None, rng: random.Random
) -> Sequence[int]:
    """Rows of one class that a rehearsal tests on: one whole group, or a quarter of the rows."""
    if groups is None:
        return rng.sample(rows, len(rows) // 4 or (1 if len(rows) > 1 else 0))
    names = sorted({groups[r] for r in rows})
    if len(names) < 2:
        return []
    group = rng.choice(names)
    return [r for r in rows if groups[r] == group]
