"""Many runs -> averages, and differences paired by dataset and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.store import method_order
from simprompt.metrics import harmonic_gradient, harmonic_mean
from simprompt.utils.statistics import interval, mean, t_test, two_level_interval


def dataset_means(results: Iterable[RunResult]) -> dict[str, dict[str, float]]:
    """Dataset -> base and new averaged over the runs on it, and h, the H of these two means."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result["dataset"], []).append(result)
    means = {}
    for dataset, runs in sorted(groups.items()):
        base, new_mean = (mean([r[side] for r in runs]) for side in ("base", "new"))
        means[dataset] = {"base": base, "new": new_mean, "h": harmonic_mean(base, new_mean)}
    return means


def averages(results: Sequence[RunResult]) -> dict[str, float]:
    """Means over seeds, then over datasets, of some results of one method.

    `h_of_means` is H(mean base, mean new), as published tables average; `mean_h` is the mean of
    each dataset's own H, which is lower.
    """
    rows = dataset_means(results).values()
    base, new_mean, h = (mean([row[m] for row in rows]) for m in ("base", "new", "h"))
    return {"base": base, "new": new_mean, "h_of_means": harmonic_mean(base, new_mean), "mean_h": h}


def paired(results: Sequence[RunResult], method: str, reference: str) -> dict[str, Any]:
    """The averages of a method minus those of a reference, over the datasets and seeds of both.

    Returns:
        For each key of `averages`:

        - "method", "reference": the two averages; "diff": the first minus the second
        - "ci95": [low, high] around diff, Student's t over datasets; None for fewer than two
        - "p": two-sided, of the same t; None likewise
        - "per_dataset": the difference on each, of which diff is the mean. There is none for
          h_of_means, which is no mean over datasets.

        And "over": "all runs", or "shared runs" where one side has a dataset or seed that the
        other lacks, so that diff is not the difference of the averages of all runs.

        The interval of h_of_means is by the delta method (Casella & Berger 2002, 5.5.4): H is
        taken as linear around the mean accuracies, so that each dataset adds its own part.
    """
    runs = {m: [r for r in results if r["method"] == m] for m in (method, reference)}
    pairs = {m: {(r["dataset"], r["seed"]) for r in runs[m]} for m in runs}
    shared = pairs[method] & pairs[reference]
    compared = {m: [r for r in runs[m] if (r["dataset"], r["seed"]) in shared] for m in runs}
    ours, theirs = averages(compared[method]), averages(compared[reference])
    rows, other_rows = (dataset_means(compared[m]) for m in (method, reference))
    out: dict[str, Any] = {
        "over": "all runs" if shared == pairs[method] == pairs[reference] else "shared runs"
    }
    for measure, key in (("base", "base"), ("new", "new"), ("h_of_means", ""), ("mean_h", "h")):
        if key:
            differences = {d: rows[d][key] - other_rows[d][key] for d in rows}
        else:
            our_parts, other_parts = _parts_of_h(ours, rows), _parts_of_h(theirs, other_rows)
            differences = {d: our_parts[d] - other_parts[d] for d in our_parts}
        out[measure] = {
            "method": ours[measure],
            "reference": theirs[measure],
            "diff": ours[measure] - theirs[measure],
            **_over_datasets([*differences.values()]),
            **({"per_dataset": differences} if key else {}),
        }
    return out


def _over_datasets(differences: Sequence[float]) -> dict[str, Any]:
    if len(differences) < 2:
        return {"ci95": None, "p": None}
    return {"ci95": list(interval(differences)), "p": t_test(differences)}


def interval_with_seeds(
    results: Sequence[RunResult], method: str, reference: str, measure: str = "h_of_means"
) -> tuple[float, float]:
    """95% interval of a difference of two averages that speaks of other tasks and of other seeds,
    over the runs that both methods have.

    Args:
        measure: a key of `averages`.
    """
    by_run = {(r["dataset"], r["seed"], r["method"]): r for r in results}
    tasks: dict[str, list[tuple[RunResult, RunResult]]] = {}
    for (dataset, seed, label), result in sorted(by_run.items(), key=lambda item: item[0]):
        other = by_run.get((dataset, seed, reference))
        if label == method and other is not None:
            tasks.setdefault(dataset, []).append((result, other))

    def difference(groups: Sequence[Sequence[tuple[RunResult, RunResult]]]) -> float:
        averaged = []
        for side in (0, 1):
            rows = [
                [mean([pair[side][half] for pair in group]) for half in ("base", "new")]
                for group in groups
            ]
            base, new = (mean([row[i] for row in rows]) for i in (0, 1))
            averaged.append(
                {
                    "base": base,
                    "new": new,
                    "h_of_means": harmonic_mean(base, new),
                    "mean_h": mean([harmonic_mean(*row) for row in rows]),
                }[measure]
            )
        return averaged[0] - averaged[1]

    return two_level_interval([*tasks.values()], difference, samples=1000)


def _parts_of_h(means: dict[str, float], rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """What each dataset adds to the H of the means, to first order; their mean is that H."""
    of_base, of_new = harmonic_gradient(means["base"], means["new"])
    return {d: of_base * row["base"] + of_new * row["new"] for d, row in rows.items()}


def summarise(results: Sequence[RunResult]) -> dict[str, Any]:
    """One JSON document of many runs: averages, paired differences, the runs themselves."""
    labels = sorted({r["method"] for r in results}, key=method_order)
    with_sar = [label for label in labels if label.endswith("+sar")]
    pairs = {s: s.removesuffix("+sar") for s in with_sar if s.removesuffix("+sar") in labels}
    document: dict[str, Any] = {
        "methods": {m: averages([r for r in results if r["method"] == m]) for m in labels},
        "paired": {},
        "to_zero_shot": {},
        "runs": [
            {
                key: r[key]
                for key in (
                    "dataset",
                    "method",
                    "seed",
                    "base",
                    "new",
                    "h",
                    "seconds",
                    "peak_mb",
                    "parameters",
                )
            }
            for r in results
        ],
    }
    if len(pairs) == 1:
        document["paired"] = paired(results, *next(iter(pairs.items())))
    else:
        document["paired"] = {host: paired(results, s, host) for s, host in pairs.items()}
    if "zero-shot" in labels:
        document["to_zero_shot"] = {
            m: paired(results, m, "zero-shot") for m in labels if m != "zero-shot"
        }
    return document


def finite(value: Any) -> Any:
    """A document as JSON can hold it: NaN (the New of a classifier of base classes) and infinity
    become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
