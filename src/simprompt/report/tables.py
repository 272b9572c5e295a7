"""Many runs -> tables, and all of them as one text in any of five formats."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from simprompt.evaluate import mean
from simprompt.report import table as tabular
from simprompt.report import words
from simprompt.report.selection import (
    MEASURES,
    USUAL,
    ZERO_SHOT,
    by_protocol,
    datasets_of,
    measures_of,
    methods_of,
    of_method,
    pairs_of,
    per_dataset,
    pretty,
    to_zero_shot,
)
from simprompt.report.table import Column, Table
from simprompt.runs import Result
from simprompt.summary import averages, finite, paired, summarise


def _title(words: str, results: Sequence[Result]) -> str:
    protocol = results[0]["protocol"]
    return words if protocol == USUAL else f"{words}, {protocol}"


def _deltas(measures: Sequence[str]) -> list[Column]:
    return [Column(f"Δ {name}", "difference") for name in measures]


def average_table(results: Sequence[Result]) -> Table:
    """Each method averaged over the datasets, both ways, and its difference to zero-shot.

    Args:
        results: of one protocol, as for all tables here.
    """
    datasets, measures = datasets_of(results), measures_of(results)
    with_h = "h" in measures
    means = {m: name for m, name in measures.items() if m != "h"}
    table = Table(
        _title(f"Average over {len(datasets)} task{'s' if len(datasets) > 1 else ''}", results),
        [
            Column("Method"), *(Column(name, "percent") for name in means.values()),
            *([Column("H of means", "percent"), Column("Mean of H", "percent")] if with_h else []),
            *_deltas([*measures.values()]), Column("Tasks", "count"), Column("Runs", "count"),
        ],
        note="Accuracy in percent, means over seeds, then over tasks. "
        + ("H of means = H(mean Base, mean New), as published tables average; Mean of H = mean of "
           "each task's own H. " if with_h else "")
        + "Δ: the method minus zero-shot, task by task and seed by seed, then averaged.",
    )  # fmt: skip
    to_zero = to_zero_shot(results)
    keys = [*means, *(("h_of_means", "mean_h") if with_h else ())]
    rows = []
    for method in methods_of(results):
        runs = of_method(results, method)
        found = averages(runs)
        differences = [to_zero[method][m]["diff"] if method in to_zero else None for m in measures]
        rows.append(
            [pretty(method), *(found[k] for k in keys), *differences, len(datasets_of(runs)),
             len(runs)]
        )  # fmt: skip
    table.add_group(rows, compare=range(1, 1 + len(keys)))
    return table


def dataset_table(results: Sequence[Result], numbered: bool = False) -> Table:
    """Each dataset and method; `numbered` puts the dataset's number, as plots use it, first."""
    measures = measures_of(results)
    table = Table(
        _title("Each task", results),
        [
            Column("Task"), Column("Method"),
            *(Column(name, "percent") for name in measures.values()),
            *_deltas([*measures.values()]), Column("Seeds", "count"),
        ],
        note="Accuracy in percent, means over seeds"
        + ("; H of the two means" if "h" in measures else "") + ". Δ: minus zero-shot.",
    )  # fmt: skip
    records = per_dataset(results)
    for number, dataset in enumerate(datasets_of(results), 1):
        rows = []
        for r in records:
            if r["dataset"] == dataset:
                delta = r["to_zero_shot"] or dict.fromkeys(MEASURES)
                rows.append(
                    [f"{number} {dataset}" if numbered else dataset, pretty(r["method"]),
                     *(r[m] for m in measures), *(delta[m] for m in measures), len(r["seeds"])]
                )  # fmt: skip
        table.add_group(rows, compare=range(2, 2 + len(measures)))
    return table


