"""`simprompt report`: results of runs as tables, or as one HTML page."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.experiments.store import Results


class Format(str, Enum):
    """How tables are printed."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def report(
    dirs: Annotated[list[str], typer.Argument(help="Folders that hold runs, or URLs")],
    format: Annotated[Format, typer.Option("--format", "-f", help="Format of the tables")] = (
        Format.text
    ),
    per_seed: Annotated[bool, typer.Option("--per-seed", help="Also a row per run")] = False,
    decimals: Annotated[int, typer.Option(min=0, max=4, help="Decimals; not of csv and json")] = 1,
    published: Annotated[
        bool, typer.Option("--published", help="Compare with published numbers")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write an HTML page with tables and plots instead"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also write the plot of New against Base, an SVG file")
    ] = None,
) -> None:
    """Print tables of results, or write one page with tables, plots and test images."""
    from simprompt.experiments.store import read_runs
    from simprompt.report import page

    results = read_runs(dirs)
    if plot:
        page.write_picture(results, plot)
    if out is None:
        _print_tables(results, format, per_seed, decimals, published)
        return
    path = page.write(results, out)
    say(f"{len(results)} runs in {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _print_tables(
    results: Results, format: Format, per_seed: bool, decimals: int, compare: bool
) -> None:
    from simprompt.report import published, tables, words

    if format is Format.json:
        extras = {"published": published.records(results)} if compare else {}
        say(tables.as_json(results, **extras))
        return
    for note in words.notes(results):
        say(f"Note: {note}", err=True)
    if format is Format.csv:
        say(tables.as_csv(results, per_seed), nl=False)
        if compare:
            say("Note: --published goes with text, markdown, latex and json.", err=True)
        return
    chosen_tables = tables.tables(results, per_seed)
    if compare:
        chosen_tables += published.tables(results)
    say(tables.written(chosen_tables, format.value, decimals))
