"""Plots as inline SVG. Colours are CSS variables, so one drawing serves a light and a dark page.

Matplotlib draws with stand-in colours (`INK`, `BACK`, ...), which are replaced in its output.
Each plot is about 4 inches wide: a page sets several side by side, a phone one below the other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.summary import dataset_means, paired
from simprompt.report.selection import (
    ZERO_SHOT,
    datasets_of,
    measures_of,
    methods_of,
    of_method,
    pretty,
)

INK, FAINT, BACK = "#0a0b0c", "#1a1b1c", "#2a2b2c"
METHODS = tuple(f"#c0ffe{i}" for i in range(7))  # 0 is zero-shot; the palette is in page.css
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    BACK: "var(--back)",
    **{colour: f"var(--m{i})" for i, colour in enumerate(METHODS)},
}

NUMBERED = 12  # with more tasks than this, points are not numbered and thin lines not drawn

STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9.5,
    "text.parse_math": False,  # a name may hold dollar signs
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.6,
}
MEAN: Any = {"s": 80, "lw": 1.2, "edgecolor": BACK, "zorder": 3}  # the point of a mean


def method_number(label: str, labels: Sequence[str]) -> int:
    """Which palette colour a method has, everywhere on the page: 0 for zero-shot, else 1 to 6."""
    labels_without_zero_shot = [m for m in labels if m != ZERO_SHOT]
    return (
        0 if label == ZERO_SHOT else 1 + labels_without_zero_shot.index(label) % (len(METHODS) - 1)
    )


def colour(label: str, labels: Sequence[str]) -> str:
    """Stand-in colour of a method."""
    return METHODS[method_number(label, labels)]


def marker(label: str) -> str:
    """Shape of a method's points, so that colour is not all that tells them apart."""
    if label == ZERO_SHOT:
        return "D"
    return "s" if label.endswith("+sar") else "o"


def _look(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """Marker and colour of a method's points."""
    return {"marker": marker(label), "color": colour(label, labels)}


def base_against_new(results: Sequence[RunResult], family: Sequence[str], name: str) -> str | None:
    """Each task a path through the methods of `family`, the means a thick one.

    None where no method has both accuracies.
    """
    labels, datasets = methods_of(results), datasets_of(results)
    points = {m: _means(of_method(results, m)) for m in family}
    if not any(points.values()):
        return None
    is_numbered = len(datasets) <= NUMBERED
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.1, 3.9)
        for number, dataset in enumerate(datasets, 1):
            path = [points[m][dataset] for m in family if dataset in points[m]]
            if len(path) > 1:
                axes.plot(*zip(*path, strict=True), color=FAINT, lw=0.8, zorder=1)
            if path and is_numbered:
                axes.annotate(
                    str(number),
                    path[0],
                    xytext=(-4.5, 0),
                    textcoords="offset points",
                    fontsize=9.5,
                    ha="right",
                    va="center",
                )
        for m in family:
            if points[m]:
                xs, ys = zip(*points[m].values(), strict=True)
                size = 17 if is_numbered else 9
                axes.scatter(xs, ys, s=size, lw=0, alpha=0.75, zorder=2, **_look(m, labels))
        centres = {m: np.mean(list(points[m].values()), axis=0) for m in family if points[m]}
        axes.plot(*zip(*centres.values(), strict=True), color=INK, lw=1.6, zorder=3)
        for m, centre in centres.items():
            ring: Any = {"s": 105, "lw": 1.3, "edgecolor": BACK, "zorder": 4}
            axes.scatter(centre[0], centre[1], label=pretty(m), **ring, **_look(m, labels))
        axes.set(xlabel="Base accuracy, %", ylabel="New accuracy, %")
        axes.margins(0.09)
        _lines_of_equal_h(axes)
        _legend(axes, len(centres))
        return _svg(figure, name, "New against base accuracy of each task and method")


def _means(results: Sequence[RunResult]) -> dict[str, tuple[float, float]]:
    points = {d: (row["base"], row["new"]) for d, row in dataset_means(results).items()}
    return {d: point for d, point in points.items() if np.isfinite(point).all()}


