"""The tables and the plot of docs/photos.md, from finished runs.

    python benchmarks/photo_page.py runs/photos runs/photos-plus [--plot docs/photos-curve.svg]

Every method on every task; each host with SAR less without it, paired, with the interval over the
tasks; how far the text embeddings of each group of names moved; and SAR's gain of New beside what
its host had lost of zero-shot's New, task by task.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
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


def losses_and_gains(runs: Runs) -> dict[str, list[tuple[str, float, float]]]:
    """Host -> (task, New of zero-shot less the host's, New with SAR less without)."""
    found = accuracies(runs)
    zero = found["zero-shot"]
    made = {}
    for host in hosts_of(runs):
        alone, held = found[host], found[f"{host}+sar"]
        made[host] = [
            (t, zero[t]["new"] - alone[t]["new"], held[t]["new"] - alone[t]["new"])
            for t in ORDER
            if t in alone and t in held and t in zero
        ]
    return made


def plot(points: dict[str, list[tuple[str, float, float]]], path: Path) -> None:
    """SAR's gain of New over its host's loss; on the dashed line all is given back."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        ends = [loss for of in points.values() for _, loss, _ in of]
        line = [min(0.0, *ends), max(ends)]
        axes.plot(line, line, ls="--", lw=1, color="0.5", label="all that was lost")
        for i, (host, of) in enumerate(points.items()):
            axes.plot(
                [loss for _, loss, _ in of], [gain for _, _, gain in of], MARKERS[i], ms=6,
                color=COLOURS[i], label=host,
            )  # fmt: skip
        for task, loss, gain in next(iter(points.values())):
            axes.annotate(
                TITLES.get(task, task), (loss, gain), xytext=(5, 3), fontsize=7,
                textcoords="offset points",
            )  # fmt: skip
        axes.axhline(0, lw=0.8, color="0.6")
        axes.set(xlabel="New of zero-shot minus New of the host, points",
                 ylabel="New with SAR minus New without, points")  # fmt: skip
        axes.legend(fontsize=8)
        with replacing(path) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    runs = [
        {**r, "method": label(r)}
        for folder in given.runs
        for r in read_runs([folder])
        if r["protocol"] == "base-to-new"
    ]
    print(accuracy_table(runs), pair_table(runs), mechanism_table(runs), sep="\n")
    points = losses_and_gains(runs)
    lines = [
        [host, TITLES.get(task, task), f"{loss:+.1f}", f"{gain:+.1f}"]
        for host, of in points.items()
        for task, loss, gain in of
    ]
    print(rows(["host", "task", "New lost", "New given back by SAR"], lines))
    pairs = [(loss, gain) for of in points.values() for _, loss, gain in of]
    print(f"correlation over {len(pairs)} pairs of task and host: {correlation(pairs):.2f}")
    if given.plot:
        plot(points, given.plot)


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's."""
    x, y = ([pair[i] for pair in pairs] for i in (0, 1))
    a, b = mean(x), mean(y)
    shared = math.fsum((p - a) * (q - b) for p, q in pairs)
    spread = math.fsum((p - a) ** 2 for p in x) * math.fsum((q - b) ** 2 for q in y)
    return shared / math.sqrt(spread) if spread else math.nan


if __name__ == "__main__":
    main()
