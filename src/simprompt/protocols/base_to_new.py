"""Base-to-new: learn from base shots, test base images among base names, new among new names."""

from __future__ import annotations

import platform
import random
import time
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from simprompt import __version__
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.config import RunConfig
from simprompt.data import catalogue
from simprompt.data.dataset import Dataset, Split
from simprompt.evaluate import accuracy, calibration_error, harmonic_mean
from simprompt.mechanism import relations
from simprompt.memory import peak_mb, reset_peak
from simprompt.methods.teacher import teacher_features
from simprompt.prompt import Prompt, learn
from simprompt.protocols.tuning import REHEARSAL
from simprompt.runs import Result, write_run

# a process that makes many runs loads each model and dataset once
cached_clip = lru_cache(maxsize=2)(load_clip)


@lru_cache(maxsize=4)
def cached_dataset(name: str) -> Dataset:
    """A dataset of the catalogue, or the rehearsal inside its base classes ("NAME:rehearsal")."""
    data = catalogue.load(name.removesuffix(REHEARSAL))
    return data.base.rehearsal() if name.endswith(REHEARSAL) else data



def run(config: RunConfig, out: Path, data: Dataset | None = None) -> Result:
    """Make one run and write it below `out`; returns its result.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    torch.set_num_threads(config.threads)
    clip = cached_clip(config.model)
    data = data or cached_dataset(config.dataset)

    def fill(folder: Path) -> Result:
        return _measure(config, clip, data, folder)

    return write_run(out, config, fill)


def _measure(config: RunConfig, clip: CLIP, data: Dataset, folder: Path) -> Result:
    reset_peak()
    started = time.perf_counter()
    prompt = learn(
        clip,
        data.base.few_shot(config.training.shots, config.seed),
        config.method,
        config.sar,
        options=config.options,
        training=config.training,
        template=config.template,
        seed=config.seed,
    )
    assert prompt.curves is not None
    measured: dict[str, Any] = {}
    predictions: dict[str, Tensor] = {}
    for side, view in (("base", data.base), ("new", data.new)):
        split = limit(view.test, config.max_test_per_class)
        labels = torch.tensor(split.labels)
        probabilities = prompt.probabilities(split)
        measured[side] = accuracy(probabilities, labels)
        measured[f"ece_{side}"] = calibration_error(probabilities, labels)
        predictions[f"{side}_labels"] = labels.short()
        predictions[f"{side}_predicted"] = probabilities.argmax(-1).short()
    save_file(predictions, str(folder / "predictions.safetensors"))
    prompt.save(folder / "prompt")
    novel = prompt.novel
    return {
        "key": config.key,
        "protocol": config.protocol,
        "dataset": config.dataset,
        "method": config.label,
        "seed": config.seed,
        **measured,
        "h": harmonic_mean(measured["base"], measured["new"]),
        "parameters": prompt.learner.parameter_count(),
        "steps": prompt.curves.steps,
        "train_seconds": prompt.curves.seconds,
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_mb(),
        "mechanism": _mechanism(prompt, data, folder),
        "curves": asdict(prompt.curves),
        "novel": None
        if novel is None
        else {
            "source": novel.source,
            "count": len(novel),
            "overlap": list(novel.overlap),
            "sha256": novel.sha256,
        },
        "classes": {"base": list(data.base.classnames), "new": list(data.new.classnames)},
        "config": config.model_dump(mode="json"),
        "environment": environment(),
    }


def _mechanism(prompt: Prompt, data: Dataset, folder: Path) -> dict[str, dict[str, float]]:
    """Similarity of learned to hand-crafted relations on base, novel and true new classes."""
    groups = {"base": data.base.classnames, "new": data.new.classnames}
    if prompt.card["novel"]:
        groups["novel"] = tuple(prompt.card["novel"])
    tau = (prompt.card["sar"] or {}).get("temperature", 0.01)
    learned = {g: prompt.text_features(names) for g, names in groups.items()}
    template = [prompt.card["template"]]
    save_file(
        {g: learned[g].half().contiguous() for g in ("base", "new")},
        str(folder / "text.safetensors"),
    )
    return {
        g: relations(learned[g], teacher_features(prompt.clip, template, names), tau)
        for g, names in groups.items()
    }


def limit(split: Split, per_class: int | None) -> Split:
    """At most `per_class` images of each class, a fixed random choice; all of them for None."""
    if per_class is None:
        return split
    rng = random.Random(0)
    rows = [
        row
        for rows in split.rows_by_label().values()
        for row in (rng.sample(rows, per_class) if len(rows) > per_class else rows)
    ]
    return replace(split.take(sorted(rows)))


def environment() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "simprompt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
