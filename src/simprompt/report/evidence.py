"""What a page shows from the files beside the results: class similarities and test images.

Everything shown is picked by a rule that is written on the page, never by hand.
"""

from __future__ import annotations

import base64
import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from simprompt.experiments.result_file import RunResult, file_of
from simprompt.experiments.summary import paired
from simprompt.report.selection import ZERO_SHOT, datasets_of, methods_of, pretty
from simprompt.report.words import learned_methods

MOST_CLASSES = 200  # a heatmap of more takes every k-th class: it would be megabytes
THUMBNAIL = 72  # pixels
EACH_KIND = 3  # images of a kind from the base classes, and as many from the new ones


@dataclass
class Similarities:
    """Class similarities of one task and seed, base classes first.

    Attributes:
        matrices: method -> cosine similarities [C, C].
        n_base: how many of the C are base classes.
        limits: colour scale shared by all, (low, high).
        step: 1, or k where only every k-th class is shown.
    """

    dataset: str
    seed: int
    matrices: dict[str, np.ndarray]
    n_base: int
    limits: tuple[float, float]
    step: int


def shown_methods(results: Sequence[RunResult]) -> list[str]:
    """Zero-shot, and the method or the pair host and host+sar that the page looks at closely."""
    baseline = [ZERO_SHOT] if ZERO_SHOT in methods_of(results) else []
    return baseline + learned_methods(results)


