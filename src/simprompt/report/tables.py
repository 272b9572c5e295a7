"""Many runs -> tables, and all of them as one text in any of five formats."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.summary import averages, finite, paired, summarise
from simprompt.report import table as tabular
from simprompt.report import words
from simprompt.report.selection import (
    AVERAGES,
    MEASURES,
    USUAL,
    ZERO_SHOT,
    by_protocol,
    datasets_of,
    gain,
    measures_of,
    methods_of,
    of_method,
    pairs_of,
    per_dataset,
    pretty,
    to_zero_shot,
)
from simprompt.report.table import Column, Shared, Table
from simprompt.utils.files.csv import csv_cell
from simprompt.utils.statistics import holm, mean


def _title(words: str, results: Sequence[RunResult]) -> str:
    protocol = results[0]["protocol"]
    return words if protocol == USUAL else f"{words}, {protocol}"


def _deltas(measures: Iterable[str]) -> list[Column]:
    return [Column(f"Δ {name}", "difference") for name in measures]


def _average_measures(results: Sequence[RunResult]) -> dict[str, str]:
    """Keys of `summary.averages` that the protocol of these results has, and their headings."""
    measures = measures_of(results)
    if "h" not in measures:
        return measures
    return {
        "base": measures["base"],
        "new": measures["new"],
        "h_of_means": "H of means",
        "mean_h": "Mean of H",
    }


_H = (
    "H of means = H(mean Base, mean New), as published tables average; Mean of H = mean of each "
    "task's own H. "
)


def _marked(value: float, over: str) -> float:
    return value if over == "all runs" else Shared(value)


def average_table(results: Sequence[RunResult]) -> Table:
    """Each method averaged over the datasets, both ways, and that minus the same of zero-shot.

    Args:
        results: of one protocol, as for all tables here.
    """
    datasets, measures = datasets_of(results), _average_measures(results)
    compared = {m: name for m, name in measures.items() if m != "mean_h"}
    table = Table(
        _title(f"Average over {len(datasets)} task{'s' if len(datasets) > 1 else ''}", results),
        [
            Column("Method"),
            *(Column(name, "percent") for name in measures.values()),
            *_deltas(compared.values()),
            Column("Tasks", "count"),
            Column("Runs", "count"),
        ],
        note="Accuracy in percent, means over seeds, then over tasks. "
        + (_H if "mean_h" in measures else "")
        + "Δ: the number shown minus that of zero-shot.",
    )
    to_zero = to_zero_shot(results)
    rows = []
    for method in methods_of(results):
        runs = of_method(results, method)
        means, gains = averages(runs), to_zero.get(method)
        differences = [gains and _marked(gains[m]["diff"], gains["over"]) for m in compared]
        rows.append(
            [
                pretty(method),
                *(means[m] for m in measures),
                *differences,
                len(datasets_of(runs)),
                len(runs),
            ]
        )
    table.add_group(rows, compare=range(1, 1 + len(measures)))
    return table


def dataset_table(results: Sequence[RunResult], numbered: bool = False) -> Table:
    """Each dataset and method; `numbered` puts the dataset's number, as plots use it, first."""
    measures = measures_of(results)
    table = Table(
        _title("Each task", results),
        [
            Column("Task"),
            Column("Method"),
            *(Column(name, "percent") for name in measures.values()),
            *_deltas(measures.values()),
            Column("Seeds", "count"),
        ],
        note="Accuracy in percent, means over seeds"
        + ("; H of the two means" if "h" in measures else "")
        + ". Δ: the number shown minus that of zero-shot.",
    )
    records = per_dataset(results)
    for number, dataset in enumerate(datasets_of(results), 1):
        rows = []
        for r in records:
            if r["dataset"] == dataset:
                gains = r["to_zero_shot"]
                differences = [gains and _marked(gains[m], gains["over"]) for m in measures]
                rows.append(
                    [
                        f"{number} {dataset}" if numbered else dataset,
                        pretty(r["method"]),
                        *(r[m] for m in measures),
                        *differences,
                        len(r["seeds"]),
                    ]
                )
        table.add_group(rows, compare=range(2, 2 + len(measures)))
    return table


