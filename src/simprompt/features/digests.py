"""Digests of content: models, datasets, images, files; and the folders that features are kept in.

Two things with the same digest give the same numbers, wherever they are stored and whatever they
are called. A feature is stored under the digests of its model, its image file and how the image is
read; a run's key (`experiments.run_key`) is built from the same digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.data.images import READER
from simprompt.utils.cache import Memo
from simprompt.utils.files.cache_folders import cache_dir
from simprompt.utils.files.marks import Digests, Mark, is_settled, mark_of
from simprompt.utils.files.regular import WEIGHTS, expanded, open_regular

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.data.dataset import Dataset
    from simprompt.data.split import Loader, Split

CODE = 4
"""Version of everything here that turns the same inputs into numbers: reading of images,
preprocessing, draws, losses, optimisers, protocols. Raise it by hand in the commit that changes a
number of any run or feature, be it for the better: all results and features are then made again.
Not for speed, messages, or a new method or setting that leaves the others as they are."""

READ, MANY = 64 << 20, 20_000
"""Of a folder that holds at most so many bytes and files all images are read to identify a run; of
a larger one the test images and the shots only, and the digest of each is kept on disk."""

LONGEST = 40  # characters of a name in a path


def digest(value: Any) -> str:
    """SHA-256 of a plain JSON value, as hex digits; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def missing(name: str) -> str:
    """What stands for content that cannot be opened."""
    return f"missing: {name}"


def of_file(path: Path) -> str:
    """The digest of a file's bytes; of one that cannot be read, that it is missing."""
    try:
        with open_regular(path, WEIGHTS) as file:
            return _hash_file(file)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return missing(path.name)


def _hash_file(file: Any) -> str:
    sha = hashlib.sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


def of_model(clip: CLIP, *, glance: bool = False) -> str:
    """The digest of a CLIP: weights, sizes, tokenizer, preprocessing and type of its numbers.

    Args:
        glance: trust what PyTorch counts of changes in memory; see `clip.fingerprint`.
    """
    from simprompt.clip import fingerprint

    return fingerprint.of_clip(clip, glance=glance)


def of_image_tower(clip: CLIP) -> str:
    """The digest of what image features depend on in a CLIP, and in this package."""
    from simprompt.clip import fingerprint

    return fingerprint.of_tensors(clip, "visual.", lambda: {"code": CODE})


_datasets: dict[int, tuple[weakref.ref[Dataset], str]] = {}


def of_dataset(dataset: Dataset) -> str:
    """The digest of a dataset: images, labels, class names, templates, split.

    No image is decoded. Files are read; of a large folder (see `READ`) the test images only, as no
    run sees all of the others: those that it learns from are for `of_run` to add. Images that are
    no files are known by the dataset's version. Computed once for a dataset that is in memory. The
    bundled icons take no time. A million files take some seconds, and the test images among them
    are read once.
    """
    entry = _datasets.get(id(dataset))
    if entry is None or entry[0]() is not dataset:
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        value = digest(
            {
                "classes": dataset.classnames,
                "templates": dataset.templates,
                "hidden": dataset.hidden,
                "splits": {
                    name: _of_split(s, dataset.version, name == "test")
                    for name, s in splits.items()
                    if s
                },
            }
        )
        number = id(dataset)
        reference = weakref.ref(dataset, lambda _: _datasets.pop(number, None))
        entry = _datasets[number] = (reference, value)
    return entry[1]


def _of_split(split: Split, version: str, whole: bool = True) -> dict[str, Any]:
    """What a split is; `whole`: its images are known by their content in a large folder as well."""
    content = None
    if whole or not is_large(split):
        content = _contents(split.loader, split.items)
    return {
        "items": split.items,
        "labels": split.labels,
        "groups": split.groups,
        "content": version if content is None else content,
        "upright": _upright(split.loader),
    }


def is_large(split: Split) -> bool:
    """Whether the images are files below a folder that is too large to be read whole."""
    root: Path | None = getattr(split.loader, "root", None)
    stamped = getattr(split.loader, "stamp", None) is not None
    return stamped and root is not None and not _is_small_once(root)


def _upright(loader: Loader) -> bool | None:
    """How the reader turns photos: the same file gives other pixels either way."""
    return getattr(loader, "upright", None)


def item_keys(split: Split) -> list[str]:
    """What the features of each image are kept under: its item, and what stands for its file."""
    content = _contents(split.loader, split.items)
    if content is None:
        return list(split.items)
    return [f"{item}|{mark}" for item, mark in zip(split.items, content, strict=True)]