def similarities(results: Sequence[RunResult]) -> Similarities | None:
    """Of the task whose New difference (SAR - host) is nearest the median of all tasks.

    The lowest seed that all shown methods have; None where no task has their text features.
    """
    methods = shown_methods(results)
    runs = {(r["dataset"], r["seed"], r["method"]): r for r in results}
    for dataset in _by_typicality(results, methods):
        texts: dict[str, dict[str, np.ndarray]] = {}
        for seed in sorted({seed for d, seed, _ in runs if d == dataset}):
            runs_here = [runs.get((dataset, seed, m)) for m in methods]
            read = [r and _arrays(r, "text") for r in runs_here]
            if all(read):
                texts = {m: text for m, text in zip(methods, read, strict=True) if text}
                break
        if not texts:
            continue
        by_run = {}
        for m, text in texts.items():
            groups = [text[g] for g in ("base", "new") if g in text]
            n_base = len(groups[0])
            step = -(-sum(map(len, groups)) // MOST_CLASSES)
            rows = np.concatenate([g[::step] for g in groups]).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            by_run[m] = rows @ rows.T
        if len({len(matrix) for matrix in by_run.values()}) != 1:
            continue  # the task has changed between these runs
        off_diagonal = np.concatenate([m[~np.eye(len(m), dtype=bool)] for m in by_run.values()])
        if not len(off_diagonal):
            continue
        low, high = np.percentile(off_diagonal, [1, 99.5])
        return Similarities(
            dataset, seed, by_run, -(-n_base // step), (float(low), float(high)), step
        )
    return None


def _by_typicality(results: Sequence[RunResult], methods: Sequence[str]) -> list[str]:
    datasets = datasets_of(results)
    methods_learned = learned_methods(results)
    if len(methods_learned) < 2:
        return datasets
    gain = paired(results, methods_learned[1], methods_learned[0])["new"]["per_dataset"]
    if not gain:
        return datasets
    middle = float(np.median(list(gain.values())))
    return sorted(gain, key=lambda d: (abs(gain[d] - middle), d))


def _arrays(result: RunResult, kind: str) -> dict[str, np.ndarray] | None:
    contents = file_of(result, f"{kind}.safetensors")
    try:
        return load_safetensors(contents) if contents else None
    except SafetensorError as error:
        warnings.warn(f"{result['folder']}: {kind}.safetensors is damaged, {error}.", stacklevel=2)
        return None


@dataclass
class Shown:
    """One test image: a PNG as a data address, its true class, what each method said."""

    png: str
    dataset: str
    side: str
    truth: str
    said: list[tuple[str, str, bool]]


@dataclass
class Kind:
    """Test images on which the methods were right or wrong in one certain way."""

    title: str
    counts: dict[str, int]
    shares: dict[str, float]
    images: list[Shown] = field(default_factory=list)


@dataclass
class Images:
    """All kinds of one seed; `trouble` says what could not be shown, and why."""

    seed: int
    kinds: list[Kind] = field(default_factory=list)
    tested: dict[str, int] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


@dataclass
class _Task:
    """Labels and predictions of the shown methods on one dataset and side."""

    dataset: str
    side: str
    labels: np.ndarray
    predicted: dict[str, np.ndarray]
    names: list[str]
    limit: int | None


Loader = Callable[[str], Any]


def images(results: Sequence[RunResult], load: Loader | None = None) -> Images | None:
    """Test images drawn at random, generator seeded with 0, from each kind and side.

    Args:
        load: name -> Dataset; None: the catalogue's.

    Returns:
        None where no run keeps its predictions.
    """
    methods_learned = learned_methods(results)
    tasks, seed = _tasks(results, methods_learned)
    if not tasks:
        return None
    evidence = Images(seed)
    for side in ("base", "new"):
        evidence.tested[side] = sum(len(t.labels) for t in tasks if t.side == side)
    pictures = _Pictures(load or _catalogue)
    rng = random.Random(0)
    for title, kind_wanted in _kinds(methods_learned).items():
        kind = Kind(title, {}, {})
        for side in ("base", "new"):
            rows = [
                (t, int(i))
                for t in tasks
                if t.side == side
                for i in np.flatnonzero(_matches(t, methods_learned, kind_wanted))
            ]
            kind.counts[side] = len(rows)
            kind.shares[side] = 100 * len(rows) / max(1, evidence.tested[side])
            rng.shuffle(rows)
            count = 0
            for task, i in rows:
                if count == EACH_KIND or pictures.hopeless:
                    break
                picture = pictures.show(task, i)
                if picture:
                    kind.images.append(picture)
                    count += 1
        evidence.kinds.append(kind)
    evidence.trouble = sorted(pictures.trouble.values())
    return evidence


def _kinds(learned: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    names = [pretty(m) for m in learned]
    if len(names) == 1:
        return {f"{names[0]} right": (True,), f"{names[0]} wrong": (False,)}
    host, sar = names
    return {
        f"{host} wrong, {sar} right": (False, True),
        f"{host} right, {sar} wrong": (True, False),
        "Both right": (True, True),
        "Both wrong": (False, False),
    }


def _matches(task: _Task, learned: Sequence[str], wanted: tuple[bool, ...]) -> np.ndarray:
    fits = np.ones(len(task.labels), dtype=bool)
    for method, right in zip(learned, wanted, strict=True):
        fits &= (task.predicted[method] == task.labels) == right
    return fits


def _tasks(results: Sequence[RunResult], learned: Sequence[str]) -> tuple[list[_Task], int]:
    """Predictions at the lowest seed at which the learned methods have them on some dataset."""
    runs = {(r["dataset"], r["seed"], r["method"]): r for r in results}
    for seed in sorted({seed for _, seed, _ in runs}) if learned else ():
        tasks: list[_Task] = []
        for dataset in datasets_of(results):
            runs_here = {m: runs.get((dataset, seed, m)) for m in (ZERO_SHOT, *learned)}
            predictions = {
                m: arrays
                for m, r in runs_here.items()
                if r and (arrays := _arrays(r, "predictions"))
            }
            first_learned = runs_here[learned[0]]
            if first_learned and all(m in predictions for m in learned):
                tasks += _sides(first_learned, predictions, learned[0])
        if tasks:
            return tasks, seed
    return [], 0


def _sides(
    result: RunResult, read: dict[str, dict[str, np.ndarray]], learned: str
) -> Iterator[_Task]:
    """Base and new side of one dataset, if all methods were tested on the same images."""
    for side in ("base", "new"):
        labels = read[learned][f"{side}_labels"]
        if all(np.array_equal(arrays[f"{side}_labels"], labels) for arrays in read.values()):
            yield _Task(
                result["dataset"],
                side,
                labels,
                {m: arrays[f"{side}_predicted"] for m, arrays in read.items()},
                result["classes"][side],
                result["config"].get("max_test_per_class"),
            )


class _Pictures:
    """Loads datasets once and turns their test images into thumbnails."""

    def __init__(self, load: Loader) -> None:
        self.load = load
        self.splits: dict[str, Any] = {}
        self.trouble: dict[str, str] = {}

    @property
    def hopeless(self) -> bool:
        """Many datasets could not be loaded: do not try hundreds more."""
        return len(self.trouble) >= 5

    def show(self, task: _Task, row: int) -> Shown | None:
        try:
            split = self._split(task)
            png = thumbnail(split.load(row))
        except Exception as error:  # a page without these images is better than no page
            reason = " ".join(str(error).split()) or type(error).__name__
            self.trouble[task.dataset] = f"{task.dataset}: {reason}"
            return None
        truth = int(task.labels[row])
        answers = [
            (m, task.names[int(predicted[row])], int(predicted[row]) == truth)
            for m, predicted in task.predicted.items()
        ]
        return Shown(png, task.dataset, task.side, task.names[truth], answers)

    def _split(self, task: _Task) -> Any:
        if task.dataset in self.trouble:
            raise ValueError(self.trouble[task.dataset].partition(": ")[2])
        key = f"{task.dataset} {task.side}"
        if key not in self.splits:
            from simprompt.experiments.protocols.common import limit

            view = getattr(self.load(task.dataset), task.side)
            split = limit(view.test, task.limit)
            if list(split.labels) != task.labels.tolist():
                raise ValueError("its test images are no longer those of the runs.")
            self.splits[key] = split
        return self.splits[key]


def _catalogue(name: str) -> Any:
    from simprompt.experiments.inputs import cached_dataset

    return cached_dataset(name)


def thumbnail(image: Any) -> str:
    """A small PNG as a data address; at most 128 colours, which a photo of this size bears."""
    from PIL import Image

    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.quantize(128).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
