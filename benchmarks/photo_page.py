"""The tables and the plot of docs/photos.md, from finished runs.

    python benchmarks/photo_page.py runs/photos runs/photos-plus --plot docs/photos-curve.svg \\
        --also 'an earlier tower=docs/photos-earlier.csv' --also 'icon CLIP=runs/demo'

Every method on every task; each host with SAR less without it, paired, with the interval over the
tasks; how far the text embeddings of each group of names moved; and SAR's gain of New beside what
CoOp had lost of zero-shot's New, task by task. `--also` adds points to the last, from other runs or
a table of them (`simprompt report --format csv`).
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simprompt.experiments.store import read_runs
from simprompt.experiments.summary import dataset_means, paired
from simprompt.report.plots import mechanism_means
from simprompt.report.table import Column, Table, markdown
from simprompt.studies.plot import COLOURS, MARKERS, STYLE
from simprompt.utils.files.atomic import replacing
from simprompt.utils.statistics import mean

ORDER = ("caltech101", "eurosat", "dtd-10", "animals", "in-imagenet", "not-in-imagenet")
TITLES = {"caltech101": "Caltech101", "eurosat": "EuroSAT", "dtd-10": "DTD-10",
          "in-imagenet": "in ImageNet", "not-in-imagenet": "not in ImageNet"}  # fmt: skip
MEASURES = {"row_kl": "row KL", "correlation": "correlation"}
Runs = Sequence[dict[str, Any]]
Point = tuple[str, float, float]


def label(run: dict[str, Any]) -> str:
    """The method, with a plus where SAR has an anchor, too, as in the recipe `sar+`."""
    return str(run["method"]) + "+" * bool((run["config"]["sar"] or {}).get("anchor"))


def task_of(dataset: str) -> str:
    """The last part of a dataset's name or path."""
    return Path(dataset).name


