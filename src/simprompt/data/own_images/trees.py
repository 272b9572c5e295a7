"""A folder tree -> rows, as such trees really lie on disks.

1. What an operating system or a tool put there (`SYSTEM_NAMES`, ``._*``) and what is hidden is no
   image and no class. Linked folders are followed, once.
2. A file is an image by its suffix (`images.SUFFIXES`) or else by its content.
3. A folder *has images* if one lies in it at any depth. The source may be wrapped: while a folder
   holds no images itself and a single folder that has any, and that is no class, that one is meant.
4. A folder is named like a *split* if one of its words is train, val or test or a word for them
   (`WORDS`), in any case, and all its others are of `AFFIXES` or numbers (``Train_Set``,
   ``test2017``). Where folders named like train and like val or test lie side by side, they are the
   splits, and their folders the classes; other folders beside them are not used. They are looked
   for at the source and below it; the shallowest are taken, and two sets at one depth are refused.
5. Else each folder that has images is a class.
6. Images that lie in no class folder, and nowhere is there one, have their class in their names if
   all do: a word, then a number (``cat.0.jpg``), with two images or more for each of two or more.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from simprompt.data.image_files import SUFFIXES
from simprompt.data.images import FileLoader, is_image
from simprompt.data.own_images.rows import (
    BESIDE,
    EMPTY_CLASS,
    HIDDEN,
    LINK,
    NO_LABEL,
    NOT_AN_IMAGE,
    PARTS,
    STRAY,
    SYSTEM,
    Reading,
    Row,
    Unused,
)
from simprompt.data.split import DatasetError
from simprompt.utils.files.regular import entry_is_folder

WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
"""Words for the splits."""

AFFIXES = frozenset(
    {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "photo", "photos"}
    | {"picture", "pictures", "pics", "folder", "dir", "labeled", "labelled", "my", "the"}
)
"""Words that a split's folder may have beside the one of `WORDS`."""

