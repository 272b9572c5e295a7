"""`simprompt run`: methods with and without SAR on a dataset, base classes to new ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import (
    BatchRuns,
    Datasets,
    Device,
    Dtype,
    ImageColumn,
    ImageSize,
    Json,
    LabelColumn,
    Log,
    Model,
    Names,
    RayAddress,
    Recipe,
    Seeds,
    Set,
    SplitColumn,
    TokenizerFile,
    Workers,
    checked,
    own_images,
    placed,
    resolved,
    sar_choices,
    whole_numbers,
)
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.config import RunConfig


def run(
    dataset: Datasets,
    model: Model = "icons",
    method: Annotated[
        str | None,
        typer.Option(help="Methods, comma-separated, or 'all'; default: the recipe's, or coop"),
    ] = None,
    sar: Annotated[str, typer.Option(help="off, on, both, or a weight such as 0.4")] = "both",
    shots: Annotated[
        int | None, typer.Option(help="Training images a class; default: the recipe's", min=1)
    ] = None,
    seeds: Seeds = "1,2,3",
    tokenizer: TokenizerFile = None,
    names: Names = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    image_size: ImageSize = None,
    device: Device = None,
    dtype: Dtype = "float32",
    set_: Set = None,
    recipe: Recipe = None,
    out: Annotated[Path, typer.Option(help="Where the runs are kept")] = Path("runs"),
    max_test_per_class: Annotated[
        int | None, typer.Option(help="Test on at most this many images a class", min=1)
    ] = None,
    workers: Workers = 1,
    batch_runs: BatchRuns = "off",
    ray: RayAddress = None,
    strict: Annotated[
        bool, typer.Option(help="Stop if a file of your own images is not used")
    ] = False,
    log: Log = None,
    json_: Json = False,
) -> None:
    """Train on base classes, test on base and new; finished runs are kept and reused."""
    from simprompt.data import catalogue

    started = time.perf_counter()
    datasets = catalogue.listed(dataset)  # before torch is loaded: a wrong name is said at once

    from simprompt import methods
    from simprompt.cli.results import emit
    from simprompt.errors import SimpromptError
    from simprompt.experiments.sweep.make import check_batching, make_runs
    from simprompt.recipes import plan

    own = own_images(names, image_column, label_column, split_column)
    given = [f"--{name.replace('_', '-')}" for name, value in own.items() if value]
    others = [name for name in datasets if not catalogue.is_own(name)]
    if given and others:
        raise SimpromptError(f"{given[0]} is for your own images, and {others[0]} is none.")
    # what costs nothing to check comes before the images are read
    check_batching(batch_runs)
    configs = plan.plan(
        datasets,
        checked(model, tokenizer),
        methods.names() if method == "all" else method.split(",") if method else [],
        whole_numbers(seeds, "--seeds"),
        sar=sar_choices(sar),
        shots=shots,
        settings=set_ or [],
        recipe=recipe,
        max_test_per_class=max_test_per_class,
        tokenizer=resolved(tokenizer),
        image_size=image_size,
        **placed(device, dtype, ray),
        **own,
    )
    for name in filter(catalogue.is_own, datasets):
        _look_at(name, strict, json_, own, configs[0])
    configs = _fitting(configs, leave_out=method == "all")
    results = make_runs(
        configs, out, workers, quiet=json_, ray=ray, log=log or (), batch_runs=batch_runs
    )
    emit(results, configs, started, json_, out)


def _look_at(
    name: str, strict: bool, quiet: bool, reading: dict[str, Any], config: RunConfig
) -> None:
    """Say what is understood of somebody's own images, what is not used, and whether the model was
    made for such images."""
    from simprompt.cli import warn
    from simprompt.clip import domain
    from simprompt.data.dataset import DatasetError
    from simprompt.data.own_images import folder
    from simprompt.experiments.inputs import clip_on_cpu

    try:
        own = folder.load(name, strict=strict, **reading)
    except DatasetError:
        if strict:
            raise
        return  # the run is a failure with this reason, and other datasets go on
    if not quiet:
        for line in own.told():
            say(line)
    if config.model == domain.ICONS:
        clip = clip_on_cpu(config)
        unlike = domain.unlike_warning(clip, domain.unlike_share(clip, own.dataset.train))
        warn.tell([unlike] if unlike else [])


def _fitting(configs: list[RunConfig], leave_out: bool) -> list[RunConfig]:
    """The runs whose method can be had with their model, looked at before any image is encoded.

    Args:
        leave_out: whether the others are left out with a sentence; else the first is an error.
    """
    from simprompt import methods
    from simprompt.errors import SimpromptError

    names = dict.fromkeys(config.method for config in configs)
    if not any(methods.find(name).image_tokens for name in names):
        return configs  # the model is loaded only when a run is to be made
    from simprompt.experiments.inputs import clip_on_cpu

    clip = clip_on_cpu(configs[0])
    unfit, reason = set(), ""
    for name in names:
        try:
            methods.find(name).check_model(clip)
        except SimpromptError as error:
            if not leave_out:
                raise SimpromptError(f"{name}: {error}") from None
            unfit.add(name)
            reason = str(error)
    if unfit:
        say(f"Left out: {', '.join(sorted(unfit))}. {reason}", err=True)
    return [config for config in configs if config.method not in unfit]
