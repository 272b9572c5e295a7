"""A study's plot, as SVG and PNG."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simprompt.experiments.protocols import MEANING
from simprompt.studies import Study
from simprompt.utils.files.atomic import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"
COSTS = {"ms_per_step": "ms a step", "peak_mb": "peak memory, MB"}
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "simprompt",
}  # fmt: skip

Record = dict[str, Any]


def write(study: Study, rows: Sequence[Record], folder: Path) -> list[Path]:
    """Draw the records of `table.records` into `plot.svg` and `plot.png`."""
    measures = [m for m in ("base", "new", "h") if MEANING[study.protocol][m]]
    if study.costs and study.plot != "bars":
        measures = {"costs": [*COSTS], "cost": measures[:2]}.get(study.plot, [*measures, *COSTS])
    draw = {
        "line": _lines, "frontier": _frontier, "bars": _bars, "costs": _costs, "cost": _over_time
    }[study.plot]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        panels = len(measures) if study.plot in ("line", "costs", "cost") else 1
        size = {
            "line": (3.4 * panels + 1, 3.8),
            "frontier": (9.0, 5.2),
            "costs": (8.0, 1.3 + 0.35 * len(rows)),
            "cost": (9.6, 4.4),
            "bars": (7.0, 1.3 + 0.42 * len(rows)),
        }[study.plot]
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        draw(study, rows, measures, list(axes))
        figure.suptitle(study.about, fontsize=9.5)
        return _saved(figure, folder, "plot")


def write_controls(study: Study, found: Sequence[Record], folder: Path) -> list[Path]:
    """Draw the records of `control_table.records` into `controls.svg` and `controls.png`: paths
    from the prompts that they begin with."""
    rows = [
        {
            "point": r["control"], "series": r["family"], "x": r["x"], "start": r["source"],
            "base": r["base"], "new": r["new"],
        }
        for r in found
    ]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 6.6), layout="constrained")
        FigureCanvasAgg(figure)
        _frontier(study, rows, [], [figure.subplots()])
        figure.suptitle(study.about, fontsize=9.5)
        return _saved(figure, folder, "controls")


def _saved(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        meta = {"Date": None} if path.suffix == ".svg" else None
        with replacing(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=150, metadata=meta)
    return paths


def _series(rows: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for row in rows:
        if row["x"] is not None:
            groups.setdefault(row["series"], []).append(row)
    return groups


def _lines(study: Study, rows: Sequence[Record], measures: list[str], panels: list[Axes]) -> None:
    """One panel a measure over the axis; points without an x are level lines."""
    ticks = list(dict.fromkeys(r["x"] for r in rows if r["x"] is not None))
    level = [r for r in rows if r["x"] is None]
    for panel, measure in zip(panels, measures, strict=True):
        for i, (name, group) in enumerate(_series(rows).items()):
            panel.plot(
                [ticks.index(r["x"]) for r in group], [r[measure] for r in group],
                marker=MARKERS[i], ms=4, color=COLOURS[i], label=name or None,
            )  # fmt: skip
        for i, r in enumerate(level):
            panel.axhline(r[measure], ls=("--", ":")[i % 2], lw=1, color="0.4", label=r["point"])
        panel.set(xlabel=study.axis, title=COSTS.get(measure) or MEANING[study.protocol][measure])
        panel.set_xticks(range(len(ticks)), ticks)
    panels[0].set_ylabel("accuracy, %")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize=8)


def _frontier(
    study: Study, rows: Sequence[Record], measures: list[str], panels: list[Axes]
) -> None:
    """New against Base; each series is a path from its start (by default the reference), its
    weights written beside."""
    (axes,) = panels
    for i, (name, group) in enumerate(_series(rows).items()):
        origin = group[0].get("start", study.reference)
        start = next((r for r in rows if r["point"] == origin), None)
        one_axis = len({r["x"] for r in group}) == len(group)  # with two there is no path
        path_points = [start, *group] if start and one_axis else group
        colour = _colour(i)
        axes.plot(
            [r["base"] for r in path_points], [r["new"] for r in path_points],
            marker=MARKERS[i % len(MARKERS)], ls="-" if one_axis else "",
            ms=4, lw=1.2, color=colour, label=name, alpha=0.85,
        )  # fmt: skip
        axes.annotate(
            group[-1]["x"], (group[-1]["base"], group[-1]["new"]), xytext=(4, 3),
            textcoords="offset points", fontsize=7, color=colour,
        )  # fmt: skip
    alone = [r for r in rows if r["x"] is None]
    for letter, r in zip(ascii_uppercase, alone, strict=False):
        axes.plot(
            r["base"], r["new"], "o", ms=11, mfc="white", mec="0.25", zorder=5,
            label=f"{letter}  {textwrap.fill(r['point'], 36)}", mew=0.8,
        )  # fmt: skip
        axes.annotate(
            letter, (r["base"], r["new"]), ha="center", va="center", fontsize=7.5, zorder=6
        )
    axes.set(xlabel="Base accuracy, %", ylabel="New accuracy, %")
    axes.legend(
        fontsize=7.5, title=study.axis and f"by {study.axis}", title_fontsize=7.5,
        loc="upper left", bbox_to_anchor=(1.01, 1),
    )  # fmt: skip


def _colour(number: int) -> Any:
    """Of the series of a busy plot: the eight of all plots, then those of a larger palette."""
    extra = matplotlib.colormaps["tab20b"].colors  # type: ignore[attr-defined]
    return [*COLOURS, *extra[::3]][number % (len(COLOURS) + len(extra[::3]))]


def _bars(study: Study, rows: Sequence[Record], measures: list[str], panels: list[Axes]) -> None:
    """A row of bars a point; the whiskers are the interval of the difference to the reference."""
    (axes,) = panels
    height = 0.8 / len(measures)
    for i, measure in enumerate(measures):
        for j, r in enumerate(rows):
            if math.isnan(r[measure]):
                continue
            y = j + (i - (len(measures) - 1) / 2) * height
            low, high = r[f"d_{measure}_low"], r[f"d_{measure}_high"]
            spread = (
                None if low is None else [[r[f"d_{measure}"] - low], [high - r[f"d_{measure}"]]]
            )
            axes.barh(
                y, r[measure], height * 0.92, color=COLOURS[i], xerr=spread,
                error_kw={"lw": 0.8, "ecolor": "0.3"},
                label=MEANING[study.protocol][measure] if j == 0 else None,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [r["point"] for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _costs(study: Study, rows: Sequence[Record], measures: list[str], panels: list[Axes]) -> None:
    """What a point costs, a panel a kind."""
    for i, (panel, measure) in enumerate(zip(panels, measures, strict=True)):
        panel.barh(range(len(rows)), [r[measure] or 0 for r in rows], 0.7, color=COLOURS[i])
        panel.set_yticks(range(len(rows)), [r["point"] for r in rows] if i == 0 else [])
        panel.invert_yaxis()
        panel.set_xlabel(COSTS[measure])


def _over_time(
    study: Study, rows: Sequence[Record], measures: list[str], panels: list[Axes]
) -> None:
    """Accuracy against the time of a step, a panel a measure; what has no step is a level line."""
    timed = sorted((r for r in rows if r["ms_per_step"]), key=lambda r: r["ms_per_step"])
    for panel, measure in zip(panels, measures, strict=True):
        for i, r in enumerate(timed):
            panel.plot(
                r["ms_per_step"], r[measure], MARKERS[i % len(MARKERS)], ms=7,
                color=COLOURS[i % len(COLOURS)], label=r["point"],
            )  # fmt: skip
        for r in rows:
            if not r["ms_per_step"]:
                panel.axhline(r[measure], ls="--", lw=1, color="0.4", label=r["point"])
        panel.set(xlabel=study.axis, title=MEANING[study.protocol][measure])
    panels[0].set_ylabel("accuracy, %")
    panels[-1].legend(fontsize=7.5)
