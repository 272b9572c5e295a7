"""`simprompt show`: a model or a method in detail."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from simprompt.cli.options import placed, with_options
from simprompt.utils.options import ModelOptions
from simprompt.utils.terminal import say


@with_options
def show(
    name: Annotated[str, typer.Argument(help="A method, or a model by name or path")],
    options: ModelOptions,
) -> None:
    """Show a method's options and recipes, or load a model and show its configuration."""
    from simprompt import methods

    if name in methods.names():
        _method(name)
        return
    from dataclasses import asdict

    from simprompt.cli import warn
    from simprompt.clip.hub import load_clip
    from simprompt.errors import SimpromptError

    if options.model:
        raise SimpromptError("show takes the model as its argument: leave --model out.")
    clip = load_clip(name, **placed(options).loading)
    warn.tell(clip.notes)
    count = sum(p.numel() for p in clip.parameters())
    say(f"{clip.name}: {count:,} parameters, logits scaled by {clip.scale:.2f}")
    say(json.dumps(asdict(clip.config), indent=2))


def _method(name: str) -> None:
    from simprompt import methods, recipes
    from simprompt.cli.settings import rows_of

    kind = methods.find(name)
    say(f"{name}: {kind.summary}. {kind.source}.")
    say("SAR can be added." if kind.text_moves else "Its text does not move: SAR has no effect.")
    if not kind.new_classes:
        say("It classifies among the classes that it was trained on, and no others.")
    say("Options, for --set options.NAME=VALUE:" if kind.Config.model_fields else "No options.")
    for row in rows_of("options", kind.Config):
        say(f"  {row.key:28} {row.type:24} default {row.default:12} {row.description}")
    recipe_names = [
        recipe for recipe in recipes.names() if recipes.load(recipe).get("method") == name
    ]
    say(f"Recipes: {', '.join(recipe_names) or 'none'}.")
