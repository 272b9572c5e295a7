"""`simprompt models`: which CLIPs there are, and how to have one on disk."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import ImageSize, Json
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="The CLIPs that can be used, and their downloads.")


@app.command("list")
def list_(
    json_: Json = False,
) -> None:
    """Every model with its size, licence, hub repository, and whether it is on disk."""
    from rich.table import Table

    from simprompt.clip import catalogue

    rows: list[dict[str, Any]] = [
        {"name": m.name, "parameters": m.parameters, "image_size": m.image_size,
         "licence": m.licence, "repository": None, "revision": None,
         "extra": m.extra or None, "on_disk": m.installed, "tried": True}
        for m in catalogue.EMBEDDED.values()
    ]  # fmt: skip
    rows += [
        {"name": m.name, "parameters": m.parameters, "image_size": m.image_size,
         "licence": m.licence, "repository": m.repo, "revision": m.revision, "extra": None,
         "on_disk": m.on_disk() is not None, "tried": False}
        for m in catalogue.models()
    ]  # fmt: skip
    if json_:
        say(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "parameters", "pixels", "licence", "hub repository", "on disk"):
        right = heading in ("parameters", "pixels")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        count = row["parameters"]
        table.add_row(
            str(row["name"]),
            f"{count / 1e6:,.0f} M",
            str(row["image_size"]),
            str(row["licence"]),
            str(row["repository"] or _where(row["extra"])),
            "yes" if row["on_disk"] else "",
        )
    print_table(table)
    say(
        "\nOnly icons and photos were run with their real weights by those who made this package. "
        "The other architectures were run with random weights."
    )
    say("Any other CLIP: hub:org/repository, or the path of a checkpoint.")


def _where(extra: str | None) -> str:
    return rf"pip install 'simprompt\[{extra}]'" if extra else "ships with simprompt"


def print_table(table: Table) -> None:
    """As wide as the terminal; into a pipe, every row on one line."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 250).print(table)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A name from `simprompt models list`")],
) -> None:
    """Get a model now; `run` would get it when it needs it."""
    from simprompt.clip import catalogue
    from simprompt.errors import SimpromptError
    from simprompt.utils.files.hub import stated_hash

    entry = catalogue.find(name)
    if entry is None:
        raise SimpromptError(f"There is no model {name!r} on the hub; see `simprompt models list`.")
    folder = catalogue.download(entry.repo, entry.layout, entry.revision, entry.sha256)
    say(f"{entry.name} is in {folder}")
    for file in sorted(folder.iterdir()):
        if digest := stated_hash(file):
            say(f"  {file.name}  SHA-256 {digest}, as the hub states it")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name or path, as --model takes it")],
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer file or folder")] = None,
    image_size: ImageSize = None,
) -> None:
    """Load a model and tell what it is."""
    from dataclasses import asdict

    from simprompt.cli import warn
    from simprompt.clip.hub import load_clip

    clip = load_clip(name, tokenizer=tokenizer, image_size=image_size)
    warn.tell(clip.notes)
    count = sum(p.numel() for p in clip.parameters())
    say(f"{clip.name}: {count:,} parameters, logits scaled by {clip.scale:.2f}")
    say(json.dumps(asdict(clip.config), indent=2))
