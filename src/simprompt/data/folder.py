"""Your own images: a folder of class folders, a table of paths and labels, or a hub dataset.

``my_photos/<class>/<image>``, or ``my_photos/{train,val,test}/<class>/<image>``; a CSV or Parquet
file with the columns ``path``, ``label`` and, if you like, ``split``; or ``hf:org/name`` for a
dataset of the Hugging Face hub (needs the ``datasets`` extra).

Class names are made readable (underscores, hyphens, CamelCase), or taken from an override file.
Images that cannot be read are left out and listed; `strict` makes them an error.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from simprompt.config import DEFAULT_TEMPLATE
from simprompt.data.dataset import Dataset, DatasetError, Split
from simprompt.data.images import (
    READER,
    SUFFIXES,
    FileLoader,
    ImageError,
    check_image,
    read_image,
)
from simprompt.files.fetch import cache_dir, locked
from simprompt.files.whole import write_text
from simprompt.progress import tell

PARTS = ("train", "val", "test")
TABLES = (".csv", ".tsv", ".parquet")

Row = tuple[str, str]
"""(item, raw class name)."""


@dataclass(frozen=True)
class OwnImages:
    """A dataset of your own, and what was left out of it.

    Args:
        dataset: classes in alphabetical order of their folders or labels, then `new_classes`.
        skipped: one sentence for each image that could not be read.
        new_classes: names without images, at the end of ``dataset.classnames``.
    """

    dataset: Dataset
    skipped: tuple[str, ...] = ()
    new_classes: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[int, ...]:
        """Labels of the classes that have images."""
        return tuple(range(len(self.dataset.classnames) - len(self.new_classes)))


def load(
    source: str | Path,
    *,
    names: str | Path | None = None,
    new_classes: Sequence[str] = (),
    template: str = DEFAULT_TEMPLATE,
    strict: bool = False,
    seed: int = 1,
) -> OwnImages:
    """Your own images as a dataset.

    Where the source has no test split, a quarter of each class (at least one image, if there are
    two) is held out for testing, drawn with `seed`.

    Args:
        source: folder, table file, or ``"hf:org/name"``.
        names: override file: JSON ``{"folder": "class name"}``, or lines ``folder = class name``.
        new_classes: class names without a single image.
        template: the hand-crafted prompt.
        strict: an unreadable image is an error instead of being left out.

    Raises:
        DatasetError: nothing there, no images, a name that stands for two classes, ...
        ImageError: with `strict`, the first unreadable image.
    """
    loader: FileLoader | _HubLoader
    if str(source).startswith("hf:"):
        where, loader, parts = _from_hub(str(source).removeprefix("hf:"))
    else:
        path = Path(source).expanduser()
        if not path.exists():
            raise DatasetError(f"There is no folder or file at {path}.")
        try:
            root, parts = _from_table(path) if path.is_file() else (path, _from_folders(path))
        except OSError as error:
            raise DatasetError(
                f"{error.filename or path} cannot be read: {error.strerror}."
            ) from error
        loader, where = FileLoader(root, upright=True), str(path.resolve())
    skipped: list[str] = []
    if isinstance(loader, FileLoader):  # a hub dataset's images were checked when it was made
        parts, skipped = _readable(parts, loader, strict)
    if not any(parts.values()):
        raise DatasetError(
            f"{source} holds no readable images. Expected folders named like your classes with "
            f"images in them ({', '.join(sorted(SUFFIXES))}), or such folders inside train/ and "
            f"test/.{' First problem: ' + skipped[0] if skipped else ''}"
        )
    raw = sorted({name for rows in parts.values() for _, name in rows})
    shown = _class_names(raw, names)
    new = tuple(clean_name(n) for n in new_classes)
    if clash := sorted(set(shown) & set(new)):
        raise DatasetError(f"{', '.join(clash)}: named as a new class, but there are images of it.")
    if len(set(new)) < len(new):
        raise DatasetError("A new class is named twice.")
    if not parts["test"]:
        parts["train"], parts["test"] = _hold_out(parts["train"], seed)
    label_of = {name: label for label, name in enumerate(raw)}
    classnames = (*shown, *new)

    def split(rows: Iterable[Row]) -> Split:
        rows = list(rows)
        labels = tuple(label_of[name] for _, name in rows)
        return Split(tuple(item for item, _ in rows), labels, classnames, loader)

    dataset = Dataset(
        name=f"own/{Path(where).name or 'images'}",
        classnames=classnames,
        templates=(template,),
        train=split(parts["train"]),
        val=split(parts["val"]) if parts["val"] else None,
        test=split(parts["test"]),
        version=hashlib.sha256(where.encode()).hexdigest()[:12],
        notes=(f"{len(skipped)} unreadable images were left out",) if skipped else (),
    )
    return OwnImages(dataset, tuple(skipped), new)


def read_names(path: str | Path) -> list[str]:
    """Class names from a file, one a line; blank lines and lines that begin with # are skipped."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not a readable text file: {error}.") from error
    names = [clean_name(line) for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DatasetError(f"{path} names no classes; write one name a line.")
    return names


def clean_name(raw: str) -> str:
    """A folder's name as words: ``Golden_Retriever``, ``goldenRetriever`` -> ``golden retriever``.

    Names in capitals (``BMW``) and those with digits keep their case.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", raw)
    text = re.sub(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", " ", text).strip()
    plain = [w.lower() if w.isalpha() and not (w.isupper() and len(w) > 1) else w
             for w in text.split()]  # fmt: skip
    return " ".join(plain)


# ---------------------------------------------------------------------------- sources


def _from_folders(root: Path) -> dict[str, list[Row]]:
    inside = {entry.name for entry in root.iterdir() if entry.is_dir()}
    split_up = "train" in inside and inside <= {*PARTS, "valid", "validation"}
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    if split_up:
        for name in sorted(inside):
            part = "val" if name.startswith("val") else name
            parts[part] += _classes(root, root / name)
    else:
        parts["train"] = _classes(root, root)
    return parts


def _classes(root: Path, folder: Path) -> list[Row]:
    """Images below each class folder, at any depth; hidden files and folders are left out."""
    rows = []
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        for at, folders, files in os.walk(entry):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for file in sorted(files):
                path = Path(at, file)
                if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                    rows.append((path.relative_to(root).as_posix(), entry.name))
    return rows


def _from_table(path: Path) -> tuple[Path, dict[str, list[Row]]]:
    """(folder that paths are relative to, rows by split)."""
    if path.suffix.lower() not in TABLES:
        raise DatasetError(f"{path}: expected a folder, or a table ({', '.join(TABLES)}).")
    records = _records(path)
    if not records or not {"path", "label"} <= records[0].keys():
        have = ", ".join(records[0]) if records else "no rows"
        raise DatasetError(f"{path} needs the columns path and label (and split, if any): {have}.")
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for number, record in enumerate(records, start=2):
        part = str(record.get("split") or "train").lower()
        part = "val" if part.startswith("val") else part
        if part not in parts:
            raise DatasetError(f"{path}, row {number}: split {part!r} is none of {PARTS}.")
        label, item = record["label"], record["path"]
        if label in (None, "") or item in (None, ""):
            raise DatasetError(f"{path}, row {number}: path or label is empty.")
        parts[part].append((str(item), str(label)))
    return path.parent, parts


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise DatasetError(
                f"{path}: Parquet needs pyarrow: `pip install simprompt[datasets]`, or save the "
                "table as CSV."
            ) from None
        try:
            return list(parquet.read_table(path).to_pylist())
        except Exception as error:  # pyarrow has its own errors
            raise DatasetError(f"{path} is not a Parquet file: {error}.") from error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            return list(csv.DictReader(file, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a UTF-8 table: {error}.") from error


class _HubLoader:
    """Items are ``split/row`` of a `datasets.DatasetDict` whose images are left encoded.

    Its images are read as files are, upright.
    """

    def __init__(self, name: str, splits: Mapping[str, Any], column: str) -> None:
        self.name, self.splits, self.column = name, splits, column

    def __call__(self, item: str) -> Image.Image:
        split, _, row = item.rpartition("/")
        encoded = self.splits[split][int(row)][self.column] or {}
        source = encoded.get("bytes") or encoded.get("path") or b""
        return read_image(source, upright=True, name=f"{self.name}, image {item}")


def _from_hub(name: str) -> tuple[str, _HubLoader, dict[str, list[Row]]]:
    try:
        import datasets
    except ImportError:
        raise DatasetError(
            f"hf:{name} needs the datasets library: `pip install simprompt[datasets]`."
        ) from None
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # its errors are many
        raise DatasetError(f"hf:{name} could not be loaded: {error}.") from error
    features = next(iter(loaded.values())).features
    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [c for c, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise DatasetError(
            f"hf:{name} needs one image column and one class label column; it has {len(images)} "
            f"and {len(labels)} among {', '.join(features)}."
        )
    names = features[labels[0]].names
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for key, table in loaded.items():
        part = "val" if key.startswith("val") else key
        if part in parts:
            parts[part] = [
                (f"{key}/{row}", names[label]) for row, label in enumerate(table[labels[0]])
            ]
    prints = ",".join(f"{key}:{table._fingerprint}" for key, table in sorted(loaded.items()))
    encoded = {
        key: table.cast_column(images[0], datasets.Image(decode=False))
        for key, table in loaded.items()
    }
    return f"hf:{name}@{prints}", _HubLoader(f"hf:{name}", encoded, images[0]), parts


# ---------------------------------------------------------------------------- helpers


def _readable(
    parts: dict[str, list[Row]], loader: FileLoader, strict: bool
) -> tuple[dict[str, list[Row]], list[str]]:
    """What cannot be decoded is left out and described."""
    rows = [(part, row) for part in PARTS for row in parts[part]]
    wrong = _problems(loader, [item for _, (item, _) in rows])
    problems = [wrong.get(item, "") for _, (item, _) in rows]
    skipped = [p for p in problems if p]
    if strict and skipped:
        raise ImageError(
            f"{len(skipped)} of {len(rows)} images cannot be read; first: {skipped[0]} Without "
            "--strict they are left out."
        )
    kept: dict[str, list[Row]] = {part: [] for part in PARTS}
    for (part, row), bad in zip(rows, problems, strict=True):
        if not bad:
            kept[part].append(row)
    return kept, skipped


def _problems(loader: FileLoader, items: Sequence[str]) -> dict[str, str]:
    """What is wrong with those files that cannot be decoded.

    Every file is decoded, but only once: a record in the cache holds the stamps of those that
    could be. Of several processes that start together one decodes, and the others wait for it.
    """
    key = hashlib.sha256(f"{READER}|{loader.root.resolve()}".encode()).hexdigest()[:16]
    record = cache_dir() / "readable" / f"{key}.json"
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = record.with_suffix(".lock").open("ab")
    except OSError:  # no place to keep a record in
        return _decode(loader, items)
    with lock, locked(lock):
        try:
            known: dict[str, str] = dict(json.loads(record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            known = {}  # nothing yet, or damaged: all are decoded
        stamps = {item: loader.stamp(item) for item in items}
        fresh = [i for i, stamp in stamps.items() if not stamp or known.get(i) != stamp]
        if not fresh:
            return {}
        problems = _decode(loader, fresh)
        known |= {item: stamps[item] for item in fresh if item not in problems}
        write_text(record, json.dumps(known))
    return problems


def _decode(loader: FileLoader, items: Sequence[str]) -> dict[str, str]:
    """What is wrong with those of these files that cannot be decoded."""

    def problem(item: str) -> str:
        try:
            check_image(loader.path(item))
        except ImageError as error:
            return str(error)
        return ""

    problems = {}
    what = f"images of {loader.root.name} looked at"
    tell(what, 0, len(items))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (item, wrong) in enumerate(
            zip(items, pool.map(problem, items), strict=True), start=1
        ):
            if wrong:
                problems[item] = wrong
            if done % 100 == 0 or done == len(items):
                tell(what, done, len(items))
    return problems


def _hold_out(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(train, test): a quarter of each class to test, one image at least if there are two."""
    rng = random.Random(seed)
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row[1], []).append(row)
    held = set()
    for name in sorted(by_class):
        mine = by_class[name]
        held.update(rng.sample(mine, len(mine) // 4 or (1 if len(mine) > 1 else 0)))
    return [r for r in rows if r not in held], [r for r in rows if r in held]


def _class_names(raw: Sequence[str], overrides: str | Path | None) -> tuple[str, ...]:
    given = _overrides(Path(overrides)) if overrides else {}
    if unknown := sorted(given.keys() - set(raw)):
        raise DatasetError(
            f"{overrides} renames {', '.join(unknown)}, of which there are no images. Classes: "
            f"{', '.join(raw)}."
        )
    names = tuple(given.get(name) or clean_name(name) for name in raw)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DatasetError(
                f"{raw[names.index(name)]!r} and {raw[i]!r} are both called {name!r}; tell them "
                "apart with an override file (--names)."
            )
        if not name:
            raise DatasetError(f"The class {raw[i]!r} has no name; give one with --names.")
    return names


def _overrides(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            pairs = (line.split("=", 1) for line in text.splitlines() if line.strip())
            values = {key.strip(): value.strip() for key, value in pairs}
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f'{path} is not an override file: {error}. Write JSON {{"folder": "name"}}, or '
            "lines `folder = name`."
        ) from error
    return {str(k): str(v) for k, v in values.items()}
