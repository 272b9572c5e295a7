"""`simprompt add`: more images or names for a prompt that is learned already."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import with_options
from simprompt.errors import SimpromptError
from simprompt.utils.options import ImageOptions, PromptModelOptions
from simprompt.utils.terminal import say


@with_options
def add(
    prompt: Annotated[
        str, typer.Argument(help="A saved prompt: learned/prompt, or hf://USER/NAME")
    ],
    reading: ImageOptions,
    model: PromptModelOptions,
    images: Annotated[
        str | None, typer.Argument(help="A folder of class folders, a table, or hf:NAME")
    ] = None,
    add_class: Annotated[
        list[str] | None, typer.Option(help="A class name without images; repeatable")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new prompt. Default: the prompt's own")
    ] = None,
) -> None:
    """Add images or class names to a saved prompt, without training."""
    from simprompt.data.own_images import folder
    from simprompt.prompt.added import with_images, with_names
    from simprompt.prompt.loading import load_prompt
    from simprompt.prompt.storage import HUB_ADDRESS, location
    from simprompt.utils.progress import progress_shown

    if not images and not add_class:
        raise SimpromptError(
            "There is nothing to add: give a folder of images, --add-class NAME, or both."
        )
    if out is None and HUB_ADDRESS.fullmatch(prompt):
        raise SimpromptError(f"{prompt} is on the hub: say with --out where the new prompt goes.")
    started = time.perf_counter()
    loaded = load_prompt(prompt, model=model.model, tokenizer=model.tokenizer)
    before, known = loaded.classes, loaded.learner.classnames
    if add_class:
        loaded = with_names(loaded, add_class)
    if images:
        own = folder.load(
            images, template=loaded.card["template"], strict=reading.strict, hold_out=0.0,
            **reading.reading,
        )  # fmt: skip
        for line in replace(own, untested=()).told():
            say(line)
        had = len(loaded.learner.state_dict().get("shots", ()))
        with progress_shown():
            loaded = with_images(loaded, own.dataset.train)
        grown = [name for name in loaded.learner.classnames if name not in known]
        count = len(loaded.learner.state_dict()["shots"])
        first = f"; the first of {', '.join(grown)}" if grown else ""
        say(f"{count} images now, {had} before{first}")
        if count > had:
            say("Its temperature and threshold were of other candidates and are left out.")
    if others := [name for name in loaded.classes if name not in before]:
        say(f"New names: {', '.join(others)}")
    place = loaded.save(out or location(prompt))
    say(f"{time.perf_counter() - started:.1f} seconds. {len(loaded.classes)} classes in {place}")
