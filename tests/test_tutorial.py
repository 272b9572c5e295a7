"""docs/tutorial.md, from its first line of code to its last, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "pip": "it is installed",
    "simprompt serve": "it does not end; see deploy/test_server.py",
}


def commands(kind: str, block: str) -> list[list[str]]:
    """What a block runs, as arguments of Python; without what `NOT_RUN` names."""
    if kind == "python":
        return [["-c", block]]
    lines = [line for line in block.splitlines() if line and not line.startswith(tuple(NOT_RUN))]
    return [["-m", *shlex.split(line, comments=True)] for line in lines]


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[str]:
    """What each command of the page printed, in order."""
    folder = tmp_path_factory.mktemp("tutorial")
    printed = []
    for arguments in (made for block in BLOCKS for made in commands(*block)):
        found = [
            name
            for word in arguments
            for name in (sorted(map(str, folder.glob(word))) if "*" in word[:40] else [word])
        ]
        ended = subprocess.run(
            [sys.executable, *(found if arguments[0] == "-m" else arguments)], cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8",
            check=False,
        )  # fmt: skip
        code = ended.returncode
        # the machine of a test may have things to mend
        assert code == 0 or (code == 1 and "doctor" in arguments), ended.stderr
        printed.append(ended.stdout)
    return printed


def test_the_page_has_nothing_but_what_is_run_or_named():
    lines = "".join(block for kind, block in BLOCKS if kind == "bash").splitlines()
    assert all(line.startswith(("simprompt ", *NOT_RUN)) for line in lines if line)
    assert len(BLOCKS) > 7


def test_it_runs_to_the_end(said):
    doctor, made, checked, learned, predicted, chosen, shown, explained = said
    assert "simprompt" in doctor
    assert "airport" in made or "[" in made
    assert "240 files decode" in checked
    assert "held-out images" in learned
    assert len(predicted.splitlines()) > 10
    assert len(chosen.splitlines()) >= 12
    assert "Answer" in shown or "name=" in shown
    assert "explain.html" in explained
