"""docs/tutorial.md, from its first line of code to its last, in a folder of its own; training is
shorter."""

from __future__ import annotations

import glob
import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from shell import in_process

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "pip": "it is installed",
    "simprompt serve": "it does not end; see deploy/test_server.py",
}


def commands(block: str) -> list[list[str]]:
    """The lines of a block for a shell, but for what `NOT_RUN` names, as arguments of simprompt."""
    lines = [line for line in block.splitlines() if line and not line.startswith(tuple(NOT_RUN))]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def expanded(arguments: list[str]) -> list[str]:
    """With the files that a pattern names, as a shell gives them."""
    return [name for word in arguments for name in (sorted(glob.glob(word)) or [word])]


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[str]:
    """What each command of the page printed, in order."""
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tutorial"))
        for kind, block in BLOCKS:
            if kind == "python":
                out = io.StringIO()
                with redirect_stdout(out):
                    exec(block, {})
                printed.append(out.getvalue())
                continue
            for arguments in commands(block):
                ended = in_process(*expanded(arguments))
                # the machine of a test may have things to mend
                assert ended.returncode == 0 or arguments == ["doctor"], ended.stderr
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
