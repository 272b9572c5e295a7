"""What a run or a feature depends on, by content; its key, and the folder it is kept in.

A run is known by what its numbers depend on, not by what things are called: the weights, tokenizer
and preprocessing of the model; the items, labels, class names and templates of the dataset and of
those it is tested on; the novel names; every setting that changes numbers; and `CODE`. A digest
stands for each; the key is a digest of all. So a checkpoint, a photo or a word file that is
replaced at the same path makes another run, and the same content under another path the same one.

Here stands no setting that changes no number (paths, data roots, batch sizes of extraction), and
no version of torch or Python: a result says which they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.config import OWN_IMAGES, RunConfig, counted
from simprompt.data.images import READER
from simprompt.devices import kind as kind_of
from simprompt.files.fetch import cache_dir
from simprompt.files.marks import Digests, Mark, is_settled, mark_of
from simprompt.files.regular import WEIGHTS, expanded, open_regular
from simprompt.memo import Memo
from simprompt.novel import sources
from simprompt.novel.names import NovelNameError, hash_names
from simprompt.novel.spec import parse_spec, share

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.data.dataset import Dataset, Loader, Split

CODE = 3
"""Version of everything here that turns the same inputs into numbers: reading of images,
preprocessing, draws, losses, optimisers, protocols. Raise it by hand in the commit that changes a
number of any run or feature, be it for the better: all results and features are then made again.
Not for speed, messages, or a new method or setting that leaves the others as they are."""

READ, MANY = 64 << 20, 20_000
"""Of a folder that holds at most so many bytes and files all images are read to identify a run; of
a larger one the test images and the shots only, and the digest of each is kept on disk."""

LONGEST = 40  # characters of a name in a path
KEY = 12  # hex digits


@dataclass(frozen=True)
class Identity:
    """A run's settings and what they stand for at this moment.

    Attributes:
        config: the settings.
        parts: what the run depends on, by name: plain JSON values, most of them digests. They are
            kept with the result, so that one can see why a run was made again.
    """

    config: RunConfig
    parts: dict[str, Any] = field(repr=False)

    @cached_property
    def key(self) -> str:
        """Twelve hex digits that stand for all parts."""
        return digest(self.parts)[:KEY]

    @property
    def folder(self) -> str:
        """Where this run's files stand below its results directory."""
        return folder_name(self.config.dataset, self.config.label, self.config.seed, self.key)


def of_run(
    config: RunConfig,
    clip: CLIP | None,
    dataset: Dataset | None,
    targets: Sequence[tuple[str, Dataset | None]] = (),
    base: Sequence[str] = (),
    template: str | None = None,
    shots: Split | None = None,
) -> Identity:
    """What a run depends on.

    Args:
        clip, dataset: its model and images; None for what cannot be opened, which then stands
            under its name. Such a run fails, and is another one when its content is there.
        targets: the datasets it is tested on besides its own, by name.
        base: names of the classes it learns from, which a language model is asked with.
        template: its hand-crafted prompt, wherever that is said.
        shots: the images that it learns from, of a dataset that `is_large`.
    """
    parts: dict[str, Any] = {
        "code": CODE,
        "reader": READER,
        "settings": digest(_settings(config, template)),
        "method": digest(of_method(config.method, config.options)),
        "model": _missing(config.model) if clip is None else of_model(clip, glance=True),
        "dataset": _missing(config.dataset) if dataset is None else of_dataset(dataset),
        "novel": digest(_novel(config, dataset.name if dataset else "", base)),
    }
    if shots is not None:
        parts["shots"] = digest([item_keys(shots), shots.labels])
    if targets:
        parts["targets"] = [
            _missing(name) if target is None else of_dataset(target) for name, target in targets
        ]
    return Identity(config, parts)


def _missing(name: str) -> str:
    return f"missing: {name}"


# ------------------------------------------------------------------------------- settings


NAMED = (
    "model", "tokenizer", "image_size", "dataset", "targets", "template", "template_set",
    *OWN_IMAGES,
)  # fmt: skip
"""Settings that name what has a part of its own in a run's identity."""


