"""Speed and memory on this machine, each figure beside a reference of the same run.

python -m benchmarks step --repeats 3
python -m benchmarks all --out runs/bench
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from simprompt.cli.options import Json
from simprompt.errors import SimpromptError

HERE = Path(__file__).parent

# in the order in which `all` runs them: what is quick and wanted most comes first
NAMES = ("step", "roofline", "memory", "sweep", "cocoop", "features", "images", "end_to_end",
         "checkpoint", "classes", "precision")  # fmt: skip


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help=f"{', '.join(NAMES)}; or all")] = "step",
    json_: Json = False,
    repeats: Annotated[int, typer.Option(help="Rounds of both")] = 5,
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
    """Speed and memory on this machine."""
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
        run_all(options)
    else:
        run(HERE / f"{name}.py", options)


def run(script: Path, options: list[str]) -> None:
    """Run a script as if from a shell, in this process."""
    before = sys.argv, sys.path[:]
    sys.argv = [str(script), *options]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before


def run_all(options: list[str]) -> None:
    """Every script in a process of its own, so that none finds what another has left in memory.

    Raises:
        SimpromptError: scripts that failed; the others have been run.
    """
    failed = []
    for name in NAMES:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options]).returncode:
            failed.append(name)
    if failed:
        raise SimpromptError(f"These benchmarks failed, see above: {', '.join(failed)}.")
