"""`simprompt features`: encode a dataset's images once, for all runs to come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import (
    Device,
    Dtype,
    ImageColumn,
    ImageSize,
    LabelColumn,
    Model,
    Names,
    SplitColumn,
    own_images,
    placed,
    whole_numbers,
)
from simprompt.utils.terminal import say


def features(
    dataset: Annotated[str, typer.Argument(help="A dataset of `simprompt data list`, or a path")],
    model: Model = "icons",
    image_size: ImageSize = None,
    names: Names = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    views: Annotated[int, typer.Option(help="Augmented views of each training image; 0: none")] = 0,
    shots: Annotated[
        int | None, typer.Option(help="Only the training images of few-shot draws this large")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of those draws")] = "1,2,3",
    batch: Annotated[
        int | None,
        typer.Option(help="Images encoded at a time. Default: 16 per CPU thread, at least 64"),
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    root: Annotated[Path | None, typer.Option(help="Data root; default $SIMPROMPT_DATA")] = None,
) -> None:
    """Extract and keep image features; an interrupted extraction goes on where it stopped."""
    from simprompt.cli import warn
    from simprompt.clip.hub import load_clip
    from simprompt.data import catalogue
    from simprompt.errors import SimpromptError
    from simprompt.features.cache import image_features, kept_in, view_features
    from simprompt.utils.progress import progress_shown

    if (batch is not None and batch < 1) or views < 0:
        raise SimpromptError(
            f"--batch takes 1 or more and --views 0 or more; got {views if views < 0 else batch}."
        )
    drawn = whole_numbers(seeds, "--seeds")
    clip = load_clip(model, image_size=image_size, **placed(device, dtype))
    warn.tell(clip.notes)
    data = catalogue.load(
        dataset, root, **own_images(names, image_column, label_column, split_column)
    )
    training = [data.all.train]
    if shots is not None:
        training = [data.all.few_shot(shots, seed) for seed in drawn]
    wanted = [("train", split) for split in training if len(split)]
    wanted.append(("test", data.all.test))
    for part, split in wanted:
        started = time.perf_counter()
        with progress_shown():
            image_features(clip, split, batch=batch)
        say(
            f"{part}: {len(split):,} images, {time.perf_counter() - started:.1f} s, "
            f"{kept_in(clip, split)}"
        )
        if views and part == "train":
            started = time.perf_counter()
            with progress_shown():
                view_features(clip, split, views, batch=batch)
            say(
                f"views: {views} of each of {len(split):,} images, "
                f"{time.perf_counter() - started:.1f} s, {kept_in(clip, split, views)}"
            )
