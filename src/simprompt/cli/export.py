"""`simprompt export`: a prompt as files for programs without simprompt."""

from __future__ import annotations

import json
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import Json, with_options
from simprompt.utils.options import CandidateOptions, PromptModelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.prompt.prompt import Prompt


class Target(str, Enum):
    """What `simprompt export` writes."""

    onnx = "onnx"
    linear = "linear"
    open_clip = "open_clip"
    transformers = "transformers"
    hub = "hub"


@with_options
def export(
    prompt: Annotated[
        str,
        typer.Argument(
            help="What `learn` or `run` saved: learned, a path or its stem, or hf://USER/NAME"
        ),
    ],
    to: Annotated[
        Target,
        typer.Option(
            help="onnx: graphs and a predict.py; linear, open_clip, transformers: a linear head; "
            "hub: the prompt itself, uploaded"
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="Output folder; an earlier export there is replaced. Of hub: USER/NAME",
        ),
    ],
    candidates: CandidateOptions,
    model: PromptModelOptions,
    int8: Annotated[
        bool, typer.Option("--int8", help="onnx: also an image tower with 8-bit weights")
    ] = False,
    int8_eval: Annotated[
        Path | None, typer.Option(help="Images on which to measure what --int8 changes")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="hub: visible to you alone")] = False,
    json_: Json = False,
) -> None:
    """Export a prompt: ONNX, a head for open_clip or transformers, or an upload to the hub.

    The hub's token is that of `hf auth login`, or of HF_TOKEN. A prompt on the hub is read with
    load_prompt("hf://USER/NAME"), and wherever a command takes a prompt.
    """
    from simprompt.data.names import read_names
    from simprompt.deploy.export.write import export as write
    from simprompt.prompt import storage
    from simprompt.prompt.loading import load_prompt

    if to is Target.hub:
        say(storage.push(prompt, out, private=private))
        return
    folder = Path(out)
    # what PyTorch's exporter has to say to its own authors
    for message in (".*treespec", "# The axis name"):
        warnings.filterwarnings("ignore", message=message)
    listed = read_names(candidates.classes) if candidates.classes else []
    names = [*listed, *(candidates.class_ or [])]
    loaded: Prompt = load_prompt(prompt, model=model.model, tokenizer=model.tokenizer)
    kind = "head" if to is Target.linear else to.value
    card = write(loaded, folder, kind, names or None, int8=int8, check=int8_eval)
    sizes = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.iterdir())
        if file.is_file()
    }
    if json_:
        say(json.dumps({**card, "bytes": sizes}, indent=2, ensure_ascii=False))
        return
    say(f"{len(card['classes'])} classes with {card['model']}, in {folder}:")
    for name, size in sizes.items():
        say(f"  {name:18} {size:>13,} bytes")
    _say_of_graphs(card)
    say(f"{folder / 'README.md'} says how to use it.")


def _say_of_graphs(card: dict[str, Any]) -> None:
    for side, difference in card.get("differences", {}).items():
        say(f"{side} side: at most {difference:.1e} from PyTorch")
    if card.get("no_text"):
        say(f"No text side for other names: {card['no_text']}")
    if not card.get("int8"):
        return
    measured = card["check"]
    if measured is None:
        say("What the 8 bits change was not measured; --int8-eval FOLDER does.")
        return
    if "accuracy" in measured:
        before, after = measured["accuracy"]["float"], measured["accuracy"]["int8"]
        say(
            f"8 bits, on {measured['images']} images: {after:.1f} % correct, {before:.1f} % with "
            f"floats ({after - before:+.1f} points)"
        )
    else:
        say(f"No accuracy of these images: {measured['no_accuracy']}")
    speed = measured["ms_per_image"]
    say(
        f"8 bits, on {measured['images']} images: the same answer for "
        f"{measured['agreement']:.1f} %, a probability moves by at most "
        f"{measured['largest_difference']:.3f}; {speed['int8']:.1f} ms an image, "
        f"{speed['float']:.1f} with floats, one thread"
    )