SYSTEM_NAMES = frozenset(
    {"__macosx", ".ds_store", ".appledouble", ".trashes", ".spotlight-v100", ".fseventsd"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
    | {"@eadir", "#recycle", "lost+found", ".directory", ".ipynb_checkpoints", "__pycache__"}
    | {".git", ".svn", ".gitkeep", ".gitignore", ".gitattributes"}
)
"""In lower case: files and folders that no user made as a class or an image."""

_CAMERA = frozenset(
    {"img", "dsc", "dscn", "dscf", "image", "images", "photo", "pic", "picture"}
    | {"pxl", "frame", "file", "scan", "screenshot", "untitled"}
)
_NUMBERED = re.compile(r"(.*?)[\s._-]*\(?\d+\)?")


@dataclass
class _Folder:
    """A folder that was walked; paths are relative to the source, with ``/``, "" for itself."""

    path: str
    images: list[str] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @cached_property
    def below(self) -> list[str]:
        """All images in it, at any depth."""
        return [*self.images, *(image for folder in self.folders for image in folder.below)]

    @cached_property
    def parts(self) -> list[_Folder]:
        """Its folders that have images."""
        return [folder for folder in self.folders if folder.below]


def read(root: Path) -> Reading:
    """The images below a folder.

    Raises:
        DatasetError: it cannot be told what is meant; the message names the folders to choose from.
        OSError: a folder may not be read.
    """
    reading = Reading(str(root.resolve()), FileLoader(root, upright=True))
    walk = _Walk(root, reading.unused)
    top = walk.folder("", [root.resolve()])
    layout = _Layout(root, reading)
    if top.below:
        layout.place(top)
        layout.leave_out_twins(walk.linked)
    used_items = {row.item for rows in reading.parts.values() for row in rows}
    accounted = used_items | {u.path for u in reading.unused}
    reading.unused += [Unused(path, STRAY) for path in top.below if path not in accounted]
    return reading


def images_below(root: Path) -> tuple[list[str], list[Unused]]:
    """Every image below a folder, whatever its class: by the rules 1 and 2 alone.

    Returns:
        paths relative to `root`, folder by folder; what is not used.

    Raises:
        OSError: a folder may not be read.
    """
    unused: list[Unused] = []
    return _Walk(root, unused).folder("", [root.resolve()]).below, unused


def part_of(name: str) -> str | None:
    """The split, ``"train"``, ``"val"`` or ``"test"``, that a folder is named like."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [w for w in re.split(r"[\W\d_]+", spaced.lower()) if w]
    words = [w.removesuffix("set") if w.removesuffix("set") in WORDS else w for w in words]
    split_words = [WORDS[w] for w in words if w in WORDS]
    other_words = [w for w in words if w not in WORDS]
    return (
        split_words[0] if len(split_words) == 1 and all(w in AFFIXES for w in other_words) else None
    )


class _Walk:
    """A tree as `_Folder`s of images; all else goes to `unused`."""

    def __init__(self, root: Path, unused: list[Unused]) -> None:
        self.root, self.unused = root, unused
        self.linked: list[str] = []  # folders that are links, followed

    def folder(self, path: str, above: list[Path]) -> _Folder:
        """`above`: what the folder and those that lead to it really are, against circles."""
        node = _Folder(path)
        for entry in sorted(os.scandir(self.root / path), key=lambda e: e.name):
            item = f"{path}/{entry.name}" if path else entry.name
            if reason := _no_users(entry.name):
                self.unused += [Unused(p, reason) for p in self._files(item, entry)]
            elif entry_is_folder(entry):
                real = Path(entry.path).resolve() if entry.is_symlink() else above[-1] / entry.name
                if entry.is_symlink() and real in above:
                    self.unused.append(Unused(item, LINK))
                    continue
                if entry.is_symlink():
                    self.linked.append(item)
                node.folders.append(self.folder(item, [*above, real]))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self.unused.append(Unused(item, LINK))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES or is_image(entry.path):
                node.images.append(item)
            else:
                self.unused.append(Unused(item, NOT_AN_IMAGE))
        return node

    def _files(self, item: str, entry: os.DirEntry[str]) -> Iterator[str]:
        """The files of what is hidden; links are not followed."""
        if not entry.is_dir(follow_symlinks=False):
            yield item
            return
        for at, folders, files in os.walk(entry.path):
            folders.sort()
            inside = Path(at).relative_to(self.root).as_posix()
            yield from (f"{inside}/{file}" for file in sorted(files))


def _no_users(name: str) -> str | None:
    if name.lower() in SYSTEM_NAMES or name.startswith("._"):
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


class _Layout:
    """What is meant by a tree: fills in a reading."""

    def __init__(self, root: Path, reading: Reading) -> None:
        self.root, self.reading = root, reading

    def place(self, top: _Folder) -> None:
        at, splits = self._splits_below(top)
        if not splits:
            at = _unwrapped(top)
        if at.path:
            depth = at.path.count("/") + 1
            deep = {1: "one folder", 2: "two folders"}.get(depth, f"{depth} folders")
            self._note(f"The images lie {deep} deep, in {at.path}.")
        if not splits:
            self._one(at)
            return
        beside = [f for f in at.parts if f not in splits.values()]
        if any(folder.name != split_name for split_name, folder in splits.items()):
            folders_text = ", ".join(
                f"{folder.name} as {split_name}" for split_name, folder in splits.items()
            )
            self._note(f"Splits: {folders_text}.")
        unlabelled = [f for f in beside if part_of(f.name) and not f.parts]
        for folder in unlabelled:
            self._unused(folder.images, NO_LABEL)
            self._note(f"{folder.path} has no class folders, so its images have no label.")
        if unnamed := [f for f in beside if f not in unlabelled]:
            self._note(f"Not used, beside the splits: {_names(unnamed)}.")
        self._unused(at.images, BESIDE)
        if not any(folder.parts for folder in splits.values()):
            self._flat([*splits.items()])
            return
        for split_name, folder in splits.items():
            self._unused(folder.images, BESIDE)
            self._classes(split_name, folder if folder.images else _unwrapped(folder))

    def _splits_below(self, top: _Folder) -> tuple[_Folder, dict[str, _Folder]]:
        """The shallowest folder whose folders are splits, and these; `top` and none if none is."""
        level = [top]
        while level:
            candidates = [(at, splits) for at in level if (splits := self._checked(at))]
            if len(candidates) > 1:
                self._refuse(
                    f"holds {len(candidates)} folders with splits, "
                    f"{_names([at for at, _ in candidates])}",
                    [at for at, _ in candidates],
                )
            if candidates:
                return candidates[0]
            level = [folder for at in level for folder in at.parts]
        return top, {}

    def _checked(self, at: _Folder) -> dict[str, _Folder]:
        """The splits among a folder's folders, by part; empty where there are none."""
        by_split: dict[str, list[_Folder]] = {}
        for folder in at.parts:
            if split_name := part_of(folder.name):
                by_split.setdefault(split_name, []).append(folder)
        nested = any(
            folder.parts for folders_named in by_split.values() for folder in folders_named
        )
        if len(by_split) < 2 and not (nested and len(at.parts) > 1):
            return {}
        for split_name, folders_named in by_split.items():
            if len(folders_named) > 1:
                self._refuse(
                    f"has {len(folders_named)} folders for {split_name}, {_names(folders_named)}",
                    folders_named,
                )
        splits = {
            split_name: by_split[split_name][0] for split_name in PARTS if split_name in by_split
        }
        if "train" not in splits:
            self._refuse(
                f"has {_names(list(splits.values()))} and no folder for training",
                list(splits.values()),
            )
        if len(splits) == 1:
            unnamed = [f for f in at.parts if f not in splits.values()]
            self._refuse(
                f"has {_names(list(splits.values()))} beside {_names(unnamed)}, and no folder for "
                "testing, so that it may be a class or hold the training images",
                list(splits.values()),
            )
        if nested:
            splits = {split_name: folder for split_name, folder in splits.items() if folder.parts}
            if "train" not in splits:
                self._refuse(f"has no class folders in {by_split['train'][0].path}", [])
        elif len(at.parts) > len(splits):
            unnamed = [f for f in at.parts if f not in splits.values()]
            self._refuse(
                f"has {_names(list(splits.values()))} without class folders in them, "
                f"beside {_names(unnamed)}",
                [],
            )
        return splits

    def _one(self, at: _Folder) -> None:
        """A folder without splits."""
        if at.parts:
            self._unused(at.images, BESIDE)
            self._classes("train", at)
        else:
            self._flat([("train", at)])

    def _classes(self, part: str, at: _Folder) -> None:
        for folder in at.folders:
            if not folder.below:
                self._unused([f"{folder.path}/"], EMPTY_CLASS)
            self.reading.parts[part] += [Row(image, folder.name) for image in folder.below]

    def _flat(self, folders: list[tuple[str, _Folder]]) -> None:
        """Images without class folders, of which the names tell the class."""
        images = [image for _, folder in folders for image in folder.images]
        names = _flat_names(images)
        if names is None:
            location = self.root / folders[0][1].path
            raise DatasetError(
                f"{location} holds {len(images):,} images and no class folders. Put the images of "
                "each class into a folder named like it, number them (cat.0.jpg, dog.0.jpg), or "
                "write a table with the columns path and label."
            )
        counts = Counter(names.values())
        counts_text = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:8])
        self._note(f"No class folders: a file's name up to its number is its class, {counts_text}.")
        for split_name, folder in folders:
            self.reading.parts[split_name] += [Row(image, names[image]) for image in folder.images]

    def leave_out_twins(self, linked: list[str]) -> None:
        """Leave out what is read through a linked folder, and read elsewhere as well."""
        if not linked:
            return
        through = tuple(f"{path}/" for path in linked)
        rows = [row for split_name in self.reading.parts.values() for row in split_name]
        digests_seen: set[str] = set()
        twins = set()
        for row in sorted(rows, key=lambda row: row.item.startswith(through)):
            folder, _, file = row.item.rpartition("/")
            real = os.path.join(self._real(folder), file)
            if real in digests_seen:
                twins.add(row.item)
            digests_seen.add(real)
        self._unused(sorted(twins), LINK)
        for split_name, own in self.reading.parts.items():
            self.reading.parts[split_name] = [row for row in own if row.item not in twins]

    def _real(self, place: str) -> str:
        if place not in self._places:
            self._places[place] = os.path.realpath(self.root / place)
        return self._places[place]

    @cached_property
    def _places(self) -> dict[str, str]:
        return {}

    def _unused(self, paths: list[str], reason: str) -> None:
        self.reading.unused += [Unused(path, reason) for path in paths]

    def _note(self, sentence: str) -> None:
        self.reading.notes.append(sentence)

    def _refuse(self, why: str, folders: list[_Folder]) -> None:
        """Raise what says which folder to name."""
        ways = " or ".join(str(self.root / folder.path) for folder in folders[:6])
        remedy = (
            f"Name the one that is meant: {ways}." if folders else "Sort the images into classes."
        )
        raise DatasetError(f"{self.root} {why}. {remedy}")


def _unwrapped(top: _Folder) -> _Folder:
    """The folder that is meant where each holds a single one; see rule 3 of the module."""
    at = top
    while not at.images and len(at.parts) == 1:
        (only,) = at.parts
        if only.images and len(only.parts) < 2:  # a class, or a wrapped flat folder
            return only if not only.parts and _flat_names(only.images) else at
        at = only
    return at


def _flat_names(images: list[str]) -> dict[str, str] | None:
    """The class of each image as its file's name tells it; None where not all do, see rule 6."""
    names = {}
    for image in images:
        stem = os.path.splitext(image.rpartition("/")[2])[0]
        match = _NUMBERED.fullmatch(stem)
        name = match[1] if match else ""
        if not any(c.isalpha() for c in name) or name.lower() in _CAMERA:
            return None
        names[image] = name
    counts = Counter(names.values())
    return names if len(counts) > 1 and min(counts.values()) > 1 else None


def _names(folders: list[_Folder]) -> str:
    return ", ".join(folder.path for folder in folders[:6]) + (", ..." if len(folders) > 6 else "")
