"""`simprompt tune`: choose settings on base classes alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import (
    Datasets,
    Json,
    Seeds,
    placed,
    whole_numbers,
    with_options,
)
from simprompt.errors import SimpromptError
from simprompt.utils.options import ChoiceOptions, Execution, MethodOptions, ModelOptions
from simprompt.utils.terminal import say


@with_options
def tune(
    dataset: Datasets,
    grid: Annotated[list[str], typer.Option(help="key=value,value,...; repeat for more axes")],
    model: ModelOptions,
    method: MethodOptions,
    execution: Execution,
    choice: ChoiceOptions,
    seeds: Seeds = "1",
    out: Annotated[Path, typer.Option(help="Output folder of the runs")] = Path("runs/tune"),
    json_: Json = False,
) -> None:
    """Choose settings by grid search on a pseudo-new split of the base classes.

    Scores a tenth of a point apart are noise; --one-se says what to do about it: of the points that
    the score cannot tell from the best, it takes the one that is best on the pseudo-new classes.
    """
    from simprompt.clip.catalogue import check_model
    from simprompt.data.catalogue import listed
    from simprompt.experiments.sweep.make import make_runs
    from simprompt.recipes import plan
    from simprompt.studies import tuning

    metric = choice.metric
    if metric not in tuning.SCORES:
        raise SimpromptError(f"--metric takes one of {', '.join(tuning.SCORES)}; got {metric!r}.")
    datasets = listed(dataset)
    if method.shots or execution.ray or execution.tracker:
        option = "--shots" if method.shots else "--ray" if execution.ray else "--tracker"
        raise SimpromptError(f"tune has no use for {option}: leave it out.")
    ending = _pseudo_new_split(choice)
    points = tuning.parse_grid(grid)
    check_model(model.model or "icons", model.tokenizer)
    configs = plan.grid(
        points,
        [name + ending for name in datasets],
        whole_numbers(seeds, "--seeds"),
        placed(model),
        method,
    )
    flat = [config for group in configs for config in group]
    results = make_runs(flat, out, execution, quiet=json_)
    by_key = {c.handle: r for c, r in zip(flat, results, strict=True)}
    rows = tuning.scores(points, configs, by_key, metric)
    chosen = {d: tuning.best(rows, d)["point"] for d in datasets} if choice.per_dataset else {}
    winner = tuning.strongest(rows) if choice.one_se else tuning.best(rows)
    if json_:
        document = {
            "metric": metric,
            "rows": rows,
            "chosen": winner["point"],
            "chosen_each": chosen,
        }
        say(json.dumps(document, indent=1))
        return
    # not H of the two means beside it: a task's H is taken first
    score = "mean of h" if metric == "h" else metric
    for row in rows:
        mark = "  <- chosen" if row is winner else ""
        say(
            f"{'  '.join(row['point']):50s} base {row['base']:6.2f}  new {row['new']:6.2f}  "
            f"{score} {row['score']:6.2f}{mark}"
        )
    for name, point in chosen.items():
        say(f"{name}: {'  '.join(point)}")


def _pseudo_new_split(choice: ChoiceOptions) -> str:
    """The ending of a dataset's name that asks for the pseudo-new split.

    Raises:
        SimpromptError: two options that say different ones.
    """
    from simprompt.data.catalogue import REHEARSAL, REHEARSAL_ALL, REHEARSAL_RANDOM

    if choice.all_base_images and choice.random_halves:
        raise SimpromptError(
            "--random-halves draws the halves of each seed's shots, and --all-base-images uses no "
            "shots: leave one of them out."
        )
    if choice.random_halves:
        return REHEARSAL_RANDOM
    return REHEARSAL_ALL if choice.all_base_images else REHEARSAL
