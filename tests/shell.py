"""The command line as a user has it: in a process of its own, or, much quicker, in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from simprompt.cli.main import main

STRICT = """
import warnings
warnings.simplefilter("ignore", EncodingWarning)
warnings.filterwarnings("error", category=EncodingWarning, module="simprompt")
from simprompt.cli.main import main
main()
"""
PATIENCE = 600.0  # seconds; only a test that fails waits so long, however busy the machine is


def simprompt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, where it is an error of ours to open a text file
    without an encoding."""
    return subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", STRICT, *arguments],
        capture_output=True, encoding="utf-8", cwd=cwd, timeout=PATIENCE, check=False,
    )  # fmt: skip


def printed(code: str) -> str:
    """What Python code prints in a process of its own, which has imported nothing before."""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    return found.stdout.strip()


def in_process(
    *arguments: str, program: Callable[[], object] = main
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: the same entry point, without loading torch again."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    shell = mock.patch.object(sys, "argv", ["simprompt", *arguments])
    with redirect_stdout(out), redirect_stderr(err), shell:
        try:
            program()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition of another process holds.

    The condition must look at nothing that may vanish between two looks: a walk with `rglob` fails
    where a folder is renamed under it.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def finished_runs(out: Path) -> dict[Path, int]:
    """Result files of finished runs and their times, while others are being made.

    `os.walk` passes over folders that vanish; those that begin with a dot are half made.
    """
    stamps = {}
    for place, folders, files in os.walk(out):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "result.json" in files:
            path = Path(place) / "result.json"
            stamps[path] = path.stat().st_mtime_ns
    return stamps