def _contents(loader: Loader, items: Sequence[str]) -> list[str] | None:
    """The digest of each image file, or what else its loader says that changes with it; None where
    the images are no files."""
    stamp: Callable[[str], str] | None = getattr(loader, "stamp", None)
    if stamp is None:
        return None
    root: Path | None = getattr(loader, "root", None)
    if root is None:
        return [stamp(item) for item in items]
    if not _is_small_once(root):
        digests_found = _digests_below(root).of(items)
        return [
            content_digest or missing(Path(item).name)
            for content_digest, item in zip(digests_found, items, strict=True)
        ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_of_image, (root / item for item in items)))


_images: Memo[tuple[str, Mark], str] = Memo(1 << 18)  # digests of files below small folders
_small: Memo[str, bool] = Memo(1 << 10)  # folders, and whether they are
_large: Memo[tuple[str, str], Digests] = Memo(1 << 6)  # of large ones, by folder and cache


def _of_image(path: Path) -> str:
    try:
        mark = mark_of(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return missing(path.name)
    if not is_settled(mark):
        return of_file(path)
    return _images.get((str(path), mark), lambda: of_file(path))


def _digests_below(root: Path) -> Digests:
    """The digests of the files below a large folder, which are kept in the cache."""
    kept_in = cache_dir() / "digests"
    return _large.get((str(root), str(kept_in)), lambda: Digests(root, kept_in, of_file))


def look_again() -> None:
    """Forget the digests of image files that this process has read. Those of large folders are
    kept on disk, see `utils.files.marks`."""
    _images.clear()
    _large.clear()
    _small.clear()


def _is_small_once(root: Path) -> bool:
    """As `_is_small`, looked at once until `look_again`: a run asks several times."""
    return _small.get(str(root), lambda: _is_small(root))


def _is_small(root: Path) -> bool:
    """Whether all files below a folder are few enough bytes to be read; looks no further."""
    total = count = 0
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
            count += 1
            if total > READ or count > MANY:
                return False
    return True


def features_folder(clip: CLIP, split: Split, views: int = 0, seed: int = 0) -> str:
    """Where a split's features stand below the folder of all features.

    Args:
        views: augmented views of each image, drawn with `seed`; 0 for the test-time crop.
    """
    about: dict[str, Any] = {"source": split.source, "upright": _upright(split.loader)}
    about |= {"reader": READER, "device": clip.device.type}
    if views:
        about |= {"views": views, "seed": seed}
    kind = f"views{views}-" if views else ""
    model = f"{safe_name(clip.name)}-{of_image_tower(clip)[:16]}"
    return f"{model}/{safe_name(split.source)}-{kind}{digest(about)[:16]}"


def stamp_of(path: str | Path) -> str:
    """Digest that changes with a checkpoint on disk: names and marks (`files.marks`) of its file
    or the files in its folder, and of files that belong to it; empty if there is no such path."""
    path_expanded = expanded(path)
    try:
        if path_expanded.is_dir():
            files = [p for p in path_expanded.iterdir() if p.is_file()]
        elif path_expanded.is_file():
            beside = ["*.json", "*.txt", "*.gz"]
            if path_expanded.suffix == ".json":  # the index of weights in several files
                beside += ["*.safetensors", "*.bin"]
            files = [
                path_expanded,
                *(p for pattern in beside for p in path_expanded.parent.glob(pattern)),
            ]
        else:
            return ""
        stats = [(p.name, *mark_of(p)) for p in sorted(files)]
    except OSError:
        return ""
    return digest(stats)


# ------------------------------------------------------------------------------- names

_RESERVED = re.compile(r"(con|prn|aux|nul|conin|conout|(com|lpt)\d)(?=\.|$)", re.IGNORECASE)


def safe_name(name: str) -> str:
    """A name of any kind as one part of a path on Windows, macOS and Linux.

    Letters and digits of any script, and `.`, `_`, `+` inside; everything else becomes a hyphen.
    Of a path that does not stand for itself (absolute, or from `~`, `.` or `..`) only the last
    part is kept. At most 40 characters, the last ones. Not unique: a key tells names apart.

    >>> safe_name("icons/animals:rehearsal"), safe_name("hf:org/name"), safe_name("../photos")
    ('icons-animals-rehearsal', 'hf-org-name', 'photos')
    """
    text = unicodedata.normalize("NFKC", name)
    segments = [p for p in re.split(r"[/\\]", text) if p.strip(". ")]
    if segments and re.match(r"[/\\~.]|[A-Za-z]:[/\\]", text):
        segments = segments[-1:]
    characters = (
        c if unicodedata.category(c)[0] in "LMN" or c in "._+" else "-" for c in "-".join(segments)
    )
    text = re.sub(r"-+", "-", "".join(characters)).strip("-._")[-LONGEST:].strip("-._")
    return f"_{text}" if _RESERVED.match(text) else text or "unnamed"
