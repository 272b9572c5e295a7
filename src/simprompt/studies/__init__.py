"""The paper's experiments and ours, each a named grid of runs with its table and its plot.

A study is a list of *points*: settings of one method, run on some datasets with some seeds. The
points of all studies are plain data in `catalogue`; `grid` makes runs of them, `table` and `plot`
what is read. Studies share their runs: the same settings are trained once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

from simprompt.errors import SimpromptError


@dataclass(frozen=True)
class Point:
    """One row of a study.

    Attributes:
        label: its name in the table.
        settings: as `--set` takes them, on top of the recipe.
        method, sar: what is run; without `sar` the settings of SAR do not count.
        x: its place on the plot's axis, in words; points without one are drawn as level lines
            (a line plot) or as single marks (a frontier).
        series: which line it belongs to.
        suffix: put behind the dataset's name for an icon task, such as "@colour".
        recipe: what this point begins with instead of METHOD@MODEL.
        needs: packages of an extra; the point is left out where they are not installed.
    """

    label: str
    settings: tuple[str, ...] = ()
    method: str = "coop"
    sar: bool = True
    x: str | None = None
    series: str = ""
    suffix: str = ""
    recipe: str | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """One way to answer with a trained prompt.

    Attributes:
        label: its name in the table.
        source: label of the point whose prompt it begins with.
        family: controls among which base classes choose, and a path on the plot; without one it is
            in the table as it is.
        blend: share of the hand-crafted text in the text features, 0 to 1.
        context: share of the hand-crafted prompt in the context vectors, as `options.blend` has it.
        over_seeds: the context is the mean over all seeds; each learned from shots of its own.
        ridge: of the image map (`methods.image_map`); None: images stay where they are.
        hold: mu of the map.
        switch: names without images take the hand-crafted text alone.
        means: names with images are answered by class means, calibrated against the text of all
            others as in `methods.means_with_text`.
        x: what is written beside its point of the path.
    """

    label: str
    source: str
    family: str = ""
    blend: float = 0.0
    context: float = 0.0
    over_seeds: bool = False
    ridge: float | None = None
    hold: float = 0.0
    switch: bool = False
    means: bool = False
    x: str | None = None


@dataclass(frozen=True)
class Study:
    """A named experiment.

    Attributes:
        about: the question, in a sentence.
        points: its rows.
        reference: label of the point that differences are taken to.
        axis: what `x` is.
        plot: "line" over x, "frontier" (New against Base, one path a series, x the weight),
            "bars", "costs" (time and memory instead of accuracy), or "cost" (Base and New against
            the time of a step).
        protocol: see `simprompt.experiments.protocols`.
        datasets, model: by default the icon tasks and the embedded CLIP.
        smoke: how many points the smoke preset runs, for studies with many slow ones.
        costs: whether the table shows parameters, time a step and memory.
        controls: what is done to the trained prompts of the points; see `studies.controls`.
        compared_with: label of the point that controls are compared with.
        note: what stands under the table, such as the paper's figure.
    """

    name: str
    about: str
    points: tuple[Point, ...]
    reference: str
    axis: str = ""
    plot: Literal["line", "frontier", "bars", "costs", "cost"] = "bars"
    protocol: str = "base-to-new"
    datasets: tuple[str, ...] = ()
    model: str = "icons"
    smoke: int | None = None
    costs: bool = False
    controls: tuple[Control, ...] = ()
    compared_with: str = ""
    note: str = field(default="", repr=False)


def studies() -> dict[str, Study]:
    """All studies by name, the paper's first."""
    catalogue: tuple[Study, ...] = import_module(f"{__name__}.catalogue").STUDIES
    return {study.name: study for study in catalogue}


def find(name: str) -> Study:
    """A study by name.

    Raises:
        SimpromptError: there is none.
    """
    all_studies = studies()
    if name not in all_studies:
        raise SimpromptError(f"There is no study {name!r}. Studies: {', '.join(all_studies)}.")
    return all_studies[name]
