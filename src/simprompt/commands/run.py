"""`simprompt run`: methods with and without SAR on a dataset, base classes to new ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from simprompt.commands.options import (
    BatchRuns,
    ImageSize,
    Json,
    Log,
    Model,
    RayAddress,
    Recipe,
    Set,
    TokenizerFile,
    Workers,
    resolved,
    sar_choices,
    whole_numbers,
)


def run(
    dataset: Annotated[str, typer.Option(help="Datasets, comma-separated: icons/animals,dtd")],
    model: Model = "icons",
    method: Annotated[
        str | None,
        typer.Option(help="Methods, comma-separated, or 'all'; default: the recipe's, or coop"),
    ] = None,
    sar: Annotated[str, typer.Option(help="off, on, both, or a weight such as 0.4")] = "both",
    shots: Annotated[
        int | None, typer.Option(help="Training images a class; default: the recipe's", min=1)
    ] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated")] = "1,2,3",
    tokenizer: TokenizerFile = None,
    image_size: ImageSize = None,
    set_: Set = None,
    recipe: Recipe = None,
    out: Annotated[Path, typer.Option(help="Where the runs are kept")] = Path("runs"),
    max_test_per_class: Annotated[
        int | None, typer.Option(help="Test on at most this many images a class", min=1)
    ] = None,
    workers: Workers = 1,
    batch_runs: BatchRuns = "off",
    ray: RayAddress = None,
    log: Log = None,
    json_: Json = False,
) -> None:
    """Train on base classes, test on base and new; finished runs are kept and reused."""
    from simprompt import methods, plans
    from simprompt.commands.results import emit
    from simprompt.sweep.make import make_runs

    started = time.perf_counter()
    configs = plans.plan(
        dataset.split(","),
        model,
        methods.names() if method == "all" else method.split(",") if method else [],
        whole_numbers(seeds, "--seeds"),
        sar=sar_choices(sar),
        shots=shots,
        settings=set_ or [],
        recipe=recipe,
        max_test_per_class=max_test_per_class,
        tokenizer=resolved(tokenizer),
        image_size=image_size,
    )
    results = make_runs(
        configs, out, workers, quiet=json_, ray=ray, log=log or (), batch_runs=batch_runs
    )
    emit(results, configs, started, json_, out)