def _lines_of_equal_h(axes: Axes) -> None:
    """Faint curves on which the harmonic mean is 10, 20, ... 90, named at their right end."""
    (x_min, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for h in range(10, 100, 10):
        base = np.linspace(max(x_min, h / 2 + 0.5), right, 200)
        new_values = h * base / (2 * base - h)
        inside = (new_values >= bottom) & (new_values <= top)
        if not inside.any():
            continue
        axes.plot(base[inside], new_values[inside], color=FAINT, lw=0.7, ls=(0, (1, 3)), zorder=0)
        axes.annotate(
            f"H {h}",
            (base[inside][-1], new_values[inside][-1]),
            fontsize=9,
            color=INK,
            alpha=0.7,
            ha="right",
            va="bottom",
            zorder=0,
        )
    axes.set(xlim=(x_min, right), ylim=(bottom, top))


def curves(
    results: Sequence[RunResult], family: Sequence[str], which: str, name: str
) -> str | None:
    """Mean training loss (`which`: "loss" or "sar") of each method; thin lines: each task.

    Runs differ in their number of epochs, so the axis is the share of training that is done. A
    mean starts where all tasks have had an epoch, so that it does not jump when one joins.
    """
    labels = methods_of(results)
    grid = np.linspace(0, 100, 101)
    lines_drawn: dict[str, dict[str, np.ndarray]] = {}
    for m in family:
        for dataset in datasets_of(results):
            runs = [
                r["curves"][which]
                for r in results
                if r["dataset"] == dataset and r["method"] == m and r["curves"].get(which)
            ]
            lines = [
                np.interp(grid, 100 * np.arange(1, len(v) + 1) / len(v), v, left=np.nan)
                for v in runs
            ]
            if lines:
                lines_drawn.setdefault(m, {})[dataset] = np.mean(lines, axis=0)
    if not lines_drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.1, 2.9)
        for m, lines_of in lines_drawn.items():
            if 1 < len(lines_of) <= NUMBERED:
                for line in lines_of.values():
                    axes.plot(grid, line, color=colour(m, labels), lw=0.6, alpha=0.45)
            axes.plot(
                grid,
                np.mean(list(lines_of.values()), axis=0),
                color=colour(m, labels),
                lw=2.2,
                ls=(0, (5, 1.2)) if m.endswith("+sar") else "-",
                label=pretty(m),
            )
        axis_label = {"sar": "SAR loss, nats", "loss": "Loss without SAR, nats"}[which]
        axes.set(xlabel="Training done, %", ylabel=axis_label, xlim=(0, 100))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        _legend(axes, len(lines_drawn))
        return _svg(figure, name, axis_label)


