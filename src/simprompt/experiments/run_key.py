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

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.config import OWN_IMAGES, RunConfig, counted
from simprompt.data.images import READER
from simprompt.features.digests import (
    CODE,
    digest,
    item_keys,
    missing,
    of_dataset,
    of_file,
    of_model,
    safe_name,
)
from simprompt.novel import sources
from simprompt.novel.names import NovelNameError, hash_names
from simprompt.novel.spec import parse_spec, share
from simprompt.utils.devices import device_kind as kind_of
from simprompt.utils.files.cache_folders import cache_dir

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.data.dataset import Dataset
    from simprompt.data.split import Split


KEY = 12  # hex digits


@dataclass(frozen=True)
class RunKey:
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
) -> RunKey:
    """What a run depends on.

    Args:
        clip, dataset: its model and images; None for what cannot be opened, which then stands
            under its name. Such a run fails, and is another one when its content is there.
        targets: the datasets it is tested on besides its own, by name.
        base: names of the classes it learns from, which a language model is asked with.
        template: its hand-crafted prompt, wherever that is said.
        shots: the images that it learns from, of a dataset that `is_large`.
    """
    from simprompt.methods import code_digests  # needs torch

    key_parts: dict[str, Any] = {
        "code": CODE,
        "reader": READER,
        "settings": digest(_settings(config, template)),
        "method": digest(code_digests(config.method, config.options)),
        "model": missing(config.model) if clip is None else of_model(clip, glance=True),
        "dataset": missing(config.dataset) if dataset is None else of_dataset(dataset),
        "novel": digest(_novel(config, dataset.name if dataset else "", base)),
    }
    if config.sar is not None and config.sar.regulariser:
        from simprompt import regularisers

        key_parts["regulariser"] = digest(regularisers.code_of(config.sar.regulariser))
    if shots is not None:
        key_parts["shots"] = digest([item_keys(shots), shots.labels])
    if targets:
        key_parts["targets"] = [
            missing(name) if target is None else of_dataset(target) for name, target in targets
        ]
    return RunKey(config, key_parts)


# ------------------------------------------------------------------------------- settings


NAMED = (
    "model",
    "tokenizer",
    "image_size",
    "dataset",
    "targets",
    "template",
    "template_set",
    *OWN_IMAGES,
)
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


def _novel(config: RunConfig, dataset: str, base: Sequence[str]) -> dict[str, Any]:
    """The content of the novel names: of SAR's, and of those any run is measured on."""
    name = re.split("[:@]", dataset)[0]
    contents: dict[str, Any] = {"measured": _bundled(name)}
    sar = config.sar
    if sar is None or not sar.novel_count:
        return contents
    try:
        source_parts = parse_spec(sar.novel, sources.SOURCES)
        counts = share(source_parts, sar.novel_count)
    except NovelNameError:  # the run says so
        return {**contents, "aligned": sar.novel}
    aligned = []
    for source_part, count in zip(source_parts, counts, strict=True):
        settings = dict(source_part.settings)
        content: Any = None
        if source_part.source == "file":
            path = Path(settings.pop("path"))
            content = [path.suffix.lower() == ".json", of_file(path)]
        elif source_part.source == "bundled":
            content = _bundled(name)
        elif source_part.source == "llm":
            content = _asked(name, base, count, settings)
        aligned.append([source_part.source, count, settings, content])
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


_TAKEN = ("failed", "tensorboard")  # folders of a results directory that hold no runs


def folder_name(dataset: str, label: str, seed: int, key: str) -> str:
    """`icons-animals/coop+sar/seed1-0123456789ab`: a run's folder below its results directory.

    Readable, and told apart by the key alone, so that names that come out alike do not matter.
    """
    name = safe_name(dataset)
    name = f"_{name}" if name.lower() in _TAKEN else name
    return f"{name}/{safe_name(label)}/seed{seed}-{key}"
