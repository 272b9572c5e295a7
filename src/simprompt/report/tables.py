"""Many runs -> tables, and all of them as one text in any of five formats."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from simprompt.report import table as tabular
from simprompt.report import words
from simprompt.report.selection import (
    MEASURES,
    ZERO_SHOT,
    datasets_of,
    methods_of,
    of_method,
    pairs_of,
    per_dataset,
    pretty,
    to_zero_shot,
)
from simprompt.report.table import Column, Table
from simprompt.runs import Result, averages, paired, summarise


def average_table(results: Sequence[Result]) -> Table:
    """Each method averaged over the datasets, both ways, and its difference to zero-shot."""
    datasets = datasets_of(results)
    table = Table(
        f"Average over {len(datasets)} {'tasks' if len(datasets) > 1 else 'task'}",
        [
            Column("Method"), Column("Base", "percent"), Column("New", "percent"),
            Column("H of means", "percent"), Column("Mean of H", "percent"),
            Column("Δ Base", "difference"), Column("Δ New", "difference"),
            Column("Δ H", "difference"), Column("Tasks", "count"), Column("Runs", "count"),
        ],
        note="Accuracy in percent, means over seeds, then over tasks. H of means = H(mean Base, "
        "mean New), as published tables average; Mean of H = mean of each task's own H. "
        "Δ: the method minus zero-shot, task by task and seed by seed, then averaged.",
    )  # fmt: skip
    to_zero = to_zero_shot(results)
    rows = []
    for method in methods_of(results):
        runs = of_method(results, method)
        a = averages(runs)
        differences = [to_zero[method][m]["diff"] if method in to_zero else None for m in MEASURES]
        rows.append(
            [pretty(method), a["base"], a["new"], a["h_of_means"], a["mean_h"], *differences,
             len(datasets_of(runs)), len(runs)]
        )  # fmt: skip
    table.add_group(rows, compare=(1, 2, 3, 4))
    return table


def dataset_table(results: Sequence[Result], numbered: bool = False) -> Table:
    """Each dataset and method; `numbered` puts the dataset's number, as plots use it, first."""
    table = Table(
        "Each task",
        [
            Column("Task"), Column("Method"), Column("Base", "percent"), Column("New", "percent"),
            Column("H", "percent"), Column("Δ Base", "difference"), Column("Δ New", "difference"),
            Column("Δ H", "difference"), Column("Seeds", "count"),
        ],
        note="Accuracy in percent, means over seeds; H of the two means. Δ: minus zero-shot.",
    )  # fmt: skip
    records = per_dataset(results)
    for number, dataset in enumerate(datasets_of(results), 1):
        rows = []
        for r in records:
            if r["dataset"] == dataset:
                delta = r["to_zero_shot"] or dict.fromkeys(MEASURES)
                rows.append(
                    [f"{number} {dataset}" if numbered else dataset, pretty(r["method"]),
                     r["base"], r["new"], r["h"], *(delta[m] for m in MEASURES), len(r["seeds"])]
                )  # fmt: skip
        table.add_group(rows, compare=(2, 3, 4))
    return table


def paired_table(results: Sequence[Result]) -> Table | None:
    """SAR minus its host for Base, New and H, with the 95% interval; None without such pairs."""
    table = Table(
        "What SAR changes",
        [
            Column("Difference"), Column("In"), Column("Mean", "difference"),
            Column("95% interval", "interval"), Column("Tasks better"),
        ],
        note="Paired by task and seed, averaged over seeds first; the interval is Student's t over "
        "the tasks' means, so it speaks of other tasks like these, not of other seeds.",
    )  # fmt: skip
    for host, sar in pairs_of(results):
        found = paired(results, sar, host)
        rows = []
        for measure in MEASURES:
            values = list(found[measure]["per_dataset"].values())
            rows.append(
                [f"{pretty(sar)} − {pretty(host)}",
                 measure.upper() if measure == "h" else measure.capitalize(),
                 found[measure]["diff"], found[measure]["ci95"],
                 f"{sum(v > 0 for v in values)} of {len(values)}"]
            )  # fmt: skip
        table.add_group(rows)
    return table if table.rows else None


