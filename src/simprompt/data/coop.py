"""The eleven datasets of the field and ImageNet's four variants, as CoOp lays them out on disk.

``$DATA/<folder>/<images>/...`` with ``split_zhou_<Dataset>.json`` in the folder. What is where is
data (``coop.json``, ``classnames/``, ``templates/``); this module reads it. Splits and few-shot
draws are the published ones as long as the split file is there; without it the rule by which it
was once made is applied with a fixed seed, which gives *other* images, and the dataset's ``notes``
say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from simprompt.data.dataset import Dataset, DatasetError, Origin, Split
from simprompt.data.images import FileLoader
from simprompt.utils.files import archive as archives
from simprompt.utils.files import hub
from simprompt.utils.files.atomic import write_json
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.parsing import first_complaint, json_value
from simprompt.utils.files.regular import TABLE, expanded, is_file, is_folder, read_text
from simprompt.utils.terminal import say

Rows = list[tuple[str, int]]
"""(path below the image folder, label)."""

RULE_SEED = 1
"""Seed of the split that stands in where the published split file is missing."""


@dataclass(frozen=True)
class Spec:
    """One dataset of ``coop.json``.

    Args:
        name: as `load` takes it.
        folder: below the data root.
        images: image folder below `folder`.
        rule: how to split, or to read the original lists, where there is no split file.
        split: name of the split file; empty where the dataset's own lists are the split.
        archive, sha256: file of the mirror, and its hash where it is known.
        repo: dataset repository of the authors that has the archive instead of the mirror.
        original: what the authors' archive calls the image folder, if not `images`.
        classes, train, val, test: how many there are, published.
    """

    name: str
    about: str
    folder: str
    images: str
    rule: str
    classes: int
    train: int
    val: int
    test: int
    licence: str
    split: str = ""
    archive: str = ""
    sha256: str = ""
    repo: str = ""
    original: str = ""
    aliases: tuple[str, ...] = field(default=())


def _data(path: str) -> Any:
    file = resources.files("simprompt.data").joinpath(*path.split("/"))
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def specs() -> dict[str, Spec]:
    """All datasets of this layout by name."""
    rows = _data("coop.json")["datasets"]
    all_specs = (Spec(**{**row, "aliases": tuple(row.get("aliases", ()))}) for row in rows)
    return {spec.name: spec for spec in all_specs}


def is_published(origin: Origin | None) -> bool:
    """Whether images come from one of the field's datasets. ImageNet has two class names twice."""
    return origin is not None and re.split("[:@]", origin.dataset)[0] in specs()


def origin(spec: Spec) -> str:
    """Where its files come from, in a few words."""
    if not spec.archive:
        return "image-net.org, by hand"
    return f"{spec.archive} of {_home(spec)['repo']} on the hub"


def _home(spec: Spec) -> dict[str, str]:
    """The hub repository that holds a dataset's archive: repo, revision, kind."""
    if spec.repo:
        return {"repo": spec.repo, "revision": "main", "kind": "dataset"}
    mirror: dict[str, str] = _data("coop.json")["mirror"]
    return mirror


def data_root() -> Path:
    """``$SIMPROMPT_DATA``, else ``data`` in the cache: what CoOp's users call ``$DATA``."""
    root_text = os.environ.get("SIMPROMPT_DATA")
    return expanded(root_text) if root_text else hub.cache_dir() / "data"


@cache
def template_sets() -> tuple[str, ...]:
    """Names of the sets of hand-crafted templates."""
    folder = resources.files("simprompt.data") / "templates"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir()))


def template(dataset: str, chosen: str = "coop") -> str:
    """The hand-crafted template that a paper used for a dataset.

    Raises:
        DatasetError: no set of that name.
    """
    if chosen not in template_sets():
        raise DatasetError(
            f"There is no template set {chosen!r}; there are {', '.join(template_sets())}."
        )
    values = _data(f"templates/{chosen}.json")
    words: str = values["datasets"].get(dataset, values["default"])
    return words


def template_in(chosen: str, dataset: str) -> str | None:
    """The template that set `chosen` has for a dataset, or None for one that is not the field's.

    Raises:
        DatasetError: no set of that name.
    """
    candidate = template(dataset, chosen)
    return candidate if dataset in specs() else None


def class_names(dataset: str) -> tuple[str, ...]:
    """Class names in label order as they go into a template: underscores are spaces."""
    if dataset.startswith("imagenet"):
        dataset = "imagenet"
    return tuple(readable(name) for name in _data(f"classnames/{dataset}.json")["names"])