def _settings(config: RunConfig, template: str | None) -> dict[str, Any]:
    """Every setting that changes numbers, defaults written out; see `config.counted` for those
    that do not count.

    Of a device its kind counts: cuda:0 and cuda:1 give the same numbers.
    """
    from simprompt import methods

    values = {name: value for name, value in counted(config).items() if name not in NAMED}
    if config.method in methods.names():
        kind = methods.find(config.method).Config
        with suppress(ValueError):  # the run says so
            values["options"] = counted(kind(**config.options))
    values["template"] = template
    if "device" in values:
        values["device"] = kind_of(config.device)
    if config.sar is not None:
        values["sar"].pop("novel")
    return values


def of_method(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The code of a method (see `methods.code`) and of every other one that its settings name, by
    name: of a host and of the host's host."""
    from simprompt import methods

    known = {*methods.names()}
    found: dict[str, str] = {}

    def visit(name: str, options: Mapping[str, Any]) -> None:
        if name not in known or name in found:
            return
        found[name] = methods.code_of(name)
        values = {**options}
        with suppress(Exception):  # whatever is wrong with its file or settings, the run says so
            kind = methods.find(name).Config
            values = kind().model_dump() | kind(**options).model_dump()
        for text in _texts(values):
            visit(text, {})

    visit(name, options)
    return found


def _texts(value: Any) -> Iterator[str]:
    """All texts that are values in plain JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _novel(config: RunConfig, dataset: str, base: Sequence[str]) -> dict[str, Any]:
    """The content of the novel names: of SAR's, and of those any run is measured on."""
    name = re.split("[:@]", dataset)[0]
    contents: dict[str, Any] = {"measured": _bundled(name)}
    sar = config.sar
    if sar is None or not sar.novel_count:
        return contents
    try:
        parts = parse_spec(sar.novel, sources.SOURCES)
        counts = share(parts, sar.novel_count)
    except NovelNameError:  # the run says so
        return {**contents, "aligned": sar.novel}
    aligned = []
    for part, count in zip(parts, counts, strict=True):
        settings = dict(part.settings)
        content: Any = None
        if part.source == "file":
            path = Path(settings.pop("path"))
            content = [path.suffix.lower() == ".json", of_file(path)]
        elif part.source == "bundled":
            content = _bundled(name)
        elif part.source == "llm":
            content = _asked(name, base, count, settings)
        aligned.append([part.source, count, settings, content])
    return {**contents, "aligned": aligned}


@lru_cache(256)
def _bundled(dataset: str) -> str | None:
    """The hash of a list that ships with the package; None where there is none."""
    try:
        return hash_names(sources.bundled_list(dataset)["names"])
    except NovelNameError:
        return None


def _asked(dataset: str, base: Sequence[str], count: int, settings: dict[str, str]) -> str:
    """The stored list of a language model; where it has not been asked yet, what it is asked."""
    from simprompt.novel import llm

    topic = sources.topic_of(dataset)
    request = sources.Request(tuple(base), topic, count, dataset=dataset, settings=settings)
    try:
        path = llm.stored_path(base, topic, count, llm.settings(request), cache_dir() / "novel")
    except NovelNameError:  # the run says so
        return "no such settings"
    return of_file(path) if path.is_file() else path.name


# ------------------------------------------------------------------------------- content


def digest(value: Any) -> str:
    """SHA-256 of a plain JSON value, as hex digits; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def of_file(path: Path) -> str:
    """The digest of a file's bytes; of one that cannot be read, that it is missing."""
    try:
        with open_regular(path, WEIGHTS) as file:
            return _hash_file(file)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return _missing(path.name)


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
    known = _datasets.get(id(dataset))
    if known is None or known[0]() is not dataset:
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
        gone = weakref.ref(dataset, lambda _: _datasets.pop(number, None))
        known = _datasets[number] = (gone, value)
    return known[1]


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
        found = _digests_below(root).of(items)
        return [one or _missing(Path(item).name) for one, item in zip(found, items, strict=True)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_of_image, (root / item for item in items)))


_images: Memo[tuple[str, Mark], str] = Memo(1 << 18)  # digests of files below small folders
_small: Memo[str, bool] = Memo(1 << 10)  # folders, and whether they are
_large: Memo[tuple[str, str], Digests] = Memo(1 << 6)  # of large ones, by folder and cache