def seed_table(results: Sequence[Result]) -> Table:
    """Every run by itself."""
    table = Table(
        "Each run",
        [
            Column("Task"), Column("Method"), Column("Seed", "count"), Column("Base", "percent"),
            Column("New", "percent"), Column("H", "percent"), Column("ECE base", "percent"),
            Column("ECE new", "percent"), Column("Seconds", "number"),
        ],
        note="ECE: expected calibration error in percent. H: of this run's Base and New.",
    )  # fmt: skip
    for dataset in datasets_of(results):
        table.add_group(
            [
                [dataset, pretty(r["method"]), r["seed"], r["base"], r["new"], r["h"],
                 r.get("ece_base"), r.get("ece_new"), r.get("seconds")]
                for r in results
                if r["dataset"] == dataset
            ]
        )  # fmt: skip
    return table


def tables(results: Sequence[Result], per_seed: bool = False) -> list[Table]:
    """What `simprompt table` prints, averages last, where a terminal leaves the eye."""
    found = [dataset_table(results), average_table(results), paired_table(results)]
    if per_seed:
        found.insert(0, seed_table(results))
    return [t for t in found if t is not None]


def text(results: Sequence[Result]) -> str:
    """All tables as aligned plain text, as `simprompt run` and `demo` print them."""
    return written(tables(results), "text")


def written(found: Sequence[Table], format: str, digits: int = 1) -> str:
    """Tables one below the other as "text", "markdown" or "latex"."""
    write = {"text": tabular.text, "markdown": tabular.markdown, "latex": tabular.latex}[format]
    return "\n\n".join(write(t, digits) for t in found)


CSV_COLUMNS = (
    "row", "dataset", "method", "reference", "seed", "base", "new", "h", "h_of_means", "mean_h",
    "base_low", "base_high", "new_low", "new_high", "h_low", "h_high",
)  # fmt: skip


def as_csv(results: Sequence[Result], per_seed: bool = False) -> str:
    """One tidy table. Column `row` says what a row is.

    `seed`: one run. `dataset`: means over seeds. `average`: over datasets. `difference`: method
    minus reference, averaged over datasets, with its 95% interval, or on one dataset.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()

    def write(row: str, **values: Any) -> None:
        clean = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        writer.writerow({"row": row, **clean})

    for r in results if per_seed else ():
        write("seed", **{k: r[k] for k in ("dataset", "method", "seed", *MEASURES)})
    for r in per_dataset(results):
        write("dataset", **{k: r[k] for k in ("dataset", "method", *MEASURES)})
    for method in methods_of(results):
        write("average", method=method, **averages(of_method(results, method)))
    for method, reference in _comparisons(results):
        found = paired(results, method, reference)
        for dataset in found["base"]["per_dataset"]:
            values = {m: found[m]["per_dataset"][dataset] for m in MEASURES}
            write("difference", dataset=dataset, method=method, reference=reference, **values)
        values = {m: found[m]["diff"] for m in MEASURES}
        for m in MEASURES:
            if found[m]["ci95"]:
                values[f"{m}_low"], values[f"{m}_high"] = found[m]["ci95"]
        write("difference", method=method, reference=reference, **values)
    return out.getvalue()


def _comparisons(results: Sequence[Result]) -> list[tuple[str, str]]:
    labels = methods_of(results)
    found = [(sar, host) for host, sar in pairs_of(results)]
    if ZERO_SHOT in labels:
        found += [(m, ZERO_SHOT) for m in labels if m != ZERO_SHOT]
    return found


def as_json(results: Sequence[Result], **more: Any) -> str:
    """`runs.summarise`, the records for each dataset, and the notes, as one JSON document."""
    document = {
        **summarise(results),
        "datasets": per_dataset(results),
        "notes": words.notes(results),
        **more,
    }
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
