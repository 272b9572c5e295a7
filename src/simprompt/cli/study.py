"""`simprompt study`: an experiment of the paper, or of ours, by its name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import Json, placed, whole_numbers, with_options
from simprompt.utils.options import Execution, ModelOptions, RecipeOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.studies.grid import Plan


@with_options
def study(
    name: Annotated[str, typer.Argument(help="Name, see `simprompt list studies`; or all")],
    model: ModelOptions,
    recipe: RecipeOptions,
    execution: Execution,
    smoke: Annotated[bool, typer.Option("--smoke", help="Minutes instead of hours")] = False,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Datasets instead of the study's, comma-separated; repeatable"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Random seeds, comma-separated. Default: the study's")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder of tables and plots")] = Path(
        "runs/studies"
    ),
    runs_dir: Annotated[
        str | None, typer.Option(help="Folder or URL of the runs. Default: OUT/runs")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make runs again that failed")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a predefined study and write its table and plot; a stopped one continues."""
    from simprompt.clip.catalogue import check_model
    from simprompt.data import catalogue
    from simprompt.experiments.sweep import make as sweep
    from simprompt.studies import find, grid, studies
    from simprompt.utils.files.atomic import check_folder

    runs_place, preset = runs_dir or str(out / "runs"), "smoke" if smoke else "full"
    model = placed(model, execution.ray)
    failed = False
    documents = []
    if model.model:
        check_model(model.model, model.tokenizer)
    for chosen in studies().values() if name == "all" else [find(name)]:
        plan = grid.plan(
            chosen,
            preset,
            datasets=catalogue.listed(dataset) if dataset else (),
            seeds=whole_numbers(seeds, "--seeds") if seeds else (),
            model=model,
            recipe=recipe,
        )
        check_folder(out)
        _announce(plan, runs_place, execution.workers)
        swept = sweep.sweep(
            plan.configs, runs_place, execution, quiet=json_, retry_failed=retry_failed
        )
        folder = out / f"{chosen.name}-{preset}"
        document = _write(plan, swept.results, folder, json_)
        configs = plan.configs
        if chosen.controls and not swept.failed:
            rehearsal = grid.rehearsal(plan, model=model, recipe=recipe)
            _announce(rehearsal, runs_place, execution.workers)
            rehearsed = sweep.sweep(
                rehearsal.configs, runs_place, execution, quiet=json_, retry_failed=retry_failed
            )
            configs += rehearsal.configs
            swept.failed.update(rehearsed.failed)
            if not rehearsed.failed:
                document["controls"] = _write_controls(
                    (plan, swept.results), (rehearsal, rehearsed.results), runs_place, folder, json_
                )
        if swept.failed:
            failed = True
            reasons = sweep.explain(configs, swept, runs_place)
            document["failed"] = reasons
            say(f"simprompt: {reasons} --retry-failed tries them again.", err=True)
        documents.append(document)
    if json_:
        say(json.dumps(documents if name == "all" else documents[0], indent=1))
    if failed:
        raise typer.Exit(1)


def _write_controls(
    real: tuple[Plan, dict[str, Any]],
    rehearsed: tuple[Plan, dict[str, Any]],
    runs: str,
    folder: Path,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Choose the controls of a study on its rehearsals, measure them on the real runs, and write
    tables and plot; returns the records."""
    from simprompt.experiments.summary import finite
    from simprompt.report import table as tabular
    from simprompt.report.selection import ZERO_SHOT
    from simprompt.studies import control_table, controls, plot, table
    from simprompt.utils.files.atomic import write_text
    from simprompt.utils.progress import progress_shown

    plan, study = real[0], real[0].study
    everything = [*controls.own_points(plan), *study.controls]
    with progress_shown(quiet=quiet):
        families = [control for control in everything if control.family]
        rehearsals = controls.measured(*rehearsed, runs, families)
        choices = control_table.chosen(everything, rehearsals)
        rows = controls.measured(*real, runs, everything)
    found = control_table.records(everything, rows, choices, study.compared_with, ZERO_SHOT)
    shown = control_table.table(study, found, study.compared_with, ZERO_SHOT)
    write_text(folder / "controls.csv", table.as_csv(found))
    write_text(folder / "controls-runs.csv", table.as_csv(rows))
    write_text(folder / "controls-rehearsals.csv", table.as_csv(rehearsals))
    write_text(folder / "controls.md", tabular.markdown(shown) + "\n")
    plot.write_controls(study, found, folder)
    if not quiet:
        say(tabular.text(shown) + "\n")
    return finite(found)  # type: ignore[no-any-return]


def _announce(plan: Plan, place: str, workers: int) -> None:
    """How many runs, and how long they should take, on stderr."""
    from simprompt.experiments.runner import identify
    from simprompt.experiments.store import finished
    from simprompt.experiments.sweep.pieces import cores
    from simprompt.studies import grid

    for point in plan.left_out:
        say(
            f"{plan.study.name}: {point.label!r} is left out, it needs {', '.join(point.needs)}",
            err=True,
        )
    waiting = [c for c in plan.configs if finished(place, identify(c)) is None]
    message = f"{plan.study.name}: {len(plan.configs)} runs"
    if len(waiting) < len(plan.configs):
        message += f", {len(plan.configs) - len(waiting)} of them there already"
    if waiting:
        try:
            seconds, steps = grid.training_seconds(waiting)
        except Exception as error:  # the run itself will say so and be recorded
            say(f"{message}; a step could not be measured: {error}", err=True)
            return
        at_once = min(workers or cores(), len(waiting))
        message += f", about {_duration(seconds / at_once)} of training"
        message += f" on {at_once} workers" if at_once > 1 else ""
        if steps:
            timings = ", ".join(f"{label} {ms:.0f}" for label, ms in list(steps.items())[:4])
            message += f" (measured now, ms a step: {timings}{', ...' if len(steps) > 4 else ''})"
        message += "; testing and image features, once a dataset, come on top"
    say(message, err=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _write(plan: Plan, results: dict[str, Any], folder: Path, quiet: bool) -> dict[str, Any]:
    """Table, plot and CSVs of a study; what `--json` prints of it."""
    from simprompt.cli import warn
    from simprompt.experiments.summary import finite
    from simprompt.report import table as tabular
    from simprompt.studies import plot, table
    from simprompt.utils.files.atomic import write_text

    rows = table.records(plan, results)
    document: dict[str, Any] = {
        "study": plan.study.name,
        "preset": plan.preset,
        "about": plan.study.about,
        "rows": finite(rows),
    }
    if not rows:
        return document
    tables = [table.table(plan.study, rows)]
    write_text(folder / "table.csv", table.as_csv(rows))
    write_text(folder / "runs.csv", table.as_csv(table.per_run(plan, results)))
    if plan.study.plot == "frontier" and (paths := table.frontiers(plan, results)):
        tables.append(table.frontier_table(paths))
        write_text(folder / "frontiers.csv", table.as_csv(paths))
        document["frontiers"] = paths
    written = "\n\n".join(tabular.markdown(t) for t in tables)
    if plan.preset == "smoke":
        written += "\n\nSmoke preset: a few steps on one task; these numbers mean nothing.\n"
    write_text(folder / "table.md", written + "\n")
    plot.write(plan.study, rows, folder)
    warnings = sorted({w for r in results.values() for w in r.get("warnings", ())})
    document["warnings"] = warnings
    if not quiet:
        for t in tables:
            say(tabular.text(t) + "\n")
        say(f"Table and plot in {folder}, {time.strftime('%H:%M')}")
        warn.show(results.values())
    return document
