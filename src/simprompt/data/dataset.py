"""Images with class names: the few-shot draw, the base/new split.

A :class:`Dataset` holds the splits (`data.split.Split`) over all its classes. What protocols work
with is a :class:`View` of some of its classes::

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

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from simprompt.data.split import DatasetError, Origin, Split, some_names
from simprompt.errors import check_argument
from simprompt.utils.notebook import html_table

VAL_SHOTS = 4
"""The few-shot draw takes at most this many validation images a class (CoOp's rule)."""


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
            f"<Dataset {self.name}: {some_names(self.classnames)}; "
            f"{len(self.train)} images to learn from, {val}{len(self.test)} to test>"
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
            f"<View {self.name} of {self.dataset.name}: {some_names(self.classnames)}; "
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
