"""The icon benchmark: eight tasks of real drawings with real names, shipped with the package.

Drawings come from openly licensed packs that the embedded CLIP was never trained on (see
``icons/ATTRIBUTION.md``); ``pretrain/build_benchmark.py`` rebuilds the files. Images are made at
run time: 48 x 48 RGB restylings of the drawings (:mod:`simprompt.data.restyle`), the same bytes on
every machine. No network.

Rules, fixed before any prompt was learned on the tasks:

1. *Classes* follow from Unicode's emoji list: a task is the union of some of its subgroups
   (``pretrain/benchmark_classes.py`` has the tables and the rules for merging and naming). A
   class enters when at least four *design families* have drawn it: three to learn from, one to
   be tested on. A family is a set of packs that share drawings: all weights of Phosphor, Font
   Awesome, Fluent in colour and in one colour, OpenMoji and its line, EmojiOne in colour and in
   one colour, fxemoji. (Three families were asked for at first; with an unfinished CLIP
   zero-shot was 25% on animals, and four make all tasks smaller at once. Only zero-shot
   accuracy was looked at, no class was judged by itself.)
2. *Training and test drawings*: for each class one family is drawn at random for testing, two
   where five or more families drew the class; all others are for training. A family is on one
   side only, with all that it drew of the class: another weight, pose or the one-colour version
   of a training drawing never shows up in the test. Over a task each family is on both sides.
3. *Training images*: ``TRAIN_POOL`` a class, dealt evenly over its families, within a family over
   its domains, within a domain over its drawings. The few-shot draw takes 16 of them.
4. *Test images*: ``max(8, ceil(800 / classes))`` a class, dealt in the same way.
5. *Restyling* has one strength for all tasks: "plain", the ranges that keep an icon recognisable
   to a person at a glance, chosen by eye on the animals' training drawings. "strong" is the
   other one, a target for domain shift.

*Domains*: ``outline``, ``filled`` (one colour), ``duotone`` (Phosphor alone, so only classes that
it draws) and ``colour``. ``data.domain("outline")`` is the dataset of the outline drawings: the
same class names, the same side for every drawing. A class without such a drawing on one side has
no rows there. ``colour`` and ``filled`` cover all classes for training; for testing ``colour``
covers nine in ten, ``filled`` three in four, ``outline`` four to six in ten (animals three),
``duotone`` few (2 to 17 classes a task): :func:`domain_counts` tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from simprompt.data.dataset import Dataset
from simprompt.data.restyle import STRENGTHS, restyle
from simprompt.data.split import DatasetError, Split

TEMPLATES: Final = ("an icon of a {}.",)
TOPICS: Final = {
    "animals": "animals",
    "food": "food and drink",
    "transport": "vehicles, roads and travel",
    "places": "buildings and landscapes",
    "nature": "plants, sky and weather",
    "leisure": "sport, games, music and celebrations",
    "home": "household things and clothing",
    "office": "office, tools, science and electronics",
}
DOMAINS: Final = ("outline", "filled", "duotone", "colour")
TRAIN_POOL: Final = 32
RESTYLE_VERSION: Final = "1"
"""Part of every image's seed; a change of the restyling's code must change it."""


@dataclass(frozen=True)
class Drawing:
    """One shipped drawing.

    Attributes:
        sheet: sprite sheet that it is in; says pack and style (``"ph-duotone"``).
        cell: its place in the sheet.
        icon: its name in the pack.
        family: design family; see rule 2.
        domain: one of :data:`DOMAINS`.
    """

    sheet: str
    cell: int
    icon: str
    family: str
    domain: str


class IconDataset(Dataset):
    """A task of the icon benchmark; a :class:`~simprompt.data.dataset.Dataset` with domains."""

    def domain(self, name: str) -> IconDataset:
        """The same task, drawings of one domain only (with images of its own, 32 a class).

        Args:
            name: ``"outline"``, ``"filled"``, ``"duotone"`` or ``"colour"``.
        """
        return load(f"{self.name}@{name}")

    def restyled(self, strength: str) -> IconDataset:
        """The same task and drawings, restyled as ``"plain"`` or ``"strong"``."""
        return load(f"{self.name}@{strength}")


def tasks() -> tuple[str, ...]:
    """Names of the tasks: ``("icons/animals", ...)``."""
    return tuple(f"icons/{task}" for task in index()["tasks"])


def load(name: str) -> IconDataset:
    """A task, or one of its domains, or strongly restyled.

    Args:
        name: ``"icons/animals"``, ``"icons/animals@outline"``, ``"icons/animals@strong"``,
            ``"icons/animals@outline@strong"``.

    Raises:
        DatasetError: no such task or domain.
    """
    task, *options = name.removeprefix("icons/").split("@")
    if task not in index()["tasks"]:
        raise DatasetError(f"There is no icon task {task!r}. The tasks are {', '.join(tasks())}.")
    domain, strength = None, "plain"
    for option in options:
        if option in DOMAINS:
            domain = option
        elif option in STRENGTHS:
            strength = option
        else:
            raise DatasetError(
                f"{name!r}: {option!r} is no domain ({', '.join(DOMAINS)}) and no restyling "
                f"({', '.join(STRENGTHS)})."
            )
    return _dataset(task, domain, strength)


# --- which drawing is where ---------------------------------------------------------------------


@cache
def index() -> dict[str, Any]:
    """What is shipped: sheets, packs with authors and licences, tasks with their drawings."""
    text = files("simprompt.data").joinpath("icons", "index.json").read_text(encoding="utf-8")
    contents: dict[str, Any] = json.loads(text)
    return contents


def drawings(task: str) -> dict[str, list[Drawing]]:
    """Class name -> its drawings, classes in label order."""
    sheets = index()["sheets"]
    return {
        name: [
            Drawing(sheet, cell, icon, sheets[sheet]["family"], sheets[sheet]["domain"])
            for sheet, cell, icon in rows
        ]
        for name, rows in index()["tasks"][task].items()
    }


def families_for_test(task: str, classname: str, families: set[str]) -> set[str]:
    """The design families whose drawings of a class are for testing (rule 2)."""
    shuffled = sorted(families, key=lambda family: _hash(task, classname, family))
    return set(shuffled[: 2 if len(families) >= 5 else 1])


def test_images_per_class(n_classes: int) -> int:
    """Test images a class in a task of this many classes (rule 4)."""
    return max(8, -(-800 // n_classes))


def deal(some: Sequence[Drawing], n: int) -> list[tuple[Drawing, int]]:
    """``n`` images dealt over drawings: evenly over families, domains, drawings (rule 3).

    Returns:
        Pairs of a drawing and a counter that makes its restylings differ.
    """
    shelves: dict[str, dict[str, list[Drawing]]] = {}
    for drawing in some:
        shelves.setdefault(drawing.family, {}).setdefault(drawing.domain, []).append(drawing)
    families = [list(shelf.values()) for _, shelf in sorted(shelves.items())]
    times: dict[Drawing, int] = {}
    dealt = []
    for i in range(n if families else 0):
        turn, domains = i // len(families), families[i % len(families)]
        shelf = domains[turn % len(domains)]
        drawing = shelf[turn // len(domains) % len(shelf)]
        times[drawing] = times.get(drawing, -1) + 1
        dealt.append((drawing, times[drawing]))
    return dealt


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("/".join(parts).encode()).digest()


@lru_cache(maxsize=32)
def _dataset(task: str, domain: str | None, strength: str) -> IconDataset:
    classes = drawings(task)
    painter = Painter(task, strength)
    tables: dict[str, list[tuple[str, int, str]]] = {"train": [], "test": []}
    for label, (name, drawings_of_class) in enumerate(classes.items()):
        held_out = families_for_test(task, name, {d.family for d in drawings_of_class})
        for side, n in (("train", TRAIN_POOL), ("test", test_images_per_class(len(classes)))):
            of_side = [
                d
                for d in drawings_of_class
                if (d.family in held_out) == (side == "test") and domain in (None, d.domain)
            ]
            block = painter.add(deal(of_side, n))
            tables[side] += [(i, label, f"{name}/{d.family}") for i, d in block]
    names = tuple(classes)

    def split(side: str) -> Split:
        rows = tables[side]
        return Split(
            items=tuple(r[0] for r in rows),
            labels=tuple(r[1] for r in rows),
            classnames=names,
            loader=painter,
            groups=tuple(r[2] for r in rows),
        )

    options = "".join(f"@{o}" for o in (domain, None if strength == "plain" else strength) if o)
    return IconDataset(
        name=f"icons/{task}{options}",
        classnames=names,
        templates=TEMPLATES,
        train=split("train"),
        val=None,
        test=split("test"),
        version=f"{index()['digest'][:12]}-{RESTYLE_VERSION}",
    )


# --- images -------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _cells(task: str, sheet: str) -> npt.NDArray[np.uint8]:
    """The drawings of a sprite sheet: ``[N, S, S]`` coverage or ``[N, S, S, 4]`` RGBA."""
    colour = index()["sheets"][sheet]["domain"] == "colour"
    side = index()["size"]
    with files("simprompt.data").joinpath("icons", task, f"{sheet}.png").open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGBA" if colour else "L"))
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    grid = pixels.reshape(rows, side, columns, side, *pixels.shape[2:]).swapaxes(1, 2)
    return grid.reshape(rows * columns, side, side, *pixels.shape[2:])


class Painter:
    """The loader of an icon task: item -> image.

    Images are painted a block at a time (all images of one class and side), for speed; the
    blocks painted last are kept. Safe to call from threads.
    """

    def __init__(self, task: str, strength: str) -> None:
        self._task, self._strength = task, strength
        self._blocks: list[list[tuple[str, Drawing]]] = []
        self._place: dict[str, tuple[int, int]] = {}
        self._paint = lru_cache(maxsize=16)(self._paint_block)

    def add(self, dealt: Sequence[tuple[Drawing, int]]) -> list[tuple[str, Drawing]]:
        """Makes items of dealt drawings; returns (item, drawing) in their order."""
        block = [(f"{d.sheet}/{d.icon}/{k}", d) for d, k in dealt]
        for row, (item, _) in enumerate(block):
            if item in self._place:
                raise DatasetError(f"icons/{self._task}: drawing of two classes: {item}")
            self._place[item] = (len(self._blocks), row)
        self._blocks.append(block)
        return block

    def __call__(self, item: str) -> Image.Image:
        if item not in self._place:
            raise DatasetError(f"icons/{self._task} has no image {item!r}.")
        block, row = self._place[item]
        return Image.fromarray(self._paint(block)[row])

    def _paint_block(self, number: int) -> npt.NDArray[np.uint8]:
        block = self._blocks[number]
        images: dict[int, npt.NDArray[np.uint8]] = {}
        for in_colour in (False, True):
            rows = [r for r, (_, d) in enumerate(block) if (d.domain == "colour") == in_colour]
            if not rows:
                continue
            keys = [f"{RESTYLE_VERSION}:{self._strength}:{block[r][0]}" for r in rows]
            cells = np.stack(
                [_cells(self._task, block[r][1].sheet)[block[r][1].cell] for r in rows]
            )
            painted = restyle(cells, keys, STRENGTHS[self._strength])
            images.update(zip(rows, painted, strict=True))
        return np.stack([images[r] for r in range(len(block))])


# --- what to say about it -----------------------------------------------------------------------


def attribution(task: str) -> str:
    """The packs that a task shows, with authors and licences, one a line."""
    sheets, packs = index()["sheets"], index()["packs"]
    used = {
        sheets[d.sheet]["pack"]
        for drawings_of_class in drawings(task).values()
        for d in drawings_of_class
    }
    return "\n".join(
        f"{p['title']} by {p['author']}, {p['licence']}, {p['source']}"
        for name, p in packs.items()
        if name in used
    )


def domain_counts(task: str) -> Mapping[str, tuple[int, int]]:
    """Domain -> how many classes have drawings of it for training, and for testing."""
    counts = {}
    for domain in DOMAINS:
        data = load(f"icons/{task}@{domain}")
        counts[domain] = (len(set(data.train.labels)), len(set(data.test.labels)))
    return counts
