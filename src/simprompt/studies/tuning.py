"""Choose settings on base classes alone: a rehearsal of base-to-new inside them.

The base classes of each dataset are split once more, into pseudo-base and pseudo-new; test images
are set aside from the shots (or, with "NAME:rehearsal-all", from all labelled images of the base
classes). Neither an image of the real new classes or of the test split nor the name of a real new
class is looked at: the dataset hides them (`data.dataset.Dataset.hidden`). A setting is chosen
jointly for all datasets by its mean score, or for each on its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from simprompt.config import RunConfig
from simprompt.data.catalogue import without_rehearsal
from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import RunResult
from simprompt.metrics import harmonic_mean
from simprompt.utils.statistics import mean

SCORES: dict[str, Callable[[float, float], float]] = {
    "base": lambda base, new: base,
    "new": lambda base, new: new,
    "h": harmonic_mean,
}


MOST_POINTS = 10_000
LONGEST_KEY = 200  # characters


def parse_grid(axes: Sequence[str]) -> list[list[str]]:
    """["lr=0.01,0.02", "sar.weight=1,2"] -> every combination, as lists of assignments.

    Raises:
        SimpromptError: an axis without values, or more than `MOST_POINTS` combinations.
    """
    values, points = [], 1
    for axis in axes:
        key, equals, listed = axis.partition("=")
        if not equals or not listed or len(key) > LONGEST_KEY:
            raise SimpromptError(f"--grid takes key=value,value,...; got {axis!r:.200}.")
        points *= listed.count(",") + 1
        if points > MOST_POINTS:  # before they take memory
            raise SimpromptError(
                f"--grid has more than {MOST_POINTS:,} combinations, which are the most that are "
                "tried. Name fewer values."
            )
        values.append([f"{key}={value}" for value in listed.split(",")])
    return [list(point) for point in itertools.product(*values)]


def scores(
    points: Sequence[Sequence[str]],
    configs: Sequence[Sequence[RunConfig]],
    results: dict[str, RunResult],
    by: str,
) -> list[dict[str, Any]]:
    """One row a grid point: mean base, new and score over datasets, and each dataset's score."""
    rows = []
    for point, runs in zip(points, configs, strict=True):
        groups: dict[str, list[RunResult]] = {}
        for config in runs:
            groups.setdefault(without_rehearsal(config.dataset), []).append(results[config.handle])
        means = {
            d: (mean([r["base"] for r in g]), mean([r["new"] for r in g]))
            for d, g in groups.items()
        }
        by_dataset = {d: SCORES[by](base, new_mean) for d, (base, new_mean) in means.items()}
        rows.append(
            {
                "point": list(point),
                "base": mean([b for b, _ in means.values()]),
                "new": mean([n for _, n in means.values()]),
                "score": mean(list(by_dataset.values())),
                "per_dataset": by_dataset,
            }
        )
    return rows


def best(rows: Sequence[dict[str, Any]], dataset: str | None = None) -> dict[str, Any]:
    """The row with the highest score, over all datasets or for one; the first of equals.

    Raises:
        SimpromptError: a dataset that gave no score, so that nothing can be chosen by it.
    """
    for row in rows:
        if silent := sorted(
            name for name, value in row["per_dataset"].items() if math.isnan(value)
        ):
            raise SimpromptError(
                f"Nothing can be chosen by {', '.join(silent)}: half of the base classes have no "
                "image to test on. Leave that out of --dataset; the runs that are made are kept."
            )

    def score(row: dict[str, Any]) -> float:
        value: float = row["score"] if dataset is None else row["per_dataset"][dataset]
        return value

    return max(rows, key=score)


def strongest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one-standard-error rule: of the points that the score cannot tell from the best, the one
    with the highest pseudo-new accuracy.

    A point is told from the best if its mean difference over datasets is more than one standard
    error of that paired difference below zero (Breiman et al. 1984 take the most regularised tree
    in the same way). With a single dataset there is no error, and this is `best`.
    """
    top = best(rows)
    names = sorted(top["per_dataset"])

    def level(row: dict[str, Any]) -> bool:
        if row is top:
            return True
        gaps = [top["per_dataset"][d] - row["per_dataset"][d] for d in names]
        if len(gaps) < 2:
            return False
        m = mean(gaps)
        variance = math.fsum((b - m) ** 2 for b in gaps) / (len(gaps) - 1)
        return m <= math.sqrt(variance / len(gaps))

    return max((row for row in rows if level(row)), key=lambda row: row["new"])
