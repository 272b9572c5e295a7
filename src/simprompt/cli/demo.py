"""`simprompt demo`: the whole idea on the CLIP and the images that ship with the package."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import Json, Seeds, placed, whole_numbers, with_options
from simprompt.utils.options import Execution, MethodOptions, ModelOptions
from simprompt.utils.terminal import say


@with_options
def demo(
    options: ModelOptions,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Datasets instead of the icon tasks; repeatable"),
    ] = None,
    seeds: Seeds = "1",
    out: Annotated[Path, typer.Option(help="Output folder of runs and report.html")] = Path(
        "runs/demo"
    ),
    workers: Annotated[
        int, typer.Option(help="Processes; 0: one per core, at most 4, or one on a GPU", min=0)
    ] = 0,
    json_: Json = False,
) -> None:
    """Compare zero-shot, CoOp and CoOp+SAR on the bundled icon tasks.

    --seeds 1,2,3 trains each method three times; what is in --out already is not made again. With
    --model and --dataset the same on your images and another CLIP.
    """
    from simprompt.cli.results import emit
    from simprompt.data import icons
    from simprompt.data.catalogue import listed
    from simprompt.errors import SimpromptError
    from simprompt.experiments.sweep.make import make_runs
    from simprompt.novel.sources import bundled_datasets
    from simprompt.recipes import plan
    from simprompt.report import page
    from simprompt.utils.files.atomic import check_folder

    started, model = time.perf_counter(), options.model or "icons"
    if model != "icons" and not dataset:
        raise SimpromptError(
            f"The demo's own images are icons, which {model} was not made for: name others with "
            "--dataset, such as a folder of class folders."
        )
    tasks = listed(dataset) if dataset else list(icons.tasks())
    options = placed(options)
    seed_list = whole_numbers(seeds, "--seeds")
    configs = []
    for task in tasks:
        own = [] if task in bundled_datasets() else [f"sar.novel={plan.OWN_SOURCE}"]
        method = MethodOptions(method="zero-shot,coop", settings=own)
        configs += plan.plan([task], seed_list, options, method)
    check_folder(out)
    if not workers:
        workers = min(os.cpu_count() or 1, 4) if options.device == "cpu" else 1
    results = make_runs(configs, out, Execution(workers=workers), quiet=json_)
    page.write(results, out / "report.html")
    emit(results, configs, started, json_, out)
    if not json_:
        say(
            f"{time.perf_counter() - started:.0f} seconds. Open {out / 'report.html'} in a browser."
        )