def _of_image(path: Path) -> str:
    try:
        mark = mark_of(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return _missing(path.name)
    if not is_settled(mark):
        return of_file(path)
    return _images.get((str(path), mark), lambda: of_file(path))


def _digests_below(root: Path) -> Digests:
    """The digests of the files below a large folder, which are kept in the cache."""
    kept_in = cache_dir() / "digests"
    return _large.get((str(root), str(kept_in)), lambda: Digests(root, kept_in, of_file))


def look_again() -> None:
    """Forget the digests of image files that this process has read. Those of large folders are
    kept on disk, see `files.marks`."""
    _images.clear()
    _large.clear()
    _small.clear()


def _is_small_once(root: Path) -> bool:
    """As `_is_small`, looked at once until `look_again`: a run asks several times."""
    return _small.get(str(root), lambda: _is_small(root))


def _is_small(root: Path) -> bool:
    """Whether all files below a folder are few enough bytes to be read; looks no further."""
    total = count = 0
    for place, _, files in os.walk(root):
        for name in files:
            try:
                total += os.stat(os.path.join(place, name)).st_size
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
    made: dict[str, Any] = {"source": split.source, "upright": _upright(split.loader)}
    made |= {"reader": READER, "device": clip.device.type}
    if views:
        made |= {"views": views, "seed": seed}
    kind = f"views{views}-" if views else ""
    model = f"{safe_name(clip.name)}-{of_image_tower(clip)[:16]}"
    return f"{model}/{safe_name(split.source)}-{kind}{digest(made)[:16]}"


def stamp_of(path: str | Path) -> str:
    """Changes with a checkpoint on disk: names and marks (`files.marks`) of its file or the files
    in its folder, and of what may lie beside it; empty where there is no such path."""
    place = expanded(path)
    try:
        if place.is_dir():
            files = [p for p in place.iterdir() if p.is_file()]
        elif place.is_file():
            beside = ["*.json", "*.txt", "*.gz"]
            if place.suffix == ".json":  # the index of weights in several files
                beside += ["*.safetensors", "*.bin"]
            files = [place, *(p for pattern in beside for p in place.parent.glob(pattern))]
        else:
            return ""
        stats = [(p.name, *mark_of(p)) for p in sorted(files)]
    except OSError:
        return ""
    return digest(stats)


# ------------------------------------------------------------------------------- names

_RESERVED = re.compile(r"(con|prn|aux|nul|conin|conout|(com|lpt)\d)(?=\.|$)", re.IGNORECASE)
_TAKEN = ("failed", "tensorboard")  # folders of a results directory that hold no runs


def folder_name(dataset: str, label: str, seed: int, key: str) -> str:
    """`icons-animals/coop+sar/seed1-0123456789ab`: a run's folder below its results directory.

    Readable, and told apart by the key alone, so that names that come out alike do not matter.
    """
    name = safe_name(dataset)
    name = f"_{name}" if name.lower() in _TAKEN else name
    return f"{name}/{safe_name(label)}/seed{seed}-{key}"


def safe_name(name: str) -> str:
    """A name of any kind as one part of a path on Windows, macOS and Linux.

    Letters and digits of any script, and `.`, `_`, `+` inside; everything else becomes a hyphen.
    Of a path that does not stand for itself (absolute, or from `~`, `.` or `..`) only the last
    part is kept. At most 40 characters, the last ones. Not unique: a key tells names apart.

    >>> safe_name("icons/animals:rehearsal"), safe_name("hf:org/name"), safe_name("../photos")
    ('icons-animals-rehearsal', 'hf-org-name', 'photos')
    """
    text = unicodedata.normalize("NFKC", name)
    parts = [p for p in re.split(r"[/\\]", text) if p.strip(". ")]
    if parts and re.match(r"[/\\~.]|[A-Za-z]:[/\\]", text):
        parts = parts[-1:]
    kept = (
        c if unicodedata.category(c)[0] in "LMN" or c in "._+" else "-" for c in "-".join(parts)
    )
    text = re.sub(r"-+", "-", "".join(kept)).strip("-._")[-LONGEST:].strip("-._")
    return f"_{text}" if _RESERVED.match(text) else text or "unnamed"
