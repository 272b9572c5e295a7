"""`simprompt table`: the results of run directories as a table on stdout."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from simprompt.utils.terminal import say


class Format(str, Enum):
    """How `simprompt table` writes."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


class Against(str, Enum):
    """What results can be set beside."""

    published = "published"


def table(
    dirs: Annotated[list[str], typer.Argument(help="Directories that hold runs, or URLs")],
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write")] = Format.text,
    per_seed: Annotated[bool, typer.Option(help="Also every run by itself")] = False,
    digits: Annotated[int, typer.Option(min=0, max=4, help="Decimals; not csv, json")] = 1,
    against: Annotated[
        Against | None, typer.Option(help="Set beside published numbers, says what differs")
    ] = None,
) -> None:
    """Base, New and H of each task and averaged, differences to zero-shot and SAR - host."""
    from simprompt.experiments.store import read_runs
    from simprompt.report import published, tables, words

    results = read_runs(dirs)
    if format is Format.json:
        more = {"published": published.records(results)} if against else {}
        say(tables.as_json(results, **more))
        return
    for note in words.notes(results):
        say(f"Note: {note}", err=True)
    if format is Format.csv:
        say(tables.as_csv(results, per_seed), nl=False)
        if against:
            say("Note: --against goes with text, markdown, latex and json.", err=True)
        return
    shown = tables.tables(results, per_seed)
    if against:
        shown += published.tables(results)
    say(tables.written(shown, format.value, digits))
