"""A study's results as a table: means, paired differences to one point, and what a step cost.

For studies over a regulariser's weight there is a second table. Every regulariser moves along a
path from the plain method towards zero-shot, so single weights cannot be compared; what can be is
New (and H) where two paths have the same Base.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from simprompt.experiments.protocols import MEANING
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.summary import averages, dataset_means, paired
from simprompt.metrics import harmonic_mean
from simprompt.report.table import Column, Shared, Table
from simprompt.studies import Study
from simprompt.studies.grid import Plan
from simprompt.utils.files.csv import csv_cell
from simprompt.utils.statistics import interval, mean

MEASURES = ("base", "new", "h")
# what a record calls the numbers of `experiments.summary.averages`
NAMES = {"base": "base", "new": "new", "h": "h_of_means", "mean_h": "mean_h"}


def records(plan: Plan, results: Mapping[str, RunResult]) -> list[dict[str, Any]]:
    """One record a point that has results, in the study's order.

    Args:
        results: by the handle of their settings; points of which runs are missing are averaged
            over those there are.

    Returns:
        base, new, h (H of means) and mean_h (mean of each dataset's H) in percent; d_ with each,
        that of the point minus that of the reference, with a 95% interval over datasets where
        there are several; `compared`, whether that is over "all runs" or, where one of the two
        lacks some, over "shared runs"; parameters, ms_per_step, peak_mb; the number of datasets
        and runs.
    """
    labelled = _labelled(plan, results)
    everything = [r for group in labelled.values() for r in group]
    table_rows = []
    for point, _ in plan.rows:
        runs = labelled[point.label]
        if not runs:
            continue
        a = averages(runs)
        record: dict[str, Any] = {
            "point": point.label, "series": point.series, "x": point.x,
            **{name: a[key] for name, key in NAMES.items()},
        }  # fmt: skip
        compared = point.label != plan.study.reference and labelled.get(plan.study.reference)
        differences = paired(everything, point.label, plan.study.reference) if compared else {}
        for name, key in NAMES.items():
            d = differences.get(key, {"diff": None, "ci95": None})
            low, high = d["ci95"] or (None, None)
            record |= {f"d_{name}": d["diff"], f"d_{name}_low": low, f"d_{name}_high": high}
        record["compared"] = differences.get("over")
        trained = [r for r in runs if r["steps"]]
        times = [1000 * r["train_seconds"] / r["steps"] for r in trained]
        record |= {
            "parameters": max(r["parameters"] for r in runs),
            "ms_per_step": statistics.median(times) if times else None,
            "peak_mb": max(r["peak_mb"] for r in runs),
            "datasets": len({r["dataset"] for r in runs}),
            "runs": len(runs),
        }
        table_rows.append(record)
    return table_rows


def _labelled(plan: Plan, results: Mapping[str, RunResult]) -> dict[str, list[RunResult]]:
    """The results of each point, called by its label instead of its method."""
    return {
        point.label: [{**results[c.handle], "method": point.label} for c in configs
                      if c.handle in results]
        for point, configs in plan.rows
    }  # fmt: skip


def table(study: Study, rows: Sequence[dict[str, Any]]) -> Table:
    """The records as `simprompt.report.table` prints them."""
    meaning = MEANING[study.protocol]
    measures_shown = [m for m in MEASURES if meaning[m]]
    columns = [Column(study.name)]
    columns += [Column(str(meaning[m]), "percent") for m in measures_shown]
    for m in measures_shown:
        columns += [Column(f"Δ {meaning[m]}", "difference"), Column("95% interval", "interval")]
    if study.costs:
        columns += [
            Column("Parameters", "count"), Column("ms a step", "number"),
            Column("MB", "number"),
        ]  # fmt: skip
    columns.append(Column("Runs", "count"))
    n = max((r["datasets"] for r in rows), default=0)
    result = Table(
        study.about,
        columns,
        note=f"Means over seeds, then over {n} {'tasks' if n != 1 else 'task'}, in percent. "
        + ("H: of the two means. " if "h" in measures_shown else "")
        + f"Δ: the number shown minus that of {study.reference}, with Student's t over the tasks' "
        "means"
        + (" (for H by the delta method). " if "h" in measures_shown else ". ")
        + study.note,
    )
    cells = []
    for r in rows:
        row: list[Any] = [r["point"], *(_number(r[m]) for m in measures_shown)]
        for m in measures_shown:
            low, high = r[f"d_{m}_low"], r[f"d_{m}_high"]
            gain = _number(r[f"d_{m}"])
            if gain is not None and r["compared"] != "all runs":
                gain = Shared(gain)
            row += [gain, None if low is None else (low, high)]
        if study.costs:
            row += [r["parameters"], r["ms_per_step"], r["peak_mb"]]
        cells.append([*row, r["runs"]])
    result.add_group(cells)
    return result


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


# --- frontiers ----------------------------------------------------------------------------------

Path = list[tuple[float, float]]  # (base, new) from the plain method to the heaviest weight


def at_base(path: Path, level: float) -> float | None:
    """New where a path first comes down to a Base of `level`, on straight lines between points.

    None where it never does.
    """
    for (base, new_here), (next_base, next_new) in pairwise(path):
        if next_base <= level <= base:
            share = 0.0 if base == next_base else (base - level) / (base - next_base)
            return new_here + share * (next_new - new_here)
    return None


def frontiers(plan: Plan, results: Mapping[str, RunResult]) -> list[dict[str, Any]]:
    """Each series compared at equal Base, task by task; the first one is the reference.

    A task's level is half-way between the plain method's Base and the lowest Base that all series
    reach on it, so that every path crosses it. A path starts at the study's reference point.

    Returns:
        series, base (the mean level), new and h there, and d_new with its 95% interval over tasks;
        empty for a study without series, or where no task has a level.
    """
    paths = _paths(plan, results)
    names = [s for s in dict.fromkeys(p.series for p, _ in plan.rows) if s]
    at: dict[str, dict[str, tuple[float, float]]] = {s: {} for s in names}
    for dataset in sorted({d for d, _ in paths}):
        mine = {s: paths[dataset, s] for s in names if len(paths.get((dataset, s), [])) > 1}
        if len(mine) < len(names):
            continue
        start = mine[names[0]][0][0]
        level = (start + max(min(b for b, _ in path) for path in mine.values())) / 2
        for s, path in mine.items():
            new_there = at_base(path, level)
            if new_there is not None:
                at[s][dataset] = (level, new_there)
    shared = [d for d in at[names[0]] if all(d in at[s] for s in names)] if names else []
    if not shared:
        return []
    frontiers_found = []
    for s in names:
        base, new_there = (mean([at[s][d][i] for d in shared]) for i in (0, 1))
        gains = [at[s][d][1] - at[names[0]][d][1] for d in shared]
        low, high = interval(gains)
        several = len(gains) > 1 and s != names[0]
        frontiers_found.append(
            {
                "series": s, "base": base, "new": new_there, "h": harmonic_mean(base, new_there),
                "d_new": None if s == names[0] else mean(gains),
                "d_new_low": low if several else None, "d_new_high": high if several else None,
                "datasets": len(shared),
            }
        )  # fmt: skip
    return frontiers_found


def _paths(plan: Plan, results: Mapping[str, RunResult]) -> dict[tuple[str, str], Path]:
    """By (dataset, series) the points' means over seeds, behind that of the reference."""
    labelled = _labelled(plan, results)

    def means(label: str) -> dict[str, tuple[float, float]]:
        return {d: (row["base"], row["new"]) for d, row in dataset_means(labelled[label]).items()}

    start = means(plan.study.reference)
    paths: dict[tuple[str, str], Path] = {}
    for point, _ in plan.rows:
        for dataset, location in means(point.label).items() if point.series else ():
            if dataset in start:
                paths.setdefault((dataset, point.series), [start[dataset]]).append(location)
    return paths


def frontier_table(rows: Sequence[dict[str, Any]]) -> Table:
    """`frontiers` as a table."""
    first_series = rows[0]["series"]
    result = Table(
        "At equal Base",
        [
            Column("Path"), Column("Base", "percent"), Column("New there", "percent"),
            Column("H", "percent"), Column("Δ New", "difference"),
            Column("95% interval", "interval"),
        ],
        note="New of each path where its Base is half-way, task by task, between plain and the "
        f"lowest Base that all paths reach: means over {rows[0]['datasets']} tasks. H: of the two "
        f"means. Δ: the number shown minus that of {first_series}; Student's t over tasks.",
    )  # fmt: skip
    result.add_group(
        [
            [r["series"], r["base"], r["new"], r["h"], r["d_new"],
             None if r["d_new_low"] is None else (r["d_new_low"], r["d_new_high"])]
            for r in rows
        ]
    )  # fmt: skip
    return result


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Records with a heading line; four decimals, nothing where there is no number."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: _cell(v) for k, v in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 4)
    return "" if value is None else csv_cell(value)


def per_run(plan: Plan, results: Mapping[str, RunResult]) -> list[dict[str, Any]]:
    """Every run by itself, with the targets of a transfer protocol behind."""
    rows = [
        {"point": label, "dataset": r["dataset"], "seed": r["seed"], "base": r["base"],
         "new": r["new"], "h": r["h"], "ece_base": r["ece_base"], "ece_new": r["ece_new"],
         "key": r["key"], **{f"to {k}": v for k, v in r.get("targets", {}).items()}}
        for label, runs in _labelled(plan, results).items()
        for r in runs
    ]  # fmt: skip
    columns = dict.fromkeys(k for row in rows for k in row)
    return [{k: row.get(k) for k in columns} for row in rows]
