"""Run directories that look like real ones: made-up numbers, a dataset of drawn shapes."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from simprompt.config import SAR, RunConfig
from simprompt.data.dataset import Dataset
from simprompt.data.split import Split
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import write_run
from simprompt.metrics import harmonic_mean
from simprompt.training.state import Curves

TASKS = {"toys/birds": 12, "toys/cups": 10, "toys/hats": 15}  # of the shared fixture
TEST_IMAGES = 6  # of each class


def shape(item: str) -> Image.Image:
    """A polygon with as many corners as the class number, in a colour of the image's number."""
    label, copy = map(int, item.split("/"))
    image = Image.new("RGB", (64, 64), "white")
    rng = random.Random(copy)
    colour = tuple(rng.randrange(30, 200) for _ in range(3))
    ImageDraw.Draw(image).regular_polygon((32, 32, 26), 3 + label % 12, rng.randrange(90), colour)
    return image


def dataset(name: str, n_classes: int) -> Dataset:
    """`n_classes` classes of polygons; train is empty, for no test here trains."""
    classnames = tuple(f"{name.rpartition('/')[2]} no {i}" for i in range(n_classes))
    rows = [(f"{c}/{i}", c) for c in range(n_classes) for i in range(TEST_IMAGES)]
    test = Split(tuple(i for i, _ in rows), tuple(c for _, c in rows), classnames, shape)
    return Dataset(name, classnames, ("a picture of a {}.",), test.take([]), None, test)


def load(name: str) -> Dataset:
    """One of `TASKS`, as the catalogue would give it."""
    return dataset(name, TASKS[name])


def write_runs(
    out: Path,
    datasets: dict[str, int],
    methods: tuple[str, ...] = ("zero-shot", "coop", "coop+sar"),
    seeds: tuple[int, ...] = (1, 2, 3),
) -> list[RunResult]:
    """Runs of these methods on datasets (name -> classes), with all their files."""
    return [
        _write(out, name, n, method, seed)
        for name, n in datasets.items()
        for method in methods
        for seed in seeds
    ]


def _write(out: Path, name: str, n_classes: int, label: str, seed: int) -> RunResult:
    host, _, with_sar = label.partition("+")
    config = RunConfig(dataset=name, method=host, sar=SAR() if with_sar else None, seed=seed)
    run = RunKey(config, {"settings": config.handle})
    task = random.Random(name)
    rng = np.random.default_rng([seed, len(label), n_classes, task.randrange(1000)])
    zero = {"base": task.uniform(52, 70), "new": task.uniform(50, 68)}
    shift = {"zero-shot": (0, 0), "+sar": (13, -2)}.get("+sar" if with_sar else host, (16, -9))
    data = dataset(name, n_classes)
    measured, predictions = {}, {}
    for side, change in zip(("base", "new"), shift, strict=True):
        view = getattr(data, side)
        labels = np.array(view.test.labels, dtype=np.int16)
        goal = (zero[side] + change + rng.normal(0, 1.5)) / 100
        right = rng.random(len(labels)) < goal
        other = (labels + 1 + rng.integers(0, len(view.labels) - 1, len(labels))) % len(view.labels)
        predictions[f"{side}_labels"] = labels
        predictions[f"{side}_predicted"] = np.where(right, labels, other).astype(np.int16)
        measured[side] = 100 * float(right.mean())
        measured[f"ece_{side}"] = float(rng.uniform(2, 12))
    noise = {"zero-shot": 0.0, "+sar": 0.2}.get("+sar" if with_sar else host, 0.8)
    text = {}
    for side in ("base", "new"):
        names = getattr(data, side).classnames
        shared = np.random.default_rng(len(name)).normal(size=(len(names), 16)) + 1.2
        moved = shared + noise * rng.normal(size=shared.shape)
        text[side] = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float16)
    epochs = 20 + n_classes % 7
    falling = 2.2 * np.exp(-np.arange(epochs) / 6) + 0.3 + rng.normal(0, 0.03, epochs)
    curves = Curves(falling.tolist(), [], [2e-3] * epochs, 5 * epochs, float(rng.uniform(5, 9)))
    if with_sar:
        curves.sar = (0.3 * np.exp(-np.arange(epochs) / 5) + 0.04 + 0.2 * noise).tolist()
    if host == "zero-shot":
        curves = Curves()
    groups = ["base", "new", *(["novel"] if with_sar else [])]

    def fill(folder: Path) -> RunResult:
        save_file(predictions, str(folder / "predictions.safetensors"))
        save_file(text, str(folder / "text.safetensors"))
        (folder / "prompt.json").write_text('{"template": "a picture of a {}."}', encoding="utf-8")
        return {
            "key": run.key, "protocol": config.protocol, "dataset": name, "method": label,
            "seed": seed, **measured, "h": harmonic_mean(measured["base"], measured["new"]),
            "parameters": 0 if host == "zero-shot" else 1024, "steps": curves.steps,
            "train_seconds": curves.seconds, "seconds": curves.seconds + 1.5, "peak_mb": 812.0,
            "mechanism": {
                g: {"row_kl": noise * float(rng.uniform(0.2, 0.5)),
                    "correlation": 1 - noise * float(rng.uniform(0.2, 0.5)),
                    "drift": 1 - noise * 0.3}
                for g in groups
            },
            "curves": asdict(curves),
            "novel": {"source": "bundled", "count": 200, "overlap": ["lynx"], "sha256": "0" * 64}
            if with_sar else None,
            "classes": {"base": list(data.base.classnames), "new": list(data.new.classnames)},
            "config": config.model_dump(mode="json"),
            "environment": {"simprompt": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        }  # fmt: skip

    return write_run(out, run, fill)