def readable(name: str) -> str:
    """A folder's or file's class name as words."""
    return re.sub(r"[\s_]+", " ", name).strip()


# ---------------------------------------------------------------------------- reading


def load(spec: Spec, root: Path | None, full_name: str = "") -> Dataset:
    """The dataset in the CoOp layout below `root`, downloaded first where it is not there.

    Args:
        root: data root, or the dataset's own folder; default `data_root`.
        full_name: ``"dtd@kgcoop"`` takes the templates of another paper.

    Raises:
        DatasetError, FetchError: not there and cannot be had, or not in this layout.
    """
    chosen = full_name.partition("@")[2] or "coop"
    prompt = template(spec.name, chosen)
    folder = find(spec, root) or download(spec, root)
    images = _images(spec, folder)
    names, (train, val, test), notes = _read(spec, folder, images)
    loader = FileLoader(images)

    def split(rows: Rows) -> Split:
        return Split(tuple(p for p, _ in rows), tuple(y for _, y in rows), names, loader)

    return Dataset(
        name=spec.name,
        classnames=names,
        templates=(prompt,),
        train=split(train),
        val=split(val) if val else None,
        test=split(test),
        version=hashlib.sha256(str(images.resolve()).encode()).hexdigest()[:12],
        notes=notes,
    )


def _published(spec: Spec) -> str | None:
    """The hash that an archive must have: the published one, where that is known.

    Whoever names a mirror with HF_ENDPOINT trusts it, and the hash that it states counts.
    """
    return None if os.environ.get("HF_ENDPOINT") else spec.sha256 or None


def find(spec: Spec, root: Path | None = None) -> Path | None:
    """The dataset's folder, if its image folder is there."""
    root = data_root() if root is None else root
    for folder in (root / spec.folder, root):
        if is_folder(_images(spec, folder)) and (spec.images or folder.name == spec.folder):
            return folder
    return None


def _images(spec: Spec, folder: Path) -> Path:
    """The image folder as CoOp names it, or, if that is not there, as the authors do."""
    images = folder / spec.images
    return folder / spec.original if spec.original and not images.is_dir() else images


def _read(
    spec: Spec, folder: Path, images: Path
) -> tuple[tuple[str, ...], tuple[Rows, Rows, Rows], tuple[str, ...]]:
    """(class names, (train, val, test), notes)."""
    names = class_names(spec.name)
    if spec.split and is_file(folder / spec.split):
        return names, _read_split(folder / spec.split, names), ()
    rules: dict[str, Any] = {
        "folders": _by_folders, "pets": _pets, "cars": _cars, "flowers": _flowers,
        "aircraft": _aircraft, "sun397": _sun397, "ucf101": _ucf101,
        "imagenet": _imagenet, "wnids": _wnids, "numbered": _numbered,
    }  # fmt: skip
    try:
        splits = rules[spec.rule](spec, folder, images)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder} has neither {spec.split or 'its lists'} nor what the split is made from: "
            f"{error.filename} is missing. `simprompt download {spec.name}` gets the dataset "
            "with its split file."
        ) from error
    if spec.rule in ("wnids", "numbered", "imagenet", "aircraft"):  # these lists are the split
        if spec.rule == "wnids" and spec.classes < len(names):
            wnids = _data("classnames/imagenet.json")["wnids"]
            present = sorted(p.name for p in images.iterdir() if p.name in wnids)
            names = tuple(names[wnids.index(w)] for w in present)
        return names, splits, ()
    note = (
        f"{spec.split} is missing: the split was drawn by CoOp's rule with seed {RULE_SEED}, so "
        "images differ from the published split and results are not comparable with published ones"
    )
    return names, splits, (note,)


_ROWS = TypeAdapter(list[tuple[str, Annotated[int, Field(ge=0)], str]])


def _read_split(path: Path, names: Sequence[str]) -> tuple[Rows, Rows, Rows]:
    try:
        table = json_value(read_text(path, TABLE))
        splits = []
        for split_name in ("train", "val", "test"):
            listed = _ROWS.validate_python(table[split_name])
            splits.append([(item, label) for item, label, _ in listed])
            for item, label, name in listed:
                if readable(name) != names[label]:
                    raise DatasetError(
                        f"{path}: label {label} is called {name!r} there and {names[label]!r} in "
                        "the published list. It is the split file of another dataset or version."
                    )
                if item.startswith("/") or ".." in Path(item).parts:
                    raise DatasetError(f"{path}: {item!r} is not below the image folder.")
    except ValidationError as error:
        raise DatasetError(
            f"{path} is not a split file of CoOp's format: {split_name} {first_complaint(error)}."
        ) from None
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DatasetError(f"{path} is not a split file of CoOp's format: {error!r}.") from error
    return splits[0], splits[1], splits[2]


