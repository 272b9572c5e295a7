"""`simprompt run`: methods with and without SAR on a dataset, base classes to new ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simprompt.cli.options import (
    Datasets,
    Json,
    Seeds,
    placed,
    whole_numbers,
    with_options,
)
from simprompt.utils.options import Execution, ImageOptions, MethodOptions, ModelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.config import RunConfig


@with_options
def run(
    dataset: Datasets,
    model: ModelOptions,
    method: MethodOptions,
    images: ImageOptions,
    execution: Execution,
    seeds: Seeds = "1,2,3",
    max_test_per_class: Annotated[
        int | None, typer.Option(help="Test on at most this many images per class", min=1)
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder of the runs")] = Path("runs"),
    json_: Json = False,
) -> None:
    """Train methods on base classes, test on base and new; finished runs are reused.

    --method takes several with commas, or 'all'; --sar takes both, which is the default.
    """
    from simprompt.data import catalogue

    started = time.perf_counter()
    datasets = catalogue.listed(dataset)  # before torch is loaded: a wrong name is said at once

    from simprompt.cli.results import emit
    from simprompt.clip.catalogue import check_model
    from simprompt.errors import SimpromptError
    from simprompt.experiments.sweep.make import make_runs
    from simprompt.recipes import plan

    published = [name for name in datasets if not catalogue.is_own(name)]
    if images.first_set and published:
        raise SimpromptError(
            f"{images.first_set} is for your own images, and {published[0]} is none."
        )
    # what costs nothing to check comes before the images are read
    check_model(model.model or "icons", model.tokenizer)
    configs = plan.plan(
        datasets,
        whole_numbers(seeds, "--seeds"),
        placed(model, execution.ray),
        method,
        images=images,
        max_test_per_class=max_test_per_class,
    )
    for name in filter(catalogue.is_own, datasets):
        _look_at(name, images, json_, configs[0])
    configs = _fitting(configs, leave_out=method.method == "all")
    results = make_runs(configs, out, execution, quiet=json_)
    emit(results, configs, started, json_, out)


def _look_at(name: str, images: ImageOptions, quiet: bool, config: RunConfig) -> None:
    """Say what is understood of somebody's own images, what is not used, and whether the model was
    made for such images."""
    from simprompt.cli import warn
    from simprompt.clip import domain
    from simprompt.data.own_images import folder
    from simprompt.data.split import DatasetError
    from simprompt.experiments.inputs import clip_on_cpu

    try:
        own = folder.load(name, strict=images.strict, **images.reading)
    except DatasetError:
        if images.strict:
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
