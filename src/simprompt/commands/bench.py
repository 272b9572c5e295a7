"""`simprompt bench`: ours beside a reference, measured on this machine."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer


def bench(
    name: Annotated[str, typer.Argument(help="step, roofline, memory, ...; 'all'")] = "step",
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout")] = False,
    repeats: Annotated[int, typer.Option(help="Rounds of ours and the reference")] = 5,
    threads: Annotated[int, typer.Option(help="0: as many as there are cores")] = 0,
    case: Annotated[str, typer.Option(help="Only cases whose name contains this")] = "",
    busy: Annotated[
        bool, typer.Option("--busy", help="One thread's processor time, where others compute too")
    ] = False,
    tiny: Annotated[bool, typer.Option(help="A tiny model, to try the scripts out")] = False,
) -> None:
    """Speed and memory on this machine; needs a checkout of the repository."""
    from simprompt.errors import SimpromptError

    folder = benchmarks()
    known = sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("common", "reference"))
    if name not in (*known, "all"):
        raise SimpromptError(f"There is no benchmark {name!r}. Known: {', '.join(known)}, all.")
    if name == "all" and json_:
        raise SimpromptError("--json prints the document of one benchmark; name it.")
    options = ["--repeats", str(repeats), "--threads", str(threads)]
    options += (
        ["--json"] * json_
        + ["--tiny"] * tiny
        + ["--busy"] * busy
        + (["--case", case] if case else [])
    )
    for one in known if name == "all" else [name]:
        run(folder / f"{one}.py", options)


def benchmarks() -> Path:
    """The folder of the benchmark scripts, which are part of the repository, not of the package.

    Raises:
        SimpromptError: simprompt is installed without its repository.
    """
    from simprompt.errors import SimpromptError

    places = (Path(__file__).parents[3] / "benchmarks", Path.cwd() / "benchmarks")
    for place in places:
        if (place / "step.py").is_file():
            return place
    raise SimpromptError(
        "The benchmarks are in the repository and not in the installed package. Clone it and run "
        "`simprompt bench` in the clone's folder."
    )


def run(script: Path, options: list[str]) -> None:
    """Run a script as if from a shell, in this process."""
    before = sys.argv, sys.path[:]
    sys.argv = [str(script), *options]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before