# ---------------------------------------------------------------------------- rules
# Each: (spec, dataset folder, image folder) -> train, val, test.


def _files(folder: Path) -> list[str]:
    return sorted(f.name for f in os.scandir(folder) if not f.name.startswith("."))


def _shares(by_label: dict[int, list[str]]) -> tuple[Rows, Rows, Rows]:
    """Half of each class to train, a fifth to val, the rest to test, shuffled."""
    rng = random.Random(RULE_SEED)
    train, val, test = Rows(), Rows(), Rows()
    for label, items in by_label.items():
        items = list(items)
        rng.shuffle(items)
        a = round(len(items) * 0.5)
        b = a + round(len(items) * 0.2)
        for split_name, chosen in ((train, items[:a]), (val, items[a:b]), (test, items[b:])):
            split_name += [(item, label) for item in chosen]
    return train, val, test


def _fifth(trainval: Rows) -> tuple[Rows, Rows]:
    """A fifth of each class of an official training list to val, shuffled."""
    rng = random.Random(RULE_SEED)
    by_label: dict[int, list[str]] = {}
    for item, label in trainval:
        by_label.setdefault(label, []).append(item)
    train, val = Rows(), Rows()
    for label, items in by_label.items():
        rng.shuffle(items)
        n = round(len(items) * 0.2)
        val += [(item, label) for item in items[:n]]
        train += [(item, label) for item in items[n:]]
    return train, val


_LEFT_OUT = {"BACKGROUND_Google", "Faces_easy"}  # of Caltech101


def _by_folders(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    classes = [name for name in _files(images) if name not in _LEFT_OUT]
    if len(classes) != spec.classes:
        raise DatasetError(
            f"{images} has {len(classes)} class folders, {spec.name} has {spec.classes}. Without "
            f"{spec.split} all of them are needed."
        )
    return _shares({y: [f"{c}/{f}" for f in _files(images / c)] for y, c in enumerate(classes)})


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path, TABLE).splitlines() if line.strip()]


