"""`simprompt tune`: choose settings on base classes alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import (
    BatchRuns,
    Datasets,
    Device,
    Dtype,
    ImageSize,
    Json,
    Method,
    Model,
    Recipe,
    Seeds,
    Set,
    TokenizerFile,
    Workers,
    checked,
    placed,
    resolved,
    sar_choices,
    whole_numbers,
)
from simprompt.utils.terminal import say


def tune(
    dataset: Datasets,  # "icons" stands for all icon tasks
    grid: Annotated[list[str], typer.Option(help="key=value,value,... ; repeat for more axes")],
    by: Annotated[str, typer.Option(help="Score: base, new or h of the pseudo-new split")] = "h",
    model: Model = "icons",
    method: Method = None,
    sar: Annotated[str, typer.Option(help="on or off")] = "on",
    seeds: Seeds = "1",
    set_: Set = None,
    recipe: Recipe = None,
    tokenizer: TokenizerFile = None,
    image_size: ImageSize = None,
    device: Device = None,
    dtype: Dtype = "float32",
    one_se: Annotated[
        bool, typer.Option("--one-se", help="Of the points level with the best, the highest new")
    ] = False,
    each: Annotated[bool, typer.Option(help="Choose for each dataset on its own")] = False,
    shots_only: Annotated[
        bool,
        typer.Option(
            "--shots-only/--all-labels",
            help="Use the shots of each seed, or all labelled images of base classes",
        ),
    ] = True,
    out: Annotated[Path, typer.Option(help="Where the runs are kept")] = Path("runs/tune"),
    workers: Workers = 1,
    batch_runs: BatchRuns = "off",
    json_: Json = False,
) -> None:
    """Grid search on a pseudo-new split held out from the base classes.

    Scores a tenth of a point apart are noise; --one-se says what to do about it: of the points that
    the score cannot tell from the best, it takes the one that is best on the pseudo-new classes.
    """
    from simprompt.data import icons
    from simprompt.data.catalogue import REHEARSAL, REHEARSAL_ALL, listed
    from simprompt.errors import SimpromptError
    from simprompt.experiments.sweep.make import check_batching, make_runs
    from simprompt.recipes import plan
    from simprompt.studies import tuning

    if by not in tuning.SCORES:
        raise SimpromptError(f"--by takes one of {', '.join(tuning.SCORES)}; got {by!r}.")
    (with_sar,) = sar_choices(sar, ("off", "on"), weight=False)
    datasets = list(icons.tasks()) if dataset == ["icons"] else listed(dataset)
    check_batching(batch_runs)
    points = tuning.parse_grid(grid)
    configs = plan.grid(
        points,
        [d + (REHEARSAL if shots_only else REHEARSAL_ALL) for d in datasets],
        checked(model, tokenizer),
        method,
        whole_numbers(seeds, "--seeds"),
        sar=bool(with_sar),
        settings=set_ or [],
        recipe=recipe,
        tokenizer=resolved(tokenizer),
        image_size=image_size,
        **placed(device, dtype),
    )
    flat = [config for group in configs for config in group]
    results = make_runs(flat, out, workers, quiet=json_, batch_runs=batch_runs)
    by_key = {c.handle: r for c, r in zip(flat, results, strict=True)}
    rows = tuning.scores(points, configs, by_key, by)
    chosen = {d: tuning.best(rows, d)["point"] for d in datasets} if each else {}
    winner = tuning.strongest(rows) if one_se else tuning.best(rows)
    if json_:
        document = {"by": by, "rows": rows, "chosen": winner["point"], "chosen_each": chosen}
        say(json.dumps(document, indent=1))
        return
    # not H of the two means beside it: a task's H is taken first
    score = "mean of h" if by == "h" else by
    for row in rows:
        mark = "  <- chosen" if row is winner else ""
        say(
            f"{'  '.join(row['point']):50s} base {row['base']:6.2f}  new {row['new']:6.2f}  "
            f"{score} {row['score']:6.2f}{mark}"
        )
    for name, point in chosen.items():
        say(f"{name}: {'  '.join(point)}")
