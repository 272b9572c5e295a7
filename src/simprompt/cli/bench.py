"""`simprompt bench`: ours beside a reference, measured on this machine."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import Json

# in the order in which `all` runs them: what is quick and wanted most comes first
NAMES = ("step", "roofline", "memory", "sweep", "cocoop", "features", "images", "end_to_end",
         "checkpoint", "classes", "precision")  # fmt: skip


def bench(
    name: Annotated[str, typer.Argument(help=f"{', '.join(NAMES)}; or all")] = "step",
    json_: Json = False,
    repeats: Annotated[int, typer.Option(help="Rounds of ours and the reference")] = 5,
    threads: Annotated[int, typer.Option(help="0: as many as there are cores")] = 0,
    case: Annotated[str, typer.Option(help="Only cases whose name contains this")] = "",
    busy: Annotated[
        bool, typer.Option("--busy", help="One thread's processor time, where others compute too")
    ] = False,
    tiny: Annotated[bool, typer.Option(help="A tiny model, to try the scripts out")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda; auto: a GPU if there is one")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="A folder that gets NAME.json of each benchmark")
    ] = None,
) -> None:
    """Speed and memory on this machine; needs a checkout of the repository."""
    from simprompt.errors import SimpromptError

    folder = benchmarks()
    name = name.replace("-", "_")
    if name not in (*NAMES, "all"):
        raise SimpromptError(f"There is no benchmark {name!r}. Known: {', '.join(NAMES)}, all.")
    if name == "all" and json_:
        raise SimpromptError("--json prints the document of one benchmark; name it, or use --out.")
    if device not in ("auto", "cpu", "cuda"):
        raise SimpromptError(f"--device takes auto, cpu or cuda, got {device!r}.")
    options = ["--repeats", str(repeats), "--threads", str(threads), "--device", device]
    options += ["--json"] * json_ + ["--tiny"] * tiny + ["--busy"] * busy
    options += ["--case", case] if case else []
    options += ["--out", str(out)] if out else []
    if name == "all":
        run_all(folder, options)
    else:
        run(folder / f"{name}.py", options)


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


def run_all(folder: Path, options: list[str]) -> None:
    """Every script in a process of its own, so that none finds what another has left in memory.

    Raises:
        SimpromptError: scripts that failed; the others have been run.
    """
    from simprompt.errors import SimpromptError

    failed = []
    for name in NAMES:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(folder / f"{name}.py"), *options]).returncode:
            failed.append(name)
    if failed:
        raise SimpromptError(f"These benchmarks failed, see above: {', '.join(failed)}.")
