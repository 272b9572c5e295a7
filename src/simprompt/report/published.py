"""Published base-to-new numbers to set results beside, and what makes them not comparable.

They are in `simprompt/data/published.csv`: each row with its source, its epochs where known, and
whether the method saw images of the new classes (transductive).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.summary import averages
from simprompt.metrics import harmonic_mean
from simprompt.report.selection import (
    USUAL,
    by_protocol,
    datasets_of,
    methods_of,
    of_method,
    per_dataset,
    pretty,
)
from simprompt.report.table import Column, Table

AVERAGE = "average"
BACKBONE, SHOTS = "ViT-B/16", 16


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """All published rows, with H of their Base and New; `dataset` is "average" for averages."""
    text = (files("simprompt") / "data" / "published.csv").read_text(encoding="utf-8")
    selected = []
    for row in csv.DictReader(text.splitlines()):
        base, new_value = float(row["base"]), float(row["new"])
        selected.append(
            {
                **row,
                "base": base,
                "new": new_value,
                "h": harmonic_mean(base, new_value),
                "epochs": int(row["epochs"]) if row["epochs"] else None,
                "transductive": row["transductive"] == "yes",
            }
        )
    return tuple(selected)


def _plain(name: str) -> str:
    """`FGVCAircraft`, `fgvc_aircraft` and `fgvc-aircraft@x` are one dataset; `ViT-B-16` a model."""
    plain = re.sub(r"[^a-z0-9]", "", name.partition("@")[0].lower())
    return {"oxfordflowers": "flowers102"}.get(plain, plain)


def differs(row: dict[str, Any], results: Sequence[RunResult]) -> list[str]:
    """In what the runs of a method differ from how a published row was made."""
    differences = []
    configs = [r["config"] for r in results]
    models = sorted({c["model"] for c in configs})
    if any(_plain(BACKBONE) not in _plain(m) for m in models):
        differences.append(f"backbone {', '.join(models)}")
    trained = [c["training"] for r, c in zip(results, configs, strict=True) if r["parameters"]]
    shots = sorted({t["shots"] for t in trained} - {SHOTS})
    if shots:
        differences.append(f"{', '.join(map(str, shots))} shots")
    epochs = sorted({t["epochs"] for t in trained})
    if row["epochs"] and epochs and epochs != [row["epochs"]]:
        differences.append(f"{', '.join(map(str, epochs))} epochs, not {row['epochs']}")
    if any(t["max_steps"] for t in trained):
        differences.append("epochs cut by max_steps")
    if row["transductive"]:
        differences.append("the published method sees images of the new classes")
    if any(c.get("max_test_per_class") for c in configs):
        differences.append("not all test images")
    return differences


def records(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Every published row; where we ran its method (on its dataset), ours and what differs."""
    results = by_protocol(results).get(USUAL, [])
    ours = {(r["method"], _plain(r["dataset"])): r for r in per_dataset(results)}
    shared = _shared(results)
    lines = []
    for row in rows():
        record = {**row, "ours": None, "differs": None}
        runs = of_method(results, row["label"])
        if runs and row["dataset"] == AVERAGE:
            means = averages(runs)
            record["ours"] = {"base": means["base"], "new": means["new"], "h": means["h_of_means"]}
            record["differs"] = differs(row, runs)
            if len(shared) != len(_names()) or len(datasets_of(runs)) != len(_names()):
                record["differs"].insert(0, f"datasets ({len(shared)} of {len(_names())} shared)")
        elif runs and (row["label"], _plain(row["dataset"])) in ours:
            mine = ours[row["label"], _plain(row["dataset"])]
            record["ours"] = {m: mine[m] for m in ("base", "new", "h")}
            runs_here = [r for r in runs if _plain(r["dataset"]) == _plain(row["dataset"])]
            record["differs"] = differs(row, runs_here)
        lines.append(record)
    return lines


def _names() -> list[str]:
    return sorted({row["dataset"] for row in rows()} - {AVERAGE})


def _shared(results: Sequence[RunResult]) -> list[str]:
    datasets_here = {_plain(d) for d in datasets_of(results)}
    return [name for name in _names() if _plain(name) in datasets_here]


def tables(results: Sequence[RunResult]) -> list[Table]:
    """Published averages with ours among them, and each shared dataset where there is one."""
    lines = records(results)
    results = by_protocol(results).get(USUAL, [])
    average = Table(
        f"Published averages over {len(_names())} datasets, {BACKBONE}, {SHOTS} shots, and ours",
        [
            Column("Method"),
            Column("Base", "percent"),
            Column("New", "percent"),
            Column("H", "percent"),
            Column("Epochs", "count"),
            Column("What differs"),
        ],
        note="H of the mean Base and New. Sources: simprompt/data/published.csv. Rows of one "
        "method differ by more than many gains: compare with the row whose settings are yours.",
    )
    labels = methods_of(results)
    average.breaks.add(0)
    for row in lines:
        if row["dataset"] == AVERAGE and row["label"] not in labels:
            seen = "transductive: sees new-class images" if row["transductive"] else ""
            average.rows.append(
                [row["method"], row["base"], row["new"], row["h"], row["epochs"], seen]
            )
    average.rows.sort(key=lambda line: line[3])
    for label in labels:
        mine = averages(of_method(results, label))
        group: list[list[Any]] = [
            [f"ours: {pretty(label)}", mine["base"], mine["new"], mine["h_of_means"], None, ""]
        ]
        for row in lines:
            if row["dataset"] == AVERAGE and row["label"] == label:
                differences = "; ".join(row["differs"]) if row["differs"] else "nothing noted"
                group.append(
                    [row["method"], row["base"], row["new"], row["h"], row["epochs"], differences]
                )
        average.add_group(group)
    return [average, *_dataset_table(lines)]


def _dataset_table(lines: Sequence[dict[str, Any]]) -> list[Table]:
    table = Table(
        "Shared datasets: ours and the published row",
        [
            Column("Dataset"),
            Column("Method"),
            Column("Base", "percent"),
            Column("ours − it", "difference"),
            Column("New", "percent"),
            Column("ours − it", "difference"),
            Column("H", "percent"),
            Column("ours − it", "difference"),
            Column("What differs"),
        ],
        note="H of the Base and New of a row.",
    )
    groups: dict[tuple[str, str], list[list[Any]]] = {}
    for row in lines:
        if row["dataset"] != AVERAGE and row["ours"]:
            pairs = [v for m in ("base", "new", "h") for v in (row[m], row["ours"][m] - row[m])]
            differences = "; ".join(row["differs"]) or "nothing noted"
            ours = [v for m in ("base", "new", "h") for v in (row["ours"][m], None)]
            our_row = [row["dataset"], f"ours: {pretty(row['label'])}", *ours, ""]
            groups.setdefault((row["dataset"], row["label"]), [our_row]).append(
                [row["dataset"], row["method"], *pairs, differences]
            )
    for group in groups.values():
        table.add_group(group)
    return [table] if table.rows else []
