"""`simprompt push`: a learned prompt to the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from simprompt.utils.terminal import say


def push(
    prompt: Annotated[str, typer.Argument(help="What `learn` or `run` saved: learned")],
    repo: Annotated[str, typer.Argument(help="Where to: USER/NAME")],
    private: Annotated[bool, typer.Option(help="Only you can see it")] = False,
) -> None:
    """Share a learned prompt on the Hugging Face hub, with its card and a page.

    Read it back with load_prompt("hf://USER/NAME"), or wherever a command takes a prompt. The token
    is that of `hf auth login`, or of HF_TOKEN; reading a private prompt takes it, too.
    """
    from simprompt.prompt import storage

    say(storage.push(prompt, repo, private=private))
