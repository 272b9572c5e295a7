"""`simprompt encode`: encode a dataset's images once, for all runs to come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import placed, whole_numbers, with_options
from simprompt.utils.options import ImageOptions, ModelOptions
from simprompt.utils.terminal import say


@with_options
def encode(
    dataset: Annotated[
        str, typer.Argument(help="A name from `simprompt list datasets`, or a path")
    ],
    options: ModelOptions,
    images: ImageOptions,
    views: Annotated[
        int, typer.Option(help="Augmented views of each training image; 0: none", min=0)
    ] = 0,
    shots: Annotated[
        int | None, typer.Option(help="Only training images of few-shot draws of this size")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Random seeds of those draws")] = "1,2,3",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images per forward pass. Default: 16 per CPU thread, at least 64", min=1
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of datasets. Default: $SIMPROMPT_DATA")
    ] = None,
) -> None:
    """Compute and cache image features; an interrupted extraction continues where it stopped."""
    from simprompt.cli import warn
    from simprompt.clip.hub import load_clip
    from simprompt.data import catalogue
    from simprompt.features.cache import image_features, kept_in, view_features
    from simprompt.utils.progress import progress_shown

    seed_list = whole_numbers(seeds, "--seeds")
    clip = load_clip(options.model or "icons", **placed(options).loading)
    warn.tell(clip.notes)
    data = catalogue.load(dataset, data_root, **images.reading)
    training = [data.all.train]
    if shots is not None:
        training = [data.all.few_shot(shots, seed) for seed in seed_list]
    splits = [("train", split) for split in training if len(split)]
    splits.append(("test", data.all.test))
    for split_name, split in splits:
        started = time.perf_counter()
        with progress_shown():
            image_features(clip, split, batch=batch_size)
        say(
            f"{split_name}: {len(split):,} images, {time.perf_counter() - started:.1f} s, "
            f"{kept_in(clip, split)}"
        )
        if views and split_name == "train":
            started = time.perf_counter()
            with progress_shown():
                view_features(clip, split, views, batch=batch_size)
            say(
                f"views: {views} of each of {len(split):,} images, "
                f"{time.perf_counter() - started:.1f} s, {kept_in(clip, split, views)}"
            )