def paired_table(results: Sequence[Result]) -> Table | None:
    """SAR minus its host for Base, New and H, with the 95% interval; None without such pairs."""
    table = Table(
        _title("What SAR changes", results),
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
        for measure, name in measures_of(results).items():
            values = list(found[measure]["per_dataset"].values())
            better = f"{sum(v > 0 for v in values)} of {len(values)}"
            rows.append(
                [f"{pretty(sar)} − {pretty(host)}", name, found[measure]["diff"],
                 found[measure]["ci95"], better]
            )  # fmt: skip
        table.add_group(rows)
    return table if table.rows else None


def time_table(results: Sequence[Result]) -> Table:
    """What each method costs: learned numbers, steps, seconds and memory."""
    table = Table(
        "Times",
        [
            Column("Method"), Column("Learned numbers"), Column("Steps"),
            Column("Training, s", "number"), Column("Whole run, s", "number"),
            Column("All runs, s", "number"), Column("Peak memory, MB", "number"),
        ],
        note="Seconds: mean of a run; a whole run is training, tests and bookkeeping, with image "
        "features already kept where a run before computed them. Memory: highest of all runs.",
    )  # fmt: skip
    rows = []
    for m in methods_of(results):
        runs = of_method(results, m)
        seconds = [r["seconds"] for r in runs]
        rows.append(
            [pretty(m), _span([r["parameters"] for r in runs]), _span([r["steps"] for r in runs]),
             mean([r["train_seconds"] for r in runs]), mean(seconds), sum(seconds),
             max((r["peak_mb"] for r in runs if r["peak_mb"] is not None), default=None)]
        )  # fmt: skip
    table.add_group(rows)
    return table


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def seed_table(results: Sequence[Result]) -> Table:
    """Every run by itself."""
    measures = measures_of(results)
    sides = [m for m in measures if m != "h"]
    table = Table(
        _title("Each run", results),
        [
            Column("Task"), Column("Method"), Column("Seed", "count"),
            *(Column(name, "percent") for name in measures.values()),
            *(Column(f"ECE {side}", "percent") for side in sides), Column("Seconds", "number"),
        ],
        note="ECE: expected calibration error in percent."
        + (" H: of this run's Base and New." if "h" in measures else ""),
    )  # fmt: skip
    for dataset in datasets_of(results):
        table.add_group(
            [
                [dataset, pretty(r["method"]), r["seed"], *(r[m] for m in measures),
                 *(r.get(f"ece_{side}") for side in sides), r.get("seconds")]
                for r in results
                if r["dataset"] == dataset
            ]
        )  # fmt: skip
    return table


def tables(results: Sequence[Result], per_seed: bool = False) -> list[Table]:
    """What `simprompt table` prints, averages last, where a terminal leaves the eye."""
    found: list[Table | None] = []
    for runs in by_protocol(results).values():
        found += [seed_table(runs)] if per_seed else []
        found += [dataset_table(runs), time_table(runs), average_table(runs), paired_table(runs)]
    return [t for t in found if t is not None]


def text(results: Sequence[Result]) -> str:
    """All tables as aligned plain text, as `simprompt run` and `demo` print them."""
    return written(tables(results), "text")


def written(found: Sequence[Table], format: str, digits: int = 1) -> str:
    """Tables one below the other as "text", "markdown" or "latex"."""
    write = {"text": tabular.text, "markdown": tabular.markdown, "latex": tabular.latex}[format]
    return "\n\n".join(write(t, digits) for t in found)


CSV_COLUMNS = (
    "protocol", "row", "dataset", "method", "reference", "seed", "base", "new", "h", "h_of_means",
    "mean_h", "base_low", "base_high", "new_low", "new_high", "h_low", "h_high",
)  # fmt: skip


def as_csv(results: Sequence[Result], per_seed: bool = False) -> str:
    """One tidy table. Column `row` says what a row is.

    `seed`: one run. `dataset`: means over seeds. `average`: over datasets. `difference`: method
    minus reference, averaged over datasets, with its 95% interval, or on one dataset.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for protocol, runs in by_protocol(results).items():
        for row in _csv_rows(runs, per_seed):
            clean = {k: _short(v) for k, v in row.items()}
            writer.writerow({"protocol": protocol, **clean})
    return out.getvalue()


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else ""
    return value


def _csv_rows(results: Sequence[Result], per_seed: bool) -> Iterator[dict[str, Any]]:
    for r in results if per_seed else ():
        yield {"row": "seed", **{k: r.get(k) for k in ("dataset", "method", "seed", *MEASURES)}}
    for r in per_dataset(results):
        yield {"row": "dataset", **{k: r[k] for k in ("dataset", "method", *MEASURES)}}
    for method in methods_of(results):
        yield {"row": "average", "method": method, **averages(of_method(results, method))}
    for method, reference in _comparisons(results):
        found = paired(results, method, reference)
        start = {"row": "difference", "method": method, "reference": reference}
        for dataset in found["base"]["per_dataset"]:
            values = {m: found[m]["per_dataset"][dataset] for m in MEASURES}
            yield {**start, "dataset": dataset, **values}
        values = {m: found[m]["diff"] for m in MEASURES}
        for m in MEASURES:
            if found[m]["ci95"]:
                values[f"{m}_low"], values[f"{m}_high"] = found[m]["ci95"]
        yield {**start, **values}


def _comparisons(results: Sequence[Result]) -> list[tuple[str, str]]:
    labels = methods_of(results)
    found = [(sar, host) for host, sar in pairs_of(results)]
    if ZERO_SHOT in labels:
        found += [(m, ZERO_SHOT) for m in labels if m != ZERO_SHOT]
    return found


def as_json(results: Sequence[Result], **more: Any) -> str:
    """`summary.summarise`, the records for each dataset, and the notes, as one JSON document.

    Of the first protocol (base-to-new, where there is one); others stand in `other_protocols`.
    """
    document: dict[str, Any] = {}
    for i, (protocol, runs) in enumerate(by_protocol(results).items()):
        part = {
            **summarise(runs),
            "datasets": per_dataset(runs),
            "notes": words.notes(runs),
        }
        if i == 0:
            document = {"protocol": protocol, **part, **more}
        else:
            document.setdefault("other_protocols", {})[protocol] = part
    return json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False)
