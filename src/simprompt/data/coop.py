"""The eleven datasets of the field and ImageNet's four variants, as CoOp lays them out on disk.

``$DATA/<folder>/<images>/...`` with ``split_zhou_<Dataset>.json`` in the folder. What is where is
data (``coop.json``, ``classnames/``, ``templates/``); this module reads it. Splits and few-shot
draws are the published ones as long as the split file is there; without it the rule by which it
was once made is applied with a fixed seed, which gives *other* images, and the dataset's ``notes``
say so.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from simprompt.data.dataset import Dataset
from simprompt.data.images import FileLoader
from simprompt.data.specs import Rows, Spec, package_json
from simprompt.data.split import DatasetError, Origin, Split
from simprompt.data.split_rules import (
    RULE_SEED,
    _aircraft,
    _by_folders,
    _cars,
    _flowers,
    _imagenet,
    _numbered,
    _pets,
    _sun397,
    _ucf101,
    _wnids,
)
from simprompt.utils.files import archive as archives
from simprompt.utils.files import hub
from simprompt.utils.files.atomic import write_json
from simprompt.utils.files.cache_folders import cache_dir
from simprompt.utils.files.hub_requests import endpoint
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.parsing import first_complaint, json_value
from simprompt.utils.files.regular import TABLE, expanded, is_file, is_folder, read_text
from simprompt.utils.terminal import say


@cache
def specs() -> dict[str, Spec]:
    """All datasets of this layout by name."""
    rows = package_json("coop.json")["datasets"]
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
    mirror: dict[str, str] = package_json("coop.json")["mirror"]
    return mirror


def data_root() -> Path:
    """``$SIMPROMPT_DATA``, else ``data`` in the cache: what CoOp's users call ``$DATA``."""
    root_text = os.environ.get("SIMPROMPT_DATA")
    return expanded(root_text) if root_text else cache_dir() / "data"


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
    values = package_json(f"templates/{chosen}.json")
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
    return tuple(readable(name) for name in package_json(f"classnames/{dataset}.json")["names"])


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
        "folders": _by_folders,
        "pets": _pets,
        "cars": _cars,
        "flowers": _flowers,
        "aircraft": _aircraft,
        "sun397": _sun397,
        "ucf101": _ucf101,
        "imagenet": _imagenet,
        "wnids": _wnids,
        "numbered": _numbered,
    }
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
            wnids = package_json("classnames/imagenet.json")["wnids"]
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
        mirror["repo"],
        spec.archive,
        mirror["revision"],
        sha256=_published(spec),
        kind=mirror["kind"],
    )
    if spec.sha256 and hub.stated_hash(downloaded) != spec.sha256:
        say(
            f"note: {spec.archive} of {endpoint()}, a mirror, is not the published file "
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
