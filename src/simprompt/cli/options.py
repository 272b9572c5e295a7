"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from simprompt.errors import SimpromptError
from simprompt.utils.terminal import say

Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        help="Datasets, comma-separated: icons/animals,dtd; or your own images: a path, whatever "
        "characters it has; may be repeated",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Other names for your folders: lines `folder = name`; one name for two joins them"
    ),
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Of a table: the column of paths or images; default: guessed")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Of a table: the column of labels; default: guessed")
]
SplitColumn = Annotated[
    str | None, typer.Option(help="Of a table: the column of train, val, test; default: guessed")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
Model = Annotated[str, typer.Option(help="A name from `simprompt models list`, or a path")]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Use the model at another image size in pixels: its positional embeddings are "
        "interpolated",
        min=1,
    ),
]
Method = Annotated[
    str | None, typer.Option(help="One method, see `methods list`; default: the recipe's, or coop")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="A named recipe, or a YAML file; default METHOD@MODEL if there is one. "
        "published: none, the settings of the method's authors"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, such as training.lr=0.01, or lr=0.01; may be repeated"),
]
TokenizerFile = Annotated[Path | None, typer.Option(help="A tokenizer file, for a bare OpenAI .pt")]
PromptModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The model that the prompt was learned on, if its card names a checkpoint that is "
        "not found: a path, or a name from `simprompt models list`. Its digest is checked",
    ),
]
PromptTokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="The tokenizer file of that model, if it took one")
]
Workers = Annotated[int, typer.Option(help="Processes, one run each; 0 takes one a core", min=0)]
Seeds = Annotated[str, typer.Option(help="Comma-separated")]
BatchRuns = Annotated[
    str, typer.Option(help="auto: train seeds and SAR settings of a task together; or off")
]
Log = Annotated[list[str] | None, typer.Option(help="Also log to tensorboard or mlflow")]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster: auto, ray://HOST:PORT, local")
]

Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:N or mps; auto: a GPU if there is one. Default: cpu",
        show_default=False,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the frozen towers: float32, bfloat16 or float16; what is learned stays float32"
    ),
]

SAR_WORDS: dict[str, tuple[bool, ...]] = {"off": (False,), "on": (True,), "both": (False, True)}


def own_images(
    names: Path | None, image: str | None, label: str | None, split: str | None
) -> dict[str, Any]:
    """What `--names` and the options of columns say, as settings of a run."""
    from simprompt.config import OWN_IMAGES

    return dict(zip(OWN_IMAGES, (resolved(names), image, label, split), strict=True))


def whole_numbers(text: str, option: str) -> list[int]:
    """ "1,2,3" -> [1, 2, 3].

    Raises:
        SimpromptError: naming the option.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SimpromptError(
            f"{option} takes whole numbers with commas, such as 1,2,3; got {text!r}."
        ) from None


def sar_choices(
    text: str, words: Sequence[str] = tuple(SAR_WORDS), weight: bool = True
) -> tuple[bool | float, ...]:
    """Values of `--sar` for `recipes.plan.plan`: "both" -> (False, True), "0.4" -> (0.4,).

    Args:
        words: those that the command takes.
        weight: whether it takes a weight, too.

    Raises:
        SimpromptError: another word, or a weight that is no number from 0.
    """
    if text in words:
        return SAR_WORDS[text]
    try:
        number = float(text)
        if weight and 0 <= number < math.inf:
            return (number,)
    except ValueError:
        pass
    takes = [*words, "a weight such as 0.4"] if weight else words
    raise SimpromptError(f"--sar takes {', '.join(takes[:-1])} or {takes[-1]}; got {text!r}.")


def placed(device: str | None, dtype: str, ray: str | None = None) -> dict[str, Any]:
    """Where and in which numbers a command computes: `device` and `dtype`, as plans take them.

    Args:
        ray: a cluster's address, if runs are made on one; its GPUs are not seen from here.

    Raises:
        SimpromptError: a device that is not here, a name that is none, or another type.
    """
    from simprompt.utils import devices

    if dtype not in devices.DTYPES:
        raise SimpromptError(f"--dtype takes {', '.join(devices.DTYPES)}; got {dtype!r}.")
    if ray is not None and device not in (None, "cpu", "cuda"):
        raise SimpromptError(
            "With --ray, --device takes cpu or cuda: every run gets a GPU of the node it is made "
            f"on; got {device!r}."
        )
    if ray is not None:
        return {"device": device or "cpu", "dtype": dtype}
    if device is None and devices.resolve_device("auto") != "cpu":
        say("simprompt: there is a GPU; --device auto uses it.", err=True)
    return {"device": devices.resolve_device(device or "cpu"), "dtype": dtype}


def checked(model: str, tokenizer: str | Path | None = None) -> str:
    """The model's name, before images are read.

    Raises:
        SimpromptError: no model of that name and no such path, or no such tokenizer.
    """
    from simprompt.clip.catalogue import check_name
    from simprompt.errors import SimpromptError
    from simprompt.utils.files.regular import is_there

    check_name(model)
    if tokenizer is not None and not is_there(tokenizer):
        raise SimpromptError(f"--tokenizer takes a file or folder; there is no {tokenizer}.")
    return model


def resolved(path: Path | None) -> str | None:
    """A path that holds in every worker's folder."""
    return str(path.resolve()) if path else None
