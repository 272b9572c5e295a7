"""Many runs -> averages, and differences paired by dataset and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simprompt.evaluate import harmonic_mean, interval, mean
from simprompt.runs import Result, method_order


def _by_dataset(results: Sequence[Result], method: str) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        if result["method"] == method:
            found.setdefault(result["dataset"], []).append(result)
    return found


def averages(results: Sequence[Result]) -> dict[str, float]:
    """Means over seeds, then over datasets, of some results of one method.

    `h_of_means` is H(mean base, mean new), as published tables average; `mean_h` is the mean of
    each dataset's own H, which is lower.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["dataset"], []).append(result)
    base = mean([mean([r["base"] for r in g]) for g in groups.values()])
    new = mean([mean([r["new"] for r in g]) for g in groups.values()])
    hs = [
        harmonic_mean(mean([r["base"] for r in g]), mean([r["new"] for r in g]))
        for g in groups.values()
    ]
    return {"base": base, "new": new, "h_of_means": harmonic_mean(base, new), "mean_h": mean(hs)}


def paired(results: Sequence[Result], method: str, reference: str) -> dict[str, Any]:
    """Differences method - reference on the same dataset and seed, averaged over seeds first.

    Returns:
        For base, new and h: {"diff": mean over datasets, "ci95": [low, high] by Student's t over
        the datasets' means, "per_dataset": {...}}.
    """
    ours, theirs = _by_dataset(results, method), _by_dataset(results, reference)
    out: dict[str, Any] = {}
    for measure in ("base", "new", "h"):
        per_dataset = {}
        for dataset in ours.keys() & theirs.keys():
            other = {r["seed"]: r[measure] for r in theirs[dataset]}
            differences = [
                r[measure] - other[r["seed"]] for r in ours[dataset] if r["seed"] in other
            ]
            if differences:
                per_dataset[dataset] = mean(differences)
        values = [per_dataset[d] for d in sorted(per_dataset)]
        low, high = interval(values) if values else (float("nan"),) * 2
        finite = len(values) > 1
        out[measure] = {
            "diff": mean(values),
            "ci95": [low, high] if finite else None,
            "per_dataset": dict(sorted(per_dataset.items())),
        }
    return out


def summarise(results: Sequence[Result]) -> dict[str, Any]:
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
                    "dataset", "method", "seed", "base", "new", "h",
                    "seconds", "peak_mb", "parameters",
                )
            }
            for r in results
        ],
    }  # fmt: skip
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
