"""The tables and the plot of docs/photos.md, from finished runs.

    python benchmarks/photo_page.py runs/photos runs/photos-plus --plot docs/photos-curve.svg \\
        --also 'an earlier tower=docs/photos-earlier.csv' --also 'icon CLIP=runs/demo'

Every method on every task; each host with SAR less without it, paired, with the interval over the
tasks; how far the text embeddings of each group of names moved; and SAR's gain of New beside what
CoOp had lost of zero-shot's New, task by task. `--also` adds points to the last, from other runs or
a table of them (`simprompt table --format csv`).
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simprompt.evaluate import mean
from simprompt.files.whole import replacing
from simprompt.runs import read_runs
from simprompt.studies.plot import COLOURS, MARKERS, STYLE
from simprompt.summary import dataset_means, paired

ORDER = ("caltech101", "eurosat", "dtd-10", "animals", "in-imagenet", "not-in-imagenet")
TITLES = {"caltech101": "Caltech101", "eurosat": "EuroSAT", "dtd-10": "DTD-10",
          "in-imagenet": "in ImageNet", "not-in-imagenet": "not in ImageNet"}  # fmt: skip
Runs = Sequence[dict[str, Any]]
Point = tuple[str, float, float]


def label(run: dict[str, Any]) -> str:
    """The method, with a plus where SAR has an anchor, too, as in the recipe `sar+`."""
    return run["method"] + "+" * bool((run["config"]["sar"] or {}).get("anchor"))


def task_of(dataset: str) -> str:
    """The last part of a dataset's name or path."""
    return Path(dataset).name


def rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    marks = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines)) + "\n"


def accuracies(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> task -> base, new, h: means over seeds, H of the two."""
    methods = sorted({r["method"] for r in runs})
    return {
        m: {task_of(d): v for d, v in dataset_means([r for r in runs if r["method"] == m]).items()}
        for m in methods
    }


def accuracy_table(runs: Runs) -> str:
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
    return rows(["method", *(TITLES.get(t, t) for t in tasks)], lines)


def hosts_of(runs: Runs) -> list[str]:
    """Methods that were run with SAR and without it."""
    methods = {r["method"] for r in runs}
    return sorted(m for m in methods if f"{m}+sar" in methods)


def pair_table(runs: Runs) -> str:
    """SAR less its host: difference and interval over tasks; tasks where New rises."""
    lines = []
    others = [(m, "coop") for m in ("coop+sar+", "kgcoop") if any(r["method"] == m for r in runs)]
    for method, reference in [*((f"{h}+sar", h) for h in hosts_of(runs)), *others]:
        found = paired(runs, method, reference)
        cells = []
        for key in ("base", "new", "h_of_means"):
            low, high = found[key]["ci95"]
            cells.append(f"{found[key]['diff']:+.2f} [{low:+.2f}, {high:+.2f}]")
        gains = [*found["new"]["per_dataset"].values()]
        lines.append(
            [f"{method} - {reference}", *cells, f"{sum(g > 0 for g in gains)} of {len(gains)}"]
        )
    return rows(["difference", "Base", "New", "H of means", "New rises"], lines)


def mechanism_table(runs: Runs) -> str:
    """Row KL and correlation with the hand-crafted prompt's similarities, means over tasks."""
    groups, lines = ("base", "novel", "new"), []
    for method in sorted({r["method"] for r in runs}):
        kept = [r["mechanism"] for r in runs if r["method"] == method and r.get("mechanism")]
        if not any(m["base"]["row_kl"] > 1e-3 for m in kept):
            continue  # its text is the hand-crafted prompt's
        cells = [
            f"{mean([m[g][key] for m in kept]):.2f}" if all(g in m for m in kept) else "-"
            for key in ("row_kl", "correlation")
            for g in groups
        ]
        lines.append([method, *cells])
    header = [f"{measure}, {g}" for measure in ("row KL", "correlation") for g in groups]
    return rows(["method", *header], lines)


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
    a, b = (mean([point[i] for point in points]) for i in (1, 2))
    shared = math.fsum((x - a) * (y - b) for _, x, y in points)
    of_x, of_y = (math.fsum((p[i] - m) ** 2 for p in points) for i, m in ((1, a), (2, b)))
    return shared / math.sqrt(of_x * of_y), shared / of_x


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
    print(accuracy_table(runs), pair_table(runs), mechanism_table(runs), sep="\n")
    groups = {"photo CLIP": losses_and_gains(accuracies(runs))}
    for one in given.also:
        name, _, place = one.partition("=")
        path = Path(place)
        groups[name] = losses_and_gains(
            of_csv(path) if path.suffix == ".csv" else accuracies(read(path))
        )
    lines = [
        [name, TITLES.get(task, task), f"{loss:+.1f}", f"{gain:+.1f}"]
        for name, points in groups.items()
        for task, loss, gain in points
    ]
    print(rows(["CLIP", "task", "New lost by CoOp", "given back by SAR"], lines))
    for name, points in [*groups.items(), ("all", [p for of in groups.values() for p in of])]:
        related, slope = gained(points)
        print(f"{name}: correlation {related:.2f}, {slope:.2f} given back a point lost")
    if given.plot:
        plot(groups, given.plot)


if __name__ == "__main__":
    main()
