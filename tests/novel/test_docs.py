"""The examples of docs/novel.md run as they stand there."""

import re
import shlex
from pathlib import Path

from simprompt.cli.novel import app
from typer.testing import CliRunner

PAGE = Path(__file__).parents[2] / "docs" / "novel.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ simprompt novel (.*)$", TEXT, re.MULTILINE)


def test_commands_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 7
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "animals.svg").exists()


def test_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/novel.md", "exec"), {})