def differences(results: Sequence[RunResult], host: str, sar: str, name: str) -> str:
    """SAR minus its host: each task a dot, the mean of the dots and its 95% interval above.

    For H that is the mean of the tasks' own H.
    """
    labels, gains = methods_of(results), paired(results, sar, host)
    measures = {
        "mean_h" if m == "h" else m: "Mean of H" if m == "h" else name
        for m, name in measures_of(results).items()
    }
    numbers = {d: i for i, d in enumerate(datasets_of(results), 1)}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.1, 2.6)
        axes.axvline(0, color=INK, lw=0.9)
        look = _look(sar, labels)
        for row, measure in enumerate(measures):
            values = gains[measure]["per_dataset"]
            is_numbered = len(values) <= NUMBERED
            rows, size = [row + 0.16] * len(values), 17 if is_numbered else 8
            axes.scatter(list(values.values()), rows, s=size, lw=0, alpha=0.75, **look)
            if gains[measure]["ci95"]:
                axes.plot(gains[measure]["ci95"], [row - 0.18] * 2, color=INK, lw=2)
            axes.scatter([gains[measure]["diff"]], [row - 0.18], **MEAN, **look)
        x_min, right = axes.get_xlim()
        for row, measure in enumerate(measures):
            values = gains[measure]["per_dataset"]
            for dataset, x in _spread(values, (right - x_min) / 24).items():
                if len(values) <= NUMBERED:
                    axes.annotate(
                        str(numbers[dataset]), (x, row + 0.28), fontsize=9, ha="center", va="top"
                    )
        axes.set_yticks(range(len(measures)), list(measures.values()))
        axes.set_ylim(len(measures) - 0.35, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{pretty(sar)} − {pretty(host)}, points")
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        return _svg(figure, name, f"Paired differences in {', '.join(measures.values())}")


def _spread(values: Mapping[str, float], step: float) -> dict[str, float]:
    """Places for the dots' numbers: the dots' own, moved until they are `step` apart.

    Numbers that push each other stand evenly around the middle of their dots; such a cluster
    takes in the one before it when it has grown into it.
    """
    clusters: list[list[str]] = []

    def place(cluster: list[str], i: int) -> float:
        middle = float(np.mean([values[d] for d in cluster]))
        return middle + (i - (len(cluster) - 1) / 2) * step

    for dataset in sorted(values, key=lambda d: values[d]):
        clusters.append([dataset])
        while (
            len(clusters) > 1
            and place(clusters[-1], 0) - place(clusters[-2], len(clusters[-2]) - 1) < step
        ):
            last = clusters.pop()
            clusters[-1] += last
    return {d: place(cluster, i) for cluster in clusters for i, d in enumerate(cluster)}


def mechanism(
    results: Sequence[RunResult], family: Sequence[str], which: str, name: str
) -> str | None:
    """`row_kl` or `correlation` to the hand-crafted similarities, on three groups of classes."""
    labels, methods_shown = methods_of(results), [m for m in family if m != ZERO_SHOT]
    groups = {"base": "base", "novel": "novel", "new": "true new"}
    measured = [r for m in methods_shown for r in of_method(results, m)]
    if not any(mechanism_means(measured, group, which) for group in groups):
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.1, 2.6)
        axes.axvline(1 if which == "correlation" else 0, color=METHODS[0], lw=2.2)
        for i, m in enumerate(methods_shown):
            for row, group in enumerate(groups):
                y = row + (i - (len(methods_shown) - 1) / 2) * 0.3
                values = list(mechanism_means(of_method(results, m), group, which).values())
                if not values:
                    continue
                axes.scatter(values, [y] * len(values), s=13, lw=0, alpha=0.6, **_look(m, labels))
                axes.scatter([float(np.mean(values))], [y], **MEAN, **_look(m, labels))
            axes.scatter([], [], s=60, label=pretty(m), **_look(m, labels))
        axes.plot([], [], color=METHODS[0], lw=2.2, label="hand-crafted")
        axes.set_yticks(range(3), list(groups.values()))
        axes.set_ylim(2.6, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axis_label = {"correlation": "Correlation of similarities", "row_kl": "Row KL, nats"}[which]
        axes.set_xlabel(axis_label)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        _legend(axes, len(methods_shown) + 1)
        return _svg(figure, name, axis_label)


def mechanism_means(results: Sequence[RunResult], group: str, which: str) -> dict[str, float]:
    """Dataset -> mean over seeds of one mechanism number, where it was measured."""
    values: dict[str, list[float]] = {}
    for r in results:
        value = ((r.get("mechanism") or {}).get(group) or {}).get(which)
        if value is not None and np.isfinite(value):
            values.setdefault(r["dataset"], []).append(value)
    return {d: float(np.mean(v)) for d, v in values.items()}


def heatmap(
    similarities: np.ndarray, n_base: int, limits: tuple[float, float], name: str, title: str
) -> str:
    """Class similarities [C, C]; the diagonal, always 1, is left blank."""
    matrix = similarities.astype(float).copy()
    np.fill_diagonal(matrix, np.nan)
    n = len(matrix)
    with matplotlib.rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure, axes = _figure(3.5, 3.95)
        has_both = 0 < n_base < n
        image = axes.imshow(
            matrix, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="none"
        )
        for draw in (axes.axhline, axes.axvline) if has_both else ():
            draw(n_base - 0.5, color="#ffffff", lw=2.2)
            draw(n_base - 0.5, color="#d00000", lw=1.1)
        middles = [(n_base - 1) / 2, (n_base + n - 1) / 2] if has_both else []
        words = ["base", "new"][: len(middles)]
        axes.set_xticks(middles, words)
        axes.set_yticks(middles, words, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03)
        bar.outline.set_visible(False)
        bar.set_label("cosine similarity")
        bar.locator = MaxNLocator(5, steps=[1, 2, 5, 10])
        bar.update_ticks()
        return _svg(figure, name, f"Class similarities, {title}")


def reliability(bins: Sequence[tuple[float, float, int]], name: str, title: str) -> str:
    """How often answers of each confidence are right; the diagonal is right as often as said.

    Args:
        bins: (mean confidence, part that is right, images), each in [0, 1].
    """
    greatest = max((count for _, _, count in bins), default=1)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.5, 3.3)
        axes.plot([0, 1], [0, 1], color=METHODS[0], lw=1.2)
        x, y = [b[0] for b in bins], [b[1] for b in bins]
        axes.vlines(x, x, y, color=METHODS[1], lw=1)
        sizes = [12 + 80 * count / greatest for *_, count in bins]
        axes.scatter(x, y, s=sizes, color=METHODS[2], zorder=3)
        axes.set(
            xlim=(0, 1.02),
            ylim=(0, 1.02),
            xlabel="probability it gave",
            ylabel="part that was right",
            title=title,
        )
        return _svg(figure, name, f"Reliability, {title}")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _legend(axes: Axes, entries: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(entries, 3),
        handletextpad=0.3,
        columnspacing=1.2,
        borderpad=0.2,
        borderaxespad=0.2,
        handlelength=1.9,
    )


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element whose ids start with `name`: a page holds many of them."""
    out = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None  # Matplotlib always writes one
    head = (
        f'<svg class="plot" role="img" aria-label="{escape(label)}" {size[0]} '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    svg = head + svg[svg.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", svg)
