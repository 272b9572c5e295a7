"""`simprompt explain`: what a learned prompt has changed, as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import with_options
from simprompt.utils.options import CandidateOptions, PromptModelOptions
from simprompt.utils.terminal import say


@with_options
def explain(
    prompt: Annotated[
        str, typer.Argument(help="A saved prompt: learned/prompt, or hf://USER/NAME")
    ],
    candidates: CandidateOptions,
    model: PromptModelOptions,
    images: Annotated[
        str | None,
        typer.Option(help="Labelled test images: a folder of class folders"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file")] = Path("explain.html"),
) -> None:
    """Report how a prompt changed class similarities: a page with tables and plots."""
    from simprompt.clip.same_text import match_names, new_names
    from simprompt.data.names import read_names
    from simprompt.data.own_images import folder
    from simprompt.errors import SimpromptError
    from simprompt.prompt.loading import load_prompt
    from simprompt.report import explain as page
    from simprompt.utils.progress import progress_shown

    if out.is_dir():
        raise SimpromptError(f"--out takes a file such as explain.html; {out} is a folder.")
    loaded = load_prompt(prompt, model=model.model, tokenizer=model.tokenizer)
    chosen = read_names(candidates.classes) if candidates.classes else []
    names = [*chosen, *(candidates.class_ or [])] or list(loaded.classes)
    with progress_shown():
        split = None
        if images is not None:
            data = folder.load(images).dataset
            names += new_names(data.classnames, names)
            matches = match_names(data.classnames, names)
            number = [index for index in matches if index is not None]
            every = data.all.images
            split = replace(
                every,
                labels=tuple(number[label] for label in every.labels),
                classnames=tuple(names),
                origin=data.base.test.origin,
            )
        explained = page.write(loaded, names, out, split)
    name, cosine = explained.moved[0]
    say(f"{name!r} moved most (cosine {cosine:.3f}). Open {out} in a browser.")