def _pets(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    def rows(name: str) -> Rows:
        fields = (line.split() for line in _lines(folder / "annotations" / name))
        return [
            (f"{fields_of_line[0]}.jpg", int(fields_of_line[1]) - 1) for fields_of_line in fields
        ]

    return *_fifth(rows("trainval.txt")), rows("test.txt")


def _mat(path: Path) -> dict[str, Any]:
    if not is_file(path):
        raise FileNotFoundError(2, "missing", str(path))
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DatasetError(
            f"{path} is a MATLAB file, which needs scipy (`pip install scipy`). With the split "
            "file in place it is not needed."
        ) from None
    return dict(loadmat(path))


def _cars(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    def rows(file: str, where: str) -> Rows:
        table = _mat(folder / file)["annotations"][0]
        return [(f"{where}/{r['fname'][0]}", int(r["class"][0, 0]) - 1) for r in table]

    trainval = rows("devkit/cars_train_annos.mat", "cars_train")
    return *_fifth(trainval), rows("cars_test_annos_withlabels.mat", "cars_test")


def _flowers(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    by_label: dict[int, list[str]] = {}
    for number, label in enumerate(_mat(folder / "imagelabels.mat")["labels"][0]):
        by_label.setdefault(int(label) - 1, []).append(f"image_{number + 1:05d}.jpg")
    return _shares(by_label)


def _aircraft(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    label_of = {name: label for label, name in enumerate(_lines(folder / "variants.txt"))}

    def rows(part: str) -> Rows:
        pairs = (line.split(" ", 1) for line in _lines(folder / f"images_variant_{part}.txt"))
        return [(f"{image}.jpg", label_of[name]) for image, name in pairs]

    return rows("train"), rows("val"), rows("test")


def _sun397(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    label_of = {name: label for label, name in enumerate(_lines(folder / "ClassName.txt"))}

    def rows(name: str) -> Rows:
        lines = _lines(folder / name)
        return [(line.lstrip("/"), label_of[line.rpartition("/")[0]]) for line in lines]

    return *_fifth(rows("Training_01.txt")), rows("Testing_01.txt")


def _ucf101(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    lists = folder / "ucfTrainTestlist"
    pairs = (line.split() for line in _lines(lists / "classInd.txt"))
    label_of = {name: int(number) - 1 for number, name in pairs}

    def rows(name: str) -> Rows:
        table = Rows()
        for line in _lines(lists / name):
            action, video = line.split()[0].split("/")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))
            table.append((f"{words}/{video.removesuffix('.avi')}.jpg", label_of[action]))
        return table

    return *_fifth(rows("trainlist01.txt")), rows("testlist01.txt")


def _list(images: Path, folders: Iterable[str], prefix: str = "") -> Rows:
    return [
        (f"{prefix}{folder}/{file}", label)
        for label, folder in enumerate(folders)
        for file in _files(images / folder)
    ]


def _imagenet(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    wnids = _data("classnames/imagenet.json")["wnids"]
    return (
        _list(images / "train", wnids, "train/"),
        Rows(),  # CoOp validates on the test images; nothing here selects on them
        _list(images / "val", wnids, "val/"),
    )


def _wnids(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    wordnet_ids = set(_data("classnames/imagenet.json")["wnids"])
    present = [name for name in _files(images) if name in wordnet_ids]
    if len(present) != spec.classes:
        raise DatasetError(
            f"{images} has {len(present)} of the {spec.classes} class folders of {spec.name} (they "
            "are named by WordNet ids such as n01440764)."
        )
    return Rows(), Rows(), _list(images, present)


def _numbered(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    return Rows(), Rows(), _list(images, [str(label) for label in range(spec.classes)])


# ---------------------------------------------------------------------------- downloading


def download(spec: Spec, root: Path | None = None, *, keep_archive: bool = False) -> Path:
    """Get a dataset from the public mirror and unpack it below the data root.

    Args:
        root: data root; default `data_root`.
        keep_archive: do not delete the archive once it is unpacked.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: ImageNet, which nobody may pass on; or an archive in another layout.
        FetchError: see `fetch.hub_file` and `fetch.unpack`.
    """
    root = data_root() if root is None else root
    if path := find(spec, root):
        return path
    if not spec.archive:
        raise DatasetError(
            f"ImageNet's terms do not allow passing it on. Get it from image-net.org, and put or "
            f"link its folders of WordNet ids to {root / spec.folder / spec.images}/train and "
            ".../val; class names come with this package. Name the data root with SIMPROMPT_DATA."
        )
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_file(root / f".{spec.folder}.lock"))
        except OSError as error:
            raise DatasetError(
                f"The data root {root} cannot be written to: {error.strerror}. Name another one "
                "with SIMPROMPT_DATA or --data-root."
            ) from error
        # several runs may start at once and all want it: the first gets it, the others find it
        return find(spec, root) or _get(spec, root, keep_archive)


def _get(spec: Spec, root: Path, keep_archive: bool) -> Path:
    mirror = _home(spec)
    archive_folder = hub.repo_folder(mirror["repo"], mirror["kind"])
    # the archive is shared with processes that want the dataset below another root, and removed
    with lock_file(archive_folder / f".{spec.archive.replace('/', '_')}.lock"):
        return _unpacked(spec, root, keep_archive, mirror)


def _unpacked(spec: Spec, root: Path, keep_archive: bool, mirror: dict[str, str]) -> Path:
    downloaded = hub.hub_file(
        mirror["repo"], spec.archive, mirror["revision"],
        sha256=_published(spec), kind=mirror["kind"],
    )  # fmt: skip
    if spec.sha256 and hub.stated_hash(downloaded) != spec.sha256:
        say(
            f"note: {spec.archive} of {hub.endpoint()}, a mirror, is not the published file "
            f"(SHA-256 {spec.sha256}), so results may differ from published ones",
            err=True,
        )
    # some archives hold the dataset's folder, some its content
    inside = archives.top_level(downloaded)
    target = root if spec.folder in inside else root / spec.folder
    archives.unpack(downloaded, target)
    folder = find(spec, root)
    if folder is None:
        raise DatasetError(
            f"{downloaded} was unpacked to {target}, but {spec.folder}/{spec.images} is not there; "
            f"it holds {', '.join(sorted(inside)[:5])}. The mirror's layout has changed."
        )
    record = {**mirror, "file": spec.archive, "sha256": hub.stated_hash(downloaded)}
    write_json(folder / "downloaded_from.json", record)
    if not keep_archive:
        downloaded.resolve().unlink()
        downloaded.unlink(missing_ok=True)
    return folder
