"""`simprompt report`: the results of run directories as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simprompt.utils.terminal import say


def report(
    dirs: Annotated[list[str], typer.Argument(help="Directories that hold runs, or URLs")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page")] = Path("report.html"),
    picture: Annotated[
        Path | None, typer.Option(help="Also the plot of New against Base, as an SVG file")
    ] = None,
) -> None:
    """Write one self-contained page: table, plots, mechanism, test images, settings."""
    from simprompt.experiments.store import read_runs
    from simprompt.report import page

    results = read_runs(dirs)
    path = page.write(results, output)
    if picture:
        page.write_picture(results, picture)
    say(f"{len(results)} runs in {path} ({path.stat().st_size / 1e6:.1f} MB)")
