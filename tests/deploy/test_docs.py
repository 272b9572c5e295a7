"""The examples of docs/deploy.md's section on exports run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shell import in_process
from simprompt import methods

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
(EXPORT,) = re.findall(r"^## Export$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*treespec")
def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    rng = np.random.default_rng(0)
    for name in ("Golden_Retriever", "border-collie"):
        (tmp_path / "my_photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_photos" / name / f"{i}.jpg")
    answered = []
    for line in re.findall(r"^\$ (.*)$", EXPORT, re.MULTILINE):
        program, *arguments = shlex.split(line)
        if program == "simprompt":
            more = ["--set", "training.epochs=2"] if arguments[0] == "learn" else []
            run = in_process(*arguments, *more)
        elif program == "python":
            run = subprocess.run(
                [sys.executable, *arguments], capture_output=True, encoding="utf-8", check=False
            )
            answered.append(run.stdout.splitlines())
        else:
            assert program == "pip"
            continue
        assert run.returncode == 0, (line, run.stderr)
    assert [len(lines) for lines in answered] == [8, 8, 8]
    first = json.loads(answered[1][0])
    assert {a["class"] for a in first["answers"]} == {"poodle", "husky"}
    for code in re.findall(r"```python\n(.*?)```", EXPORT, re.DOTALL):
        exec(compile(code, "deploy.md", "exec"), {})


def test_every_method_is_in_the_table():
    rows = re.findall(r"^\| ([a-z+, -]+) \| yes \|", EXPORT, re.MULTILINE)
    assert sorted(name for row in rows for name in row.split(", ")) == methods.names()