def accuracies(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> task -> base, new, h: means over seeds, H of the two."""
    methods = sorted({r["method"] for r in runs})
    return {
        m: {task_of(d): v for d, v in dataset_means([r for r in runs if r["method"] == m]).items()}
        for m in methods
    }


def accuracy_table(runs: Runs) -> Table:
    """Base / New / H of every method on every task; Base alone where there is no New."""
    found = accuracies(runs)
    tasks = [t for t in ORDER if any(t in of for of in found.values())]
    lines = []
    for method, of in found.items():
        cells = []
        for task in tasks:
            v = of.get(task)
            shown = "-" if v is None else " / ".join(f"{v[k]:.1f}" for k in ("base", "new", "h"))
            cells.append(shown.split(" / nan")[0])
        lines.append([method, *cells])
    columns = [Column("Method"), *(Column(TITLES.get(t, t)) for t in tasks)]
    return Table("Base / New / H", columns, lines)


def hosts_of(runs: Runs) -> list[str]:
    """Methods that were run with SAR and without it."""
    methods = {r["method"] for r in runs}
    return sorted(m for m in methods if f"{m}+sar" in methods)


def pair_table(runs: Runs) -> Table:
    """SAR less its host, paired: difference and interval over tasks; tasks where New rises."""
    columns = [Column("Methods")]
    for title in ("Base", "New", "H of means"):
        columns += [Column(title, "difference"), Column(f"{title}, 95%", "interval")]
    lines = []
    others = [(m, "coop") for m in ("coop+sar+", "kgcoop") if any(r["method"] == m for r in runs)]
    for method, reference in [*((f"{h}+sar", h) for h in hosts_of(runs)), *others]:
        found = paired(runs, method, reference)
        line: list[Any] = [f"{method} - {reference}"]
        for key in ("base", "new", "h_of_means"):
            line += [found[key]["diff"], found[key]["ci95"] or (math.nan, math.nan)]
        gains = [*found["new"]["per_dataset"].values()]
        lines.append([*line, f"{sum(g > 0 for g in gains)} of {len(gains)}"])
    return Table("Differences, means over tasks", [*columns, Column("New rises")], lines)


def mechanism_table(runs: Runs) -> Table:
    """Row KL and correlation with the hand-crafted prompt's similarities, means over tasks."""
    columns, lines = [Column("Method")], []
    wanted = [(key, g) for key in MEASURES for g in ("base", "novel", "new")]
    for key, group in wanted:
        columns.append(Column(f"{MEASURES[key]}, {group}", "ratio"))
    for method in sorted({r["method"] for r in runs}):
        own = [r for r in runs if r["method"] == method]
        values = [mechanism_means(own, group, key) for key, group in wanted]
        if max(values[0].values(), default=0.0) > 1e-3:  # else its text is the hand-crafted's
            lines.append([method, *(mean([*v.values()]) if v else None for v in values)])
    return Table("Relations kept", columns, lines)


def losses_and_gains(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Point]:
    """(task, New of zero-shot less CoOp's, New with SAR less without), of `accuracies`."""
    zero, alone, held = (found[m] for m in ("zero-shot", "coop", "coop+sar"))
    return [
        (t, zero[t]["new"] - alone[t]["new"], held[t]["new"] - alone[t]["new"])
        for t in alone
        if t in held and t in zero
    ]


def of_csv(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """`accuracies` from a table that was kept."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["protocol"], row["row"]) == ("base-to-new", "dataset") and row["new"]:
                values = {key: float(row[key]) for key in ("base", "new", "h")}
                found.setdefault(row["method"], {})[task_of(row["dataset"])] = values
    return found


def plot(groups: Mapping[str, Sequence[Point]], path: Path) -> None:
    """SAR's gain of New over CoOp's loss; on the dashed line all is given back."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        losses = [loss for points in groups.values() for _, loss, _ in points]
        line = [min(0.0, *losses), max(losses)]
        axes.plot(line, line, ls="--", lw=1, color="0.5", label="all that was lost")
        for i, (name, points) in enumerate(groups.items()):
            axes.plot(
                [loss for _, loss, _ in points], [gain for _, _, gain in points], MARKERS[i],
                ms=6, color=COLOURS[i], label=name,
            )  # fmt: skip
        for task, loss, gain in next(iter(groups.values())):
            axes.annotate(
                TITLES.get(task, task), (loss, gain), xytext=(5, 3), fontsize=7,
                textcoords="offset points",
            )  # fmt: skip
        axes.axhline(0, lw=0.8, color="0.6")
        axes.set(xlabel="New of zero-shot minus New of CoOp, points",
                 ylabel="New of CoOp+SAR minus New of CoOp, points")  # fmt: skip
        axes.legend(fontsize=8)
        with replacing(path) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})


def gained(points: Sequence[Point]) -> tuple[float, float]:
    """(Pearson's correlation of losses and gains, gain a point lost by least squares)."""
    losses, gains = [x for _, x, _ in points], [y for _, _, y in points]
    return float(np.corrcoef(losses, gains)[0, 1]), float(np.polyfit(losses, gains, 1)[0])


def read(folder: Path) -> list[dict[str, Any]]:
    """Finished base-to-new runs, with their labels."""
    runs = [r for r in read_runs([folder]) if r["protocol"] == "base-to-new"]
    return [{**r, "method": label(r)} for r in runs]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=RUNS_OR_CSV")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    runs = [r for folder in given.runs for r in read(folder)]
    tables = [accuracy_table(runs), pair_table(runs), mechanism_table(runs)]
    groups = {"photo CLIP": losses_and_gains(accuracies(runs))}
    for one in given.also:
        name, _, place = one.partition("=")
        path = Path(place)
        groups[name] = losses_and_gains(
            of_csv(path) if path.suffix == ".csv" else accuracies(read(path))
        )
    columns = [Column("CLIP"), Column("Task"), Column("New lost by CoOp", "difference"),
               Column("Given back by SAR", "difference")]  # fmt: skip
    lines = [
        [name, TITLES.get(task, task), loss, gain]
        for name, points in groups.items()
        for task, loss, gain in points
    ]
    tables.append(Table("What SAR gives back", columns, lines))
    print("\n\n".join(map(markdown, tables)), end="\n\n")
    for name, points in [*groups.items(), ("all", [p for of in groups.values() for p in of])]:
        related, slope = gained(points)
        print(f"{name}: correlation {related:.2f}, {slope:.2f} given back a point lost")
    if given.plot:
        plot(groups, given.plot)


if __name__ == "__main__":
    main()
