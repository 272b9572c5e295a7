"""Every key of `--set` with its type, default and meaning; `make settings` writes the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from simprompt import methods, regularisers
from simprompt.config import RunConfig, SARPlus, Training
from simprompt.recipes.plan import OWNED

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
HEAD = """# Settings

Every key that `--set KEY=VALUE` takes, in recipes and on the command line. `make settings` writes
this page from the code. The group may be left out where the name is in one group alone: `lr=0.01`
is `training.lr=0.01`.
"""


@dataclass(frozen=True)
class Row:
    """One key."""

    key: str
    type: str
    default: str
    description: str


def rows_of(group: str, settings: type[BaseModel]) -> Iterator[Row]:
    """The keys of a group of settings."""
    for name, field in settings.model_fields.items():
        default = "none" if field.default is PydanticUndefined else str(field.default)
        kind = "" if field.annotation is None else _type(field.annotation)
        yield Row(f"{group}.{name}" if group else name, kind, default, field.description or "")


def _type(annotation: Any) -> str:
    """A type as a reader writes values of it."""
    if get_origin(annotation) is not None and type(None) not in get_args(annotation):
        text = str(annotation)
    elif type(None) in get_args(annotation):
        text = " or ".join(
            "none" if option is type(None) else _type(option) for option in get_args(annotation)
        )
    else:
        text = getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"typing\.(Annotated\[(\w+), [^\]]*\)\]|)", r"\2", text)
    return re.sub(r"Literal\[([^\]]*)\]", r"\1", text).replace("NoneType", "none")


def page() -> str:
    """docs/settings.md."""
    sections = [HEAD]
    run = {name for name in RunConfig.model_fields} - {"training", "sar", "options"}
    owned_keys = OWNED["run"].keys()
    groups: list[tuple[str, str, list[Row]]] = [
        ("Training", "", list(rows_of("training", Training))),
        ("SAR and its variants", "", list(rows_of("sar", SARPlus))),
        ("The run", "", [row for row in rows_of("", RunConfig) if row.key in run - owned_keys]),
    ]
    for name in regularisers.names():
        regulariser = regularisers.find(name).Config
        shared = [*rows_of("sar", SARPlus)]
        if rows := [row for row in rows_of("sar", regulariser) if row not in shared]:
            groups.append((f"Regulariser {name}", "Beside those of SAR, or unlike them.", rows))
    for name in methods.names():
        kind = methods.find(name)
        if rows := list(rows_of("options", kind.Config)):
            groups.append(
                (f"Options of {name}", f"{kind.summary[0].upper()}{kind.summary[1:]}.", rows)
            )
    for title, lead, rows in groups:
        sections.append(f"\n## {title}\n")
        if lead:
            sections.append(f"{lead}\n")
        sections.append("| key | type | default | meaning |\n|---|---|---|---|")
        for row in rows:
            cells = (f"`{row.key}`", row.type, row.default, row.description)
            sections.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(sections) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
