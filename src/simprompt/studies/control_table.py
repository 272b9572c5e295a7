"""Which control base classes choose, and the table of what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simprompt.data.catalogue import without_rehearsal
from simprompt.experiments.summary import averages, dataset_means, interval_with_seeds, paired
from simprompt.report.table import Column, Table
from simprompt.studies import Control, Study, tuning
from simprompt.utils.statistics import equivalence, holm, mean


def chosen(controls: Sequence[Control], rows: Sequence[dict[str, Any]]) -> dict[str, Control]:
    """By family, the control that rehearsals choose, by `tuning.strongest`: of those whose H cannot
    be told from the best, the one with the highest accuracy on pseudo-new classes.

    Args:
        rows: `measured` on rehearsals.
    """
    choices = {}
    for family in dict.fromkeys(control.family for control in controls if control.family):
        candidates = {c.label: c for c in controls if c.family == family}
        scored = []
        for label in candidates:
            means = dataset_means(r for r in rows if r["method"] == label)
            by_dataset = {without_rehearsal(name): row["h"] for name, row in means.items()}
            scored.append(
                {
                    "label": label,
                    "score": mean([*by_dataset.values()]),
                    "per_dataset": by_dataset,
                    "new": mean([row["new"] for row in means.values()]),
                }
            )
        choices[family] = candidates[tuning.strongest(scored)["label"]]
    return choices


MEASURES = ("base", "new", "h_of_means", "area", "ece_base", "ece_new", "fit_seconds")


def records(
    controls: Sequence[Control],
    rows: Sequence[dict[str, Any]],
    choices: Mapping[str, Control],
    reference: str,
    floor: str = "zero-shot",
) -> list[dict[str, Any]]:
    """One record a control: means over seeds, then tasks; H minus that of the reference with the
    interval over tasks, the one over tasks and seeds, and p by Holm's method over the controls that
    are not merely points of a path; New minus that of `floor`, and p of the claim that these two
    are within one point of each other.

    Args:
        rows: `measured`.
        choices: those that base classes chose; marked in the record.
        reference, floor: labels of controls.
    """
    everything: Any = rows
    picked = {control.label for control in choices.values()}
    table_rows = []
    for control in controls:
        mine: Any = [r for r in rows if r["method"] == control.label]
        averaged = averages(mine)
        extra = {m: _mean_over_tasks(mine, m) for m in MEASURES if m not in averaged}
        record: dict[str, Any] = {
            "control": control.label, "family": control.family, "source": control.source,
            "x": control.x, "chosen": control.label in picked,
            **{m: {**averaged, **extra}[m] for m in MEASURES},
        }  # fmt: skip
        for measure, other in (("h_of_means", reference), ("new", floor), ("base", reference)):
            difference = paired(everything, control.label, other)[measure]
            low, high = difference["ci95"] or (None, None)
            name = {"h_of_means": "d_h", "new": "d_new", "base": "d_base"}[measure]
            record |= {name: difference["diff"], f"{name}_low": low, f"{name}_high": high}
            if measure == "h_of_means":
                record["p"] = difference["p"]
        tasks = {r["dataset"] for r in mine}
        seeds_low, seeds_high = (
            interval_with_seeds(everything, control.label, reference)
            if len(tasks) > 1
            else (None, None)
        )
        record |= {"d_h_seeds_low": seeds_low, "d_h_seeds_high": seeds_high}
        gaps = paired(everything, control.label, floor)["new"]["per_dataset"].values()
        record["p_new_within_1"] = equivalence([*gaps], 1.0)
        record |= {"tasks": len(tasks), "runs": len(mine)}
        table_rows.append(record)
    claims = [
        r for r in table_rows if r["control"] != reference and (r["chosen"] or not r["family"])
    ]
    adjusted = holm([math.nan if r["p"] is None else r["p"] for r in claims])
    for record in table_rows:
        record["p_holm"] = None
    for record, p in zip(claims, adjusted, strict=True):
        record["p_holm"] = None if math.isnan(p) else p
    return table_rows


def _shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a table shows: not the points of a family that were not chosen."""
    return [row for row in rows if row["chosen"] or not row["family"]]


def _mean_over_tasks(rows: Sequence[dict[str, Any]], measure: str) -> float:
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row["dataset"], []).append(row[measure])
    return mean([mean(values) for values in by_task.values()])


def table(study: Study, rows: Sequence[dict[str, Any]], reference: str, floor: str) -> Table:
    """The records of what base classes chose, and of controls without a family, as a table."""
    shown = _shown(rows)
    count = sum(r["p_holm"] is not None for r in shown)
    result = Table(
        "At no training: " + study.about,
        [
            Column("Control"), Column("Base", "percent"), Column("New", "percent"),
            Column("H", "percent"), Column("Area", "percent"), Column("ECE base", "percent"),
            Column("ECE new", "percent"), Column("Δ H", "difference"),
            Column("95% interval", "interval"), Column("with seeds", "interval"),
            Column("p, Holm", "p"), Column(f"Δ New to {floor}", "difference"),
            Column("95% interval", "interval"), Column("fit, s", "number"),
        ],
        note=f"Means over seeds, then over {rows[0]['tasks'] if rows else 0} tasks, in percent; H "
        "of the two means. Area: under the curve of New against Base among all names at once. Of "
        "each family the setting is the one that rehearsals on base classes chose. "
        f"Δ H: minus {reference}; Student's t over tasks, a bootstrap over tasks and seeds, and p "
        f"by Holm's method for {count} comparisons.",
    )  # fmt: skip
    result.add_group(
        [
            [r["control"], r["base"], r["new"], r["h_of_means"], r["area"], r["ece_base"],
             r["ece_new"], r["d_h"], _interval(r, "d_h"), _interval(r, "d_h_seeds"), r["p_holm"],
             r["d_new"], _interval(r, "d_new"), r["fit_seconds"]]
            for r in shown
        ]
    )  # fmt: skip
    return result


def _interval(record: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    return None if low is None else (low, high)
