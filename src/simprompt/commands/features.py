"""`simprompt features`: encode a dataset's images once, for all runs to come."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def features(
    dataset: Annotated[str, typer.Argument(help="A dataset of `simprompt data list`, or a path")],
    model: Annotated[str, typer.Option(help="A name from `simprompt models list`, or a path")] = (
        "icons"
    ),
    views: Annotated[int, typer.Option(help="Augmented views of each training image; 0: none")] = 0,
    shots: Annotated[
        int | None, typer.Option(help="Only the training images of few-shot draws this large")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of those draws")] = "1,2,3",
    batch: Annotated[int, typer.Option(help="Images encoded at a time")] = 64,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    root: Annotated[Path | None, typer.Option(help="Data root; default $SIMPROMPT_DATA")] = None,
) -> None:
    """Extract and keep image features; an interrupted extraction goes on where it stopped."""
    from simprompt.clip.hub import load_clip
    from simprompt.commands.run import whole_numbers
    from simprompt.data import catalogue
    from simprompt.errors import SimpromptError
    from simprompt.features import image_features, store_folder, view_features

    if batch < 1 or views < 0:
        raise SimpromptError(
            f"--batch takes 1 or more and --views 0 or more; got {batch}, {views}."
        )
    drawn = whole_numbers(seeds, "--seeds")
    clip = load_clip(model, dtype=dtype, device=device)
    data = catalogue.load(dataset, root)
    training = [data.all.train]
    if shots is not None:
        training = [data.all.few_shot(shots, seed) for seed in drawn]
    wanted = [("train", split) for split in training if len(split)]
    wanted.append(("test", data.all.test))
    for part, split in wanted:
        started = time.perf_counter()
        image_features(clip, split, batch=batch, progress=_reporter(part))
        typer.echo(
            f"{part}: {len(split):,} images, {time.perf_counter() - started:.1f} s, in "
            f"{store_folder(clip, split)}"
        )
        if views and part == "train":
            started = time.perf_counter()
            view_features(clip, split, views, batch=batch, progress=_reporter("views"))
            typer.echo(
                f"views: {views} of each of {len(split):,} images, "
                f"{time.perf_counter() - started:.1f} s, in {store_folder(clip, split, views)}"
            )


def _reporter(part: str):  # type: ignore[no-untyped-def]
    terminal = sys.stderr.isatty()
    last = [0.0]

    def report(done: int, total: int, rate: float) -> None:
        now = time.perf_counter()
        if done < total and now - last[0] < (0.2 if terminal else 5):
            return
        last[0] = now
        line = f"{part}: {done:,} of {total:,} images, {rate:,.1f} a second"
        left = f", {(total - done) / rate:,.0f} s left" if rate else ""
        print(f"\r{line}{left}   " if terminal else line, end="" if terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip
        if terminal and done >= total:
            print(file=sys.stderr)

    return report
