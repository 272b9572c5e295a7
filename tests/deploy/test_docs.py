"""The examples of docs/deploy.md run as they stand there."""

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
from simprompt.clip.layouts.open_clip import save_open_clip

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
(EXPORT,) = re.findall(r"^## Export$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*treespec")
@pytest.mark.usefixtures("one_registry", "one_graph")
def test_examples_run(tmp_path, monkeypatch, shallow):
    """In the page's order, in one folder, with a small CLIP; `bash` blocks need a hub or go on for
    ever, and have tests of their own."""
    pytest.importorskip("sklearn")
    save_open_clip(shallow, tmp_path / "a CLIP")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    rng = np.random.default_rng(0)
    for name in ("Golden_Retriever", "border-collie", "beagle"):
        (tmp_path / "my_photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_photos" / name / f"{i}.jpg")
    answered = []
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "deploy.md", "exec"), {})
            continue
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            program, *arguments = shlex.split(line)
            if program == "simprompt":
                short = ["--model", str(tmp_path / "a CLIP"), "--set", "training.epochs=2"]
                run = in_process(*arguments, *(short if arguments[0] == "learn" else ()))
            elif program == "python":
                run = subprocess.run(
                    [sys.executable, *arguments], capture_output=True, encoding="utf-8", check=False
                )
                answered.append(run.stdout.splitlines())
            else:
                assert program == "pip"
                continue
            assert run.returncode == 0, (line, run.stderr)
    assert [len(lines) for lines in answered] == [12, 12, 12]
    first = json.loads(answered[1][0])
    assert {a["class"] for a in first["answers"]} == {"poodle", "husky"}
    assert (tmp_path / "explain.html").is_file()
    assert len([*(tmp_path / "sorted").rglob("*.jpg")]) == 12


def test_every_method_is_in_the_table():
    rows = re.findall(r"^\| ([a-z+, -]+) \| yes \|", EXPORT, re.MULTILINE)
    assert sorted(name for row in rows for name in row.split(", ")) == methods.names()
