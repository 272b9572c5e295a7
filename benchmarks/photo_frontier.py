"""The study `frontier` on six photo tasks that do not all have one template and one list of names.

    python benchmarks/photo_frontier.py TASKS --out runs/photo-frontier

`$SIMPROMPT_DATA` has Caltech101 and EuroSAT in CoOp's layout, TASKS is what `photo_tasks.py` wrote.
Settings are those of the `@photos` recipes. What is done to the trained prompts is chosen on
rehearsals inside the base classes of all six tasks together.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from simprompt.experiments.sweep.make import sweep
from simprompt.report import table as tabular
from simprompt.studies import control_table, controls, find, grid, plot, table
from simprompt.utils.files.atomic import write_text
from simprompt.utils.options import Execution, ModelOptions, RecipeOptions
from simprompt.utils.progress import progress_shown

NOUNS = "sar.novel=random-nouns"
GROUPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("caltech101", "eurosat"), ()),
    (("{}/animals", "{}/in-imagenet", "{}/not-in-imagenet"), (NOUNS,)),
    (("{}/dtd-10",), (NOUNS, "template={} texture.")),
)
POINTS = ("zero-shot", "CoOp", "SAR")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/photo-frontier"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rehearsals", default="1,2,3", help="seeds of pseudo-new classes")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", help="one of the tasks, to try it out")
    given = parser.parse_args()
    study = find("frontier")
    study = replace(
        study,
        points=tuple(point for point in study.points if point.label in POINTS),
        # their prompts do not start as the hand-crafted one: there is no way back in the context
        controls=tuple(c for c in study.controls if c.source in POINTS and not c.context),
    )
    runs = given.out / "runs"
    everything = [*(controls.Control(p.label, p.label) for p in study.points), *study.controls]
    families = [control for control in everything if control.family]
    rehearsals: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for names, settings in GROUPS:
        recipe = RecipeOptions(settings=[*settings])
        datasets = [name.format(given.tasks) for name in names]
        datasets = [name for name in datasets if not given.only or given.only in name]
        if not datasets:
            continue
        model = ModelOptions(model="photos")
        seeds = [int(seed) for seed in given.seeds.split(",")]
        pseudo = [int(seed) for seed in given.rehearsals.split(",")]
        real = grid.plan(study, datasets=datasets, seeds=seeds, model=model, recipe=recipe)
        rehearsal = grid.rehearsal(real, seeds=pseudo, model=model, recipe=recipe)
        for plan, taken, found in ((real, everything, rows), (rehearsal, families, rehearsals)):
            swept = sweep(plan.configs, str(runs), Execution(workers=given.workers))
            with progress_shown():
                found += controls.measured(plan, swept.results, runs, taken)
    choices = control_table.chosen(everything, rehearsals)
    found = control_table.records(everything, rows, choices, study.compared_with)
    shown = control_table.table(study, found, study.compared_with, "zero-shot")
    write_text(given.out / "controls.csv", table.as_csv(found))
    write_text(given.out / "controls-runs.csv", table.as_csv(rows))
    write_text(given.out / "controls-rehearsals.csv", table.as_csv(rehearsals))
    write_text(given.out / "controls.md", tabular.markdown(shown) + "\n")
    plot.write_controls(study, found, given.out)
    print(tabular.text(shown))


if __name__ == "__main__":
    main()