def paired_table(results: Sequence[RunResult]) -> Table | None:
    """SAR minus its host for Base, New and H, with the 95% interval; None without such pairs.

    Beside each difference stand the two numbers that it is between.
    """
    table = Table(
        _title("What SAR changes", results),
        [
            Column("Host"),
            Column("In"),
            Column("Host alone", "percent"),
            Column("With SAR", "percent"),
            Column("Difference", "difference"),
            Column("95% interval", "interval"),
            Column("p, Holm", "p"),
            Column("Tasks better"),
        ],
        note="Means of the tasks and seeds that both have, over seeds first. "
        + (_H if "h" in measures_of(results) else "")
        + "The interval is Student's t over the tasks' means, so it speaks of other tasks like "
        "these, not of other seeds"
        + (
            "; for H of means, H is taken as linear around the means (the delta method)."
            if "h" in measures_of(results)
            else "."
        )
        + " p: of the same t, adjusted by Holm's method for all comparisons of this table.",
    )
    pairs = {(host, sar): paired(results, sar, host) for host, sar in pairs_of(results)}
    measures = _average_measures(results)
    claims = [gains[m]["p"] for gains in pairs.values() for m in measures]
    adjusted = iter(holm([math.nan if p is None else p for p in claims]))
    for (host, _), gains in pairs.items():
        rows = []
        for measure, name in measures.items():
            gain, p = gains[measure], next(adjusted)
            tasks = [*gain.get("per_dataset", {}).values()]
            better = f"{sum(v > 0 for v in tasks)} of {len(tasks)}" if tasks else None
            rows.append(
                [
                    pretty(host),
                    name,
                    gain["reference"],
                    gain["method"],
                    gain["diff"],
                    gain["ci95"],
                    None if math.isnan(p) else p,
                    better,
                ]
            )
        table.add_group(rows)
    return table if table.rows else None


def time_table(results: Sequence[RunResult]) -> Table:
    """What each method costs: learned numbers, steps, seconds and memory."""
    table = Table(
        _title("Times", results),
        [
            Column("Method"),
            Column("Learned numbers"),
            Column("Steps"),
            Column("Training, s", "number"),
            Column("Whole run, s", "number"),
            Column("All runs, s", "number"),
            Column("Peak memory, MB", "number"),
        ],
        note="Seconds: mean of a run; a whole run is training, tests and bookkeeping, with image "
        "features already kept where a run before computed them. Memory: highest of all runs.",
    )
    rows = []
    for m in methods_of(results):
        runs = of_method(results, m)
        seconds = [r["seconds"] for r in runs]
        rows.append(
            [
                pretty(m),
                _span([r["parameters"] for r in runs]),
                _span([r["steps"] for r in runs]),
                mean([r["train_seconds"] for r in runs]),
                mean(seconds),
                sum(seconds),
                max((r["peak_mb"] for r in runs if r["peak_mb"] is not None), default=None),
            ]
        )
    table.add_group(rows)
    return table


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def seed_table(results: Sequence[RunResult]) -> Table:
    """Every run by itself."""
    measures = measures_of(results)
    sides = [m for m in measures if m != "h"]
    table = Table(
        _title("Each run", results),
        [
            Column("Task"),
            Column("Method"),
            Column("Seed", "count"),
            *(Column(name, "percent") for name in measures.values()),
            *(Column(f"ECE {measures[side].lower()}", "percent") for side in sides),
            Column("Seconds", "number"),
        ],
        note="ECE: expected calibration error in percent."
        + (
            " Mean target: over the targets, of the ECE as of the accuracy."
            if "Mean target" in measures.values()
            else ""
        )
        + (" H: of this run's Base and New." if "h" in measures else ""),
    )
    for dataset in datasets_of(results):
        table.add_group(
            [
                [
                    dataset,
                    pretty(r["method"]),
                    r["seed"],
                    *(r[m] for m in measures),
                    *(r.get(f"ece_{side}") for side in sides),
                    r.get("seconds"),
                ]
                for r in results
                if r["dataset"] == dataset
            ]
        )
    return table


