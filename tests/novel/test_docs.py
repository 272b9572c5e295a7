"""The examples of docs/novel.md run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from benchmarks.novel_lab.program import app as lab
from typer.testing import CliRunner

from simprompt.cli.main import app

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "novel.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (simprompt|python -m benchmarks.novel_lab) (.*)$", TEXT, re.MULTILINE)


def test_commands_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 7
    for program, command in COMMANDS:
        called = app if program == "simprompt" else lab
        result = CliRunner().invoke(called, shlex.split(command))
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "animals.svg").exists()


def test_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/novel.md", "exec"), {})
