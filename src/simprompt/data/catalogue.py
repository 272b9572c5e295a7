"""What datasets exist, where they come from, their templates and sizes; a name -> a dataset.

One :class:`Entry` a dataset. Readers of other layouts add theirs in :func:`entries`.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from simprompt.data import coop, icons
from simprompt.data.dataset import Dataset, View
from simprompt.data.own_images import folder
from simprompt.data.split import DatasetError
from simprompt.errors import SimpromptError, check_argument
from simprompt.utils.files.regular import expanded, is_there

REHEARSAL = ":rehearsal"  # behind a dataset's name: choose settings on the shots of a run alone
REHEARSAL_ALL = ":rehearsal-all"  # the same on all labelled images of the base classes
REHEARSAL_RANDOM = ":rehearsal-random"  # on the shots, with other pseudo-new classes for each seed


class UnknownDatasetError(DatasetError):
    """No dataset of this name; the message lists names that look like it."""


@dataclass(frozen=True)
class Entry:
    """One dataset of the catalogue.

    Attributes:
        name: what ``load`` takes.
        about: one sentence: what the images show.
        source: where they come from, and under which licence.
        templates: hand-crafted prompts, the first of them the zero-shot baseline's.
        n_classes: number of classes.
        n_train, n_test: number of images.
        needs_files: whether the user must have the images (False: shipped with the package).
        open: root directory (None where nothing is needed) and full name -> dataset.
    """

    name: str
    about: str
    source: str
    templates: tuple[str, ...]
    n_classes: int
    n_train: int
    n_test: int
    needs_files: bool
    open: Callable[[Path | None, str], Dataset] = field(repr=False)


@cache
def entries() -> dict[str, Entry]:
    """All datasets by name, in the order in which they are shown."""
    return {entry.name: entry for entry in (*_icon_entries(), *_coop_entries())}


def load(
    name: str, root: str | Path | None = None, *, strict: bool = False, **own: str | Path | None
) -> Dataset:
    """The dataset of this name.

    Args:
        name: a key of :func:`entries`. An icon task takes domains and restylings behind it:
            ``"icons/animals@outline"``, ``"icons/animals@strong"``; a dataset of the paper the
            templates of another paper: ``"dtd@kgcoop"``. Or your own images: a path, or
            ``"hf:org/name"`` (see :mod:`simprompt.data.own_images.folder`).
        root: where the images are, for datasets that are not shipped.
        strict, own: of your own images: ``names``, ``image_column``, ``label_column`` and
            ``split_column``, see :func:`simprompt.data.own_images.folder.load`.

    Raises:
        UnknownDatasetError: no such name.
        DatasetError: the files are not there, or not what they should be.
    """
    check_argument(name, str | Path, "load_dataset()", 'a name or a path, such as "icons/animals"')
    check_argument(root, str | Path | None, "load_dataset()", "root=None or a folder")
    name = str(name)
    entry = _entry(name)
    if entry is None and is_own(name):
        return folder.load(name, strict=strict, **own).dataset  # type: ignore[arg-type]
    if entry is None:
        raise _unknown(name)
    try:
        return entry.open(None if root is None else Path(root), name)
    except SimpromptError:
        raise
    except (OSError, ValueError) as error:  # a name that no folder can have, or no right to look
        raise DatasetError(f"The folder {root!r:.200} cannot be read: {error!s:.200}.") from None


def _unknown(name: str) -> UnknownDatasetError:
    entry_names = entries()
    near = difflib.get_close_matches(name, entry_names, n=5, cutoff=0.6)
    near = near or [k for k in entry_names if name.rpartition("/")[2] in k] or list(entry_names)[:5]
    return UnknownDatasetError(
        f"There is no dataset {name!r}. Near it: {', '.join(near)}. "
        f"`simprompt list datasets` shows all {len(entry_names)}."
    )


def is_own(name: str) -> bool:
    """Whether a name means your own images: no dataset of the catalogue, but a path that exists, or
    ``hf:NAME``."""
    return _entry(name) is None and (name.startswith("hf:") or _exists(name))


def is_known(name: str) -> bool:
    """Whether a name means a dataset of the catalogue."""
    return _entry(name) is not None


def listed(texts: Sequence[str]) -> list[str]:
    """The datasets that ``--dataset``, given once or more, names.

    A text that is a path that exists, or one of ``hf:``, is one dataset, whatever characters it
    has; any other is names with commas between them. ``icons`` stands for all icon tasks.

    Raises:
        UnknownDatasetError: one of them is neither.
    """
    names: list[str] = []
    for text in texts:
        is_single = "," not in text or text.startswith("hf:") or _exists(text)
        names += (
            [text] if is_single else [entry.strip() for entry in text.split(",") if entry.strip()]
        )
    expanded_names: list[str] = []
    for name in names:
        if is_own(name) or _entry(without_rehearsal(name)) is not None:
            expanded_names.append(name)
        elif name == "icons":
            expanded_names += icons.tasks()
        else:
            raise _unknown(name)
    return expanded_names


def _exists(name: str) -> bool:
    try:
        return bool(name) and is_there(expanded(name))
    except OSError:  # it may not be looked at, which whoever reads it says
        return True


def _entry(name: str) -> Entry | None:
    plain = name.partition("@")[0]
    return entries().get(plain) or _by_alias(plain)


def without_rehearsal(name: str) -> str:
    """The dataset whose rehearsal a name asks for; any other name is itself."""
    for ending in (REHEARSAL_ALL, REHEARSAL_RANDOM, REHEARSAL):
        name = name.removesuffix(ending)
    return name


def rehearsal(data: Dataset, name: str, shots: int, seed: int) -> Dataset:
    """The rehearsal inside the base classes of ``data`` that a name asks for; ``data`` itself if
    it asks for none. ``shots`` and ``seed`` are those of the run."""
    if name.endswith(REHEARSAL_ALL):
        return data.base.rehearsal()
    if name.endswith(REHEARSAL_RANDOM):
        shuffled = random.Random(seed).sample(data.base.labels, len(data.base.labels))
        return View(data, "base", tuple(shuffled)).rehearsal(shots, seed)
    return data.base.rehearsal(shots, seed) if name.endswith(REHEARSAL) else data


def _icon_entries() -> list[Entry]:
    entries = []
    for name in icons.tasks():
        task = name.removeprefix("icons/")
        n_classes = len(icons.index()["tasks"][task])
        entries.append(
            Entry(
                name=name,
                about=f"Icons and emoji on the topic {icons.TOPICS[task]}, restyled, 48 x 48.",
                source="shipped; open icon packs, see data/icons/ATTRIBUTION.md",
                templates=icons.TEMPLATES,
                n_classes=n_classes,
                n_train=icons.TRAIN_POOL * n_classes,
                n_test=icons.test_images_per_class(n_classes) * n_classes,
                needs_files=False,
                open=lambda _root, full_name: icons.load(full_name),
            )
        )
    return entries


def _coop_entries() -> list[Entry]:
    return [
        Entry(
            name=spec.name,
            about=spec.about,
            source=f"{spec.licence}; {coop.origin(spec)}",
            templates=(coop.template(spec.name),),
            n_classes=spec.classes,
            n_train=spec.train,
            n_test=spec.test,
            needs_files=True,
            open=partial(coop.load, spec),
        )
        for spec in coop.specs().values()
    ]


def _by_alias(name: str) -> Entry | None:
    """``flowers102`` is what some call ``oxford_flowers``."""
    for spec in coop.specs().values():
        if name in spec.aliases:
            return entries()[spec.name]
    return None