def tables(results: Sequence[RunResult], per_seed: bool = False) -> list[Table]:
    """What `simprompt report` prints, averages last, where a terminal leaves the eye.

    One task has no average: its own row says all.
    """
    chosen: list[Table | None] = []
    for runs in by_protocol(results).values():
        chosen += [seed_table(runs)] if per_seed else []
        several = len(datasets_of(runs)) > 1
        chosen += [dataset_table(runs), time_table(runs)]
        chosen += [average_table(runs) if several else None, paired_table(runs)]
    return [t for t in chosen if t is not None]


def text(results: Sequence[RunResult]) -> str:
    """All tables as aligned plain text, as `simprompt run` and `demo` print them."""
    return written(tables(results), "text")


def written(several: Sequence[Table], format: str, digits: int = 1) -> str:
    """Tables one below the other as "text", "markdown" or "latex"."""
    write = {"text": tabular.text, "markdown": tabular.markdown, "latex": tabular.latex}[format]
    return "\n\n".join(write(t, digits) for t in several)


CSV_COLUMNS = (
    "protocol",
    "row",
    "dataset",
    "method",
    "reference",
    "seed",
    "base",
    "new",
    "h",
    "h_of_means",
    "mean_h",
    *(f"{m}_{end}" for m in AVERAGES for end in ("low", "high")),
)


def as_csv(results: Sequence[RunResult], per_seed: bool = False) -> str:
    """One tidy table. Column `row` says what a row is.

    `seed`: one run. `dataset`: means over seeds. `average`: over datasets. `difference`: in every
    column the method's number minus the reference's in the rows above, of one dataset or of the
    averages, these with their 95% intervals. `shared difference`: the same where one of the two
    has a dataset or seed that the other lacks, of means over the runs that both have.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for protocol, runs in by_protocol(results).items():
        for row in _csv_rows(runs, per_seed):
            clean = {k: _short(v) for k, v in row.items()}
            writer.writerow({"protocol": csv_cell(protocol), **clean})
    return out.getvalue()


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else ""
    return csv_cell(value)


def _csv_rows(results: Sequence[RunResult], per_seed: bool) -> Iterator[dict[str, Any]]:
    for r in results if per_seed else ():
        yield {"row": "seed", **{k: r.get(k) for k in ("dataset", "method", "seed", *MEASURES)}}
    for r in per_dataset(results):
        yield {"row": "dataset", **{k: r[k] for k in ("dataset", "method", *MEASURES)}}
    for method in methods_of(results):
        yield {"row": "average", "method": method, **averages(of_method(results, method))}
    for method, reference in _comparisons(results):
        start = {"method": method, "reference": reference}
        for dataset in datasets_of(results):
            runs_here = [r for r in results if r["dataset"] == dataset]
            if on_one := gain(runs_here, method, reference):
                values = {m: on_one[m] for m in MEASURES}
                yield {"row": _difference(on_one), **start, "dataset": dataset, **values}
        gains = paired(results, method, reference)
        values = {m: gains[m]["diff"] for m in AVERAGES}
        for m in AVERAGES:
            if gains[m]["ci95"]:
                values[f"{m}_low"], values[f"{m}_high"] = gains[m]["ci95"]
        yield {"row": _difference(gains), **start, **values}


def _difference(gains: dict[str, Any]) -> str:
    return "difference" if gains["over"] == "all runs" else "shared difference"


def _comparisons(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    labels = methods_of(results)
    pairs = [(sar, host) for host, sar in pairs_of(results)]
    if ZERO_SHOT in labels:
        pairs += [(m, ZERO_SHOT) for m in labels if m != ZERO_SHOT]
    return pairs


def as_json(results: Sequence[RunResult], **more: Any) -> str:
    """`summary.summarise`, the records for each dataset, and the notes, as one JSON document.

    Of the first protocol (base-to-new, where there is one); others stand in `other_protocols`.
    """
    document: dict[str, Any] = {}
    for i, (protocol, runs) in enumerate(by_protocol(results).items()):
        section = {
            **summarise(runs),
            "datasets": per_dataset(runs),
            "notes": words.notes(runs),
        }
        if i == 0:
            document = {"protocol": protocol, **section, **more}
        else:
            document.setdefault("other_protocols", {})[protocol] = section
    return json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False)
