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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.config import COMPUTED, OWN_IMAGES, RunConfig, without_defaults
from simprompt.devices import kind as kind_of
from simprompt.files.regular import WEIGHTS, expanded, open_regular
from simprompt.novel import sources
from simprompt.novel.names import NovelNameError, hash_names
from simprompt.novel.spec import parse_spec, share

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.data.dataset import Dataset, Loader, Split

CODE = 2
"""Version of everything here that turns the same inputs into numbers: reading of images,
preprocessing, draws, losses, optimisers, protocols. Raise it by hand in the commit that changes a
number of any run or feature, be it for the better: all results and features are then made again.
Not for speed, messages, or a new method or setting that leaves the others as they are."""

READ, MANY = 64 << 20, 20_000
"""Images below a folder that holds at most so many bytes and files are known by their bytes; those
of a larger one by the size and time of change of each file."""

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
) -> Identity:
    """What a run depends on.

    Args:
        clip, dataset: its model and images; None for what cannot be opened, which then stands
            under its name. Such a run fails, and is another one when its content is there.
        targets: the datasets it is tested on besides its own, by name.
        base: names of the classes it learns from, which a language model is asked with.
        template: its hand-crafted prompt, wherever that is said.
    """
    parts: dict[str, Any] = {
        "code": CODE,
        "settings": digest(_settings(config, template)),
        "model": _missing(config.model) if clip is None else of_model(clip),
        "dataset": _missing(config.dataset) if dataset is None else of_dataset(dataset),
        "novel": digest(_novel(config, dataset.name if dataset else "", base)),
    }
    if targets:
        parts["targets"] = [
            _missing(name) if target is None else of_dataset(target) for name, target in targets
        ]
    return Identity(config, parts)


def _missing(name: str) -> str:
    return f"missing: {name}"


# ------------------------------------------------------------------------------- settings


def _settings(config: RunConfig, template: str | None) -> dict[str, Any]:
    """Every setting that changes numbers, defaults written out; None does not count.

    What the settings name (model at its image size, dataset, targets, tokenizer, novel names) has
    parts of its own. Of a device its kind counts: cuda:0 and cuda:1 give the same numbers.
    """
    from simprompt import methods

    named = {"model", "tokenizer", "image_size", "dataset", "targets", "template", "template_set"}
    named |= {*OWN_IMAGES}
    values = config.model_dump(mode="json", exclude_none=True, exclude=named)
    if config.method in methods.names():
        kind = methods.find(config.method).Config
        with suppress(ValueError):  # the run says so
            values["options"] = kind(**config.options).model_dump(mode="json", exclude_none=True)
    if file := methods.own_file(config.method):
        values["method_file"] = of_file(file)
    values |= {"template": template, "device": kind_of(config.device)}
    values = without_defaults(values, COMPUTED)
    if config.sar is not None:
        values["sar"].pop("novel")
    return values


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


@cache
def _bundled(dataset: str) -> str | None:
    """The hash of a list that ships with the package; None where there is none."""
    try:
        return hash_names(sources.bundled_list(dataset)["names"])
    except NovelNameError:
        return None


def _asked(dataset: str, base: Sequence[str], count: int, settings: dict[str, str]) -> str:
    """The stored list of a language model; where it has not been asked yet, what it is asked."""
    from simprompt.files.fetch import cache_dir
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


_models: weakref.WeakKeyDictionary[CLIP, dict[str, str]] = weakref.WeakKeyDictionary()


def of_model(clip: CLIP) -> str:
    """The digest of a CLIP: weights, sizes, tokenizer, preprocessing and type of its numbers.

    Computed once a model, some two seconds a gigabyte.
    """

    def more() -> dict[str, Any]:
        tokenizer = getattr(clip.tokenizer, "fast", None)
        return {"text": asdict(clip.config.text), "tokenizer": tokenizer and tokenizer.to_str()}

    return _of_tensors(clip, "", more)


def of_image_tower(clip: CLIP) -> str:
    """The digest of what image features depend on in a CLIP, and in this package."""
    return _of_tensors(clip, "visual.", lambda: {"code": CODE})


def _of_tensors(clip: CLIP, prefix: str, more: Callable[[], dict[str, Any]]) -> str:
    """The digest of the weights whose names begin with `prefix`, of what makes their pixels, and
    of `more`."""
    known = _models.setdefault(clip, {})
    dtypes = sorted({str(p.dtype) for p in clip.parameters()})
    at = json.dumps([prefix, dtypes, asdict(clip.preprocess)])
    if at not in known:
        import torch

        sha = hashlib.sha256(at.encode())
        sha.update(digest([asdict(clip.config.vision), more()]).encode())
        for name, value in sorted(clip.state_dict().items()):
            if name.startswith(prefix):
                flat = value.detach().cpu().contiguous().reshape(-1)
                sha.update(json.dumps([name, str(value.dtype), [*value.shape]]).encode())
                sha.update(flat.view(torch.uint8).numpy().data)
        known[at] = sha.hexdigest()
    return known[at]


_datasets: dict[int, tuple[weakref.ref[Dataset], str]] = {}


def of_dataset(dataset: Dataset) -> str:
    """The digest of a dataset: images, labels, class names, templates, split.

    No image is decoded. Files are read where all of them are few bytes, else looked at for size
    and time of change; images that are no files are known by the dataset's version. Computed once
    for a dataset that is in memory. The bundled icons take no time, a million files some seconds.
    """
    known = _datasets.get(id(dataset))
    if known is None or known[0]() is not dataset:
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        value = digest(
            {
                "classes": dataset.classnames,
                "templates": dataset.templates,
                "hidden": dataset.hidden,
                "splits": {name: _of_split(s, dataset.version) for name, s in splits.items() if s},
            }
        )
        number = id(dataset)
        gone = weakref.ref(dataset, lambda _: _datasets.pop(number, None))
        known = _datasets[number] = (gone, value)
    return known[1]


def _of_split(split: Split, version: str) -> dict[str, Any]:
    content = _contents(split.loader, split.items)
    return {
        "items": split.items,
        "labels": split.labels,
        "groups": split.groups,
        "content": version if content is None else content,
        "upright": _upright(split.loader),
    }


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
    """What stands for each image file: its digest where the folder is small (see `READ`), else its
    size and time of change; None where the images are no files."""
    stamp: Callable[[str], str] | None = getattr(loader, "stamp", None)
    if stamp is None:
        return None
    root: Path | None = getattr(loader, "root", None)
    if root is None or not _is_small(root):
        return [stamp(item) for item in items]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_of_image, (root / item for item in items)))


_images: dict[tuple[str, int, int], str] = {}  # digests by path, size, time of change


def _of_image(path: Path) -> str:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return _missing(path.name)
    stamp = (str(path), stat.st_size, stat.st_mtime_ns)
    if stamp not in _images:
        _images[stamp] = of_file(path)
    return _images[stamp]


def look_again() -> None:
    """Forget the digests of image files; a change that keeps size and time is seen only then."""
    _images.clear()


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
    if views:
        made |= {"views": views, "seed": seed}
    kind = f"views{views}-" if views else ""
    model = f"{safe_name(clip.name)}-{of_image_tower(clip)[:16]}"
    return f"{model}/{safe_name(split.source)}-{kind}{digest(made)[:16]}"


def stamp_of(path: str | Path) -> str:
    """Changes with a checkpoint on disk: names, sizes and times of its file or folder, and of what
    may lie beside it; empty where there is no such path."""
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
        stats = [(p.name, s.st_size, s.st_mtime_ns) for p in sorted(files) for s in [p.stat()]]
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
