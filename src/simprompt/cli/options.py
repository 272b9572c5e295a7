"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, get_type_hints

import typer

from simprompt.errors import SimpromptError
from simprompt.utils.options import (
    AnswerOptions,
    Execution,
    ImageOptions,
    MethodOptions,
    ModelOptions,
    RecipeOptions,
)
from simprompt.utils.terminal import say

Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        help="Dataset names, comma-separated (icons/animals,dtd; icons: all icon tasks), or a path "
        "to your own images; repeatable",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document")]
Seeds = Annotated[str, typer.Option(help="Random seeds, comma-separated")]
Template = Annotated[
    str | None,
    typer.Option(
        help="Template with {} for the class name. Default: the recipe's, or 'a photo of a {}.'"
    ),
]


PANELS = {
    ModelOptions: "Model",
    RecipeOptions: "Method",
    MethodOptions: "Method",
    ImageOptions: "Your own images",
    AnswerOptions: "Your own images",
    Execution: "Execution",
}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are groups of `utils.options` become one option per field.

    The command itself is called with the groups.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _fields(groups[name])
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=keyword))

    def run(**values: Any) -> None:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            values[name] = group(**{field: values.pop(field) for field in fields})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _fields(group: Any) -> list[inspect.Parameter]:
    """One keyword parameter per field of a group, with Typer's option in its annotation."""
    hints = get_type_hints(group)
    parameters = []
    for field in dataclasses.fields(group):
        about = field.metadata
        option = typer.Option(
            *about["flags"], help=about["help"], min=about["min"], rich_help_panel=PANELS.get(group)
        )
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[hints[field.name], option],
            )
        )
    return parameters


def whole_numbers(text: str, option: str) -> list[int]:
    """ "1,2,3" -> [1, 2, 3].

    Raises:
        SimpromptError: naming the option.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise SimpromptError(
            f"{option} takes whole numbers with commas, such as 1,2,3; got {text!r}."
        ) from None


def placed(options: ModelOptions, ray: str | None = None) -> ModelOptions:
    """The options with a device that is there.

    Args:
        ray: a cluster's address, if runs are made on one; its GPUs are not seen from here.

    Raises:
        SimpromptError: a device that is not here, a name that is none, or another type.
    """
    from simprompt.utils import devices

    device, dtype = options.device, options.dtype
    if dtype not in devices.DTYPES:
        raise SimpromptError(f"--dtype takes {', '.join(devices.DTYPES)}; got {dtype!r}.")
    if ray is not None and device not in (None, "cpu", "cuda"):
        raise SimpromptError(
            "With --ray, --device takes cpu or cuda: every run gets a GPU of the node it is made "
            f"on; got {device!r}."
        )
    if ray is not None:
        return replace(options, device=device or "cpu")
    if device is None and devices.resolve_device("auto") != "cpu":
        say("simprompt: there is a GPU; --device auto uses it.", err=True)
    return replace(options, device=devices.resolve_device(device or "cpu"))
