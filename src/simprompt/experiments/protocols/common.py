"""What all protocols share: learn on some shots, let the protocol test, write one run.

A protocol says what is learned from and how what was learned is tested. A run is made in three
steps, `prepare`, `train` and `finish`: `run` takes them for one run, and a sweep may train several
prepared runs together between the first step and the last.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset, View
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs
from simprompt.metrics import (
    accuracy,
    calibration_error,
    class_accuracies,
    harmonic_mean,
    macro_accuracy,
)
from simprompt.prompt.prompt import Prompt


@dataclass
class Tested:
    """What a protocol found out about a prompt.

    Attributes:
        groups: class names by group; their relations to the hand-crafted ones are measured. The
            first group is what was learned from.
        measures: numbers for the result: accuracies and calibration errors in percent, and
            whatever else the protocol knows.
        predictions: what `predictions.safetensors` holds.
    """

    groups: dict[str, tuple[str, ...]]
    measures: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)

    def add(self, side: str, probabilities: Tensor, labels: Tensor) -> None:
        """Accuracy, calibration error and predictions of one side's images: [N, C] and [N].

        The accuracy is over images (micro); `macro_SIDE` is over classes, each counted alike, and
        `by_class` has [images, images that are right] of each of the C names.
        """
        self.measures[side] = accuracy(probabilities, labels)
        self.measures[f"macro_{side}"] = macro_accuracy(probabilities, labels)
        self.measures[f"ece_{side}"] = calibration_error(probabilities, labels)
        self.measures.setdefault("by_class", {})[side] = [
            [count, round(percent * count / 100) if count else 0]
            for percent, count in class_accuracies(probabilities, labels)
        ]
        self.predictions[f"{side}_labels"] = labels.short()
        self.predictions[f"{side}_predicted"] = probabilities.argmax(-1).short()

    def add_nothing(self, side: str) -> None:
        """A side that this method or protocol has no answer for."""
        for name in (side, f"macro_{side}", f"ece_{side}"):
            self.measures[name] = math.nan


@dataclass(frozen=True)
class Protocol:
    """What a protocol is.

    Attributes:
        learn_from: the classes whose few-shot draw is learned from.
        test: measures what was learned.
        targets: names of the datasets it is tested on besides its own. A rehearsal takes no such
            protocol: what is to be tested may not be seen while settings are chosen.
    """

    learn_from: Callable[[Dataset], View]
    test: Callable[[Prompt, Dataset, RunConfig], Tested]
    targets: tuple[str, ...] = ()


def transfer(prompt: Prompt, data: Dataset, config: RunConfig, targets: tuple[str, ...]) -> Tested:
    """Test on the dataset's own images, then on each target's among the target's class names.

    `base` is the accuracy on the source, `targets` that on each target, `new` the mean over the
    targets, as published tables average.
    """
    if not prompt.learner.new_classes:
        raise SimpromptError(
            f"{config.method} is a classifier of the classes it was trained on; the protocol "
            f"{config.protocol} asks for other names. Use a prompt method."
        )
    tested = Tested({"base": data.all.classnames})
    test_side(tested, "base", prompt, data.all.test, config)
    accuracies: dict[str, float] = {}
    errors: dict[str, float] = {}
    macros: dict[str, float] = {}
    for name in targets:
        target = inputs.cached_dataset(name)
        test_side(tested, name, prompt, target.all.test, config)
        accuracies[name] = tested.measures.pop(name)
        errors[name] = tested.measures.pop(f"ece_{name}")
        macros[name] = tested.measures.pop(f"macro_{name}")
    tested.measures["new"] = math.fsum(accuracies.values()) / len(accuracies)
    tested.measures["ece_new"] = math.fsum(errors.values()) / len(errors)
    tested.measures["h"] = harmonic_mean(tested.measures["base"], tested.measures["new"])
    tested.measures |= {"targets": accuracies, "ece_targets": errors, "macro_targets": macros}
    return tested


def test_side(tested: Tested, side: str, prompt: Prompt, split: Split, config: RunConfig) -> None:
    """Test a prompt on a split among the split's class names."""
    split = limit(split, config.max_test_per_class)
    tested.add(side, prompt.probabilities(split), torch.tensor(split.labels))


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
    return split.take(sorted(rows))
