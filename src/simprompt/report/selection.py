"""Which methods, datasets and pairs there are among many runs, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simprompt.experiments.protocols import MEANING
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.store import method_order
from simprompt.experiments.summary import dataset_means, paired
from simprompt.utils.terminal import one_line

ZERO_SHOT = "zero-shot"
MEASURES = ("base", "new", "h")
AVERAGES = ("base", "new", "h_of_means", "mean_h")  # what `experiments.summary.averages` gives
USUAL = "base-to-new"

NAMES = {
    "coop": "CoOp",
    "cocoop": "CoCoOp",
    "kgcoop": "KgCoOp",
    "prograd": "ProGrad",
    "maple": "MaPLe",
    "promptsrc": "PromptSRC",
    "tcp": "TCP",
    "dept": "DePT",
    "vpt": "VPT",
    "ivlp": "IVLP",
    "vpt+text": "VPT+text",
    "language": "deep language",
    "tip-adapter": "Tip-Adapter",
    "linear-probe": "linear probe",
    "class-means": "class means",
    "means+text": "means+text",
}


def pretty(label: str) -> str:
    """A method's label as papers spell it: `coop+sar` -> `CoOp+SAR`."""
    host = label.removesuffix("+sar")
    return one_line(NAMES.get(host, host)) + ("+SAR" if label.endswith("+sar") else "")


def by_protocol(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The results of each protocol, base-to-new first: they are never averaged together."""
    names = sorted({r["protocol"] for r in results}, key=lambda name: (name != USUAL, name))
    return {name: [r for r in results if r["protocol"] == name] for name in names}


def measures_of(results: Sequence[RunResult]) -> dict[str, str]:
    """What the protocol of these results measures: key -> heading, such as {"base": "Base"}."""
    meaning = MEANING.get(results[0]["protocol"], MEANING[USUAL])
    return {m: name for m in MEASURES if (name := meaning[m]) is not None}


def methods_of(results: Sequence[RunResult]) -> list[str]:
    """Labels of the methods, zero-shot first, a method before its +sar."""
    return sorted({r["method"] for r in results}, key=method_order)


def datasets_of(results: Sequence[RunResult]) -> list[str]:
    """Names of the datasets, sorted."""
    return sorted({r["dataset"] for r in results})


def pairs_of(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """(host, host+sar) where both were run on at least one dataset and seed; CoOp first."""
    pairs_made: dict[str, set[tuple[str, int]]] = {}
    for r in results:
        pairs_made.setdefault(r["method"], set()).add((r["dataset"], r["seed"]))
    pairs = [
        (m.removesuffix("+sar"), m)
        for m in methods_of(results)
        if m.endswith("+sar") and pairs_made[m] & pairs_made.get(m.removesuffix("+sar"), set())
    ]
    return sorted(pairs, key=lambda pair: (pair[0] != "coop", pair))


def of_method(results: Sequence[RunResult], method: str) -> list[RunResult]:
    """The results of one method."""
    return [r for r in results if r["method"] == method]


def per_dataset(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """One record for each dataset and method: means over seeds and `gain` over zero-shot.

    `h` is H of the mean base and mean new accuracy.
    """
    records = []
    for dataset in datasets_of(results):
        runs_here = [r for r in results if r["dataset"] == dataset]
        for method in methods_of(runs_here):
            runs = of_method(runs_here, method)
            records.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "seeds": sorted(r["seed"] for r in runs),
                    **dataset_means(runs)[dataset],
                    "to_zero_shot": gain(runs_here, method, ZERO_SHOT),
                }
            )
    return records


def gain(results: Sequence[RunResult], method: str, reference: str) -> dict[str, Any] | None:
    """`base`, `new` and `h` of a method on one dataset minus those of a reference.

    `over` is "all runs", or "shared runs" where one has a seed that the other lacks and the
    numbers are of the seeds of both. None for the reference itself, and without a common seed.
    """
    compared = paired(results, method, reference)
    if method == reference or not compared["base"]["per_dataset"]:
        return None
    values = {m: compared[m]["diff"] for m in ("base", "new")}
    return {**values, "h": compared["h_of_means"]["diff"], "over": compared["over"]}


def to_zero_shot(results: Sequence[RunResult]) -> dict[str, dict[str, Any]]:
    """`summary.paired` of every method with zero-shot; empty where zero-shot was not run."""
    labels = methods_of(results)
    if ZERO_SHOT not in labels:
        return {}
    return {m: paired(results, m, ZERO_SHOT) for m in labels if m != ZERO_SHOT}
