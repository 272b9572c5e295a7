"""The README's three commands run as they are written, with a shorter training."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

import simprompt
from shell import in_process

pytestmark = pytest.mark.integration

pytest.importorskip("fastapi")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
(OWN,) = re.findall(r"^## Your own images$.*?```bash\n(.*?)```", README, re.MULTILINE | re.DOTALL)


def test_learn_predict_serve(tmp_path: Path, monkeypatch):
    data = simprompt.load_dataset("icons/food")
    split = data.base.train
    for label, rows in list(split.rows_by_label().items())[:3]:
        for place in ("my_photos", "new_photos"):
            folder = tmp_path / place / split.classnames[label]
            folder.mkdir(parents=True)
            for row in rows[:6] if place == "my_photos" else rows[6:8]:
                split.load(row).save(folder / f"{row}.png")
    (tmp_path / "names.txt").write_text("teapot\nspoon\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    learn, predict, serve = (shlex.split(line) for line in OWN.splitlines())
    assert [command[0] for command in (learn, predict, serve)] == ["simprompt"] * 3
    learned = in_process(*learn[1:])
    assert learned.returncode == 0, learned.stderr
    assert "simprompt predict learned/prompt" in learned.stdout
    rows = in_process(*predict[1:]).stdout.splitlines()
    assert len(rows) == 6
    command = [sys.executable, "-m", "simprompt", *serve[1:], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}info", timeout=60) as answer:
            assert {"teapot", "spoon"} <= set(json.load(answer)["names"])
        process.send_signal(signal.SIGTERM)
    card = json.loads((tmp_path / "learned/prompt/card.json").read_text(encoding="utf-8"))
    assert (card["method"], card["shots"]) == ("images+text", 18)
    assert card["new_classes"] == ["teapot", "spoon"]
    assert card["calibration"]["temperature"] > 0
    prompt = in_process(*learn[1:], "--method", "coop", "--sar", "on", "--set", "training.epochs=2")
    assert prompt.returncode == 0, prompt.stderr
    card = json.loads((tmp_path / "learned/prompt/card.json").read_text(encoding="utf-8"))
    given, filled = card["novel_provenance"]["parts"]
    assert (given["source"], given["got"]) == ("given by the caller", 2)
    assert filled["source"] == "random-nouns"


def test_the_python_block(tmp_path: Path, monkeypatch, capsys):
    """As it stands, with a shorter training."""
    short = partial(simprompt.learn, training={"max_steps": 8}, progress=False)
    monkeypatch.setattr(simprompt, "learn", short)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(block, {})
    numbers, name = capsys.readouterr().out.splitlines()
    assert all(20 < float(number) < 100 for number in numbers.split())
    assert name in simprompt.load_dataset("icons/animals").new.classnames


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter"])
def test_learn_takes_classifiers_of_images_as_they_are(method, tmp_path: Path):
    split = simprompt.load_dataset("icons/food").base.train
    for label, rows in list(split.rows_by_label().items())[:2]:
        (tmp_path / "p" / split.classnames[label]).mkdir(parents=True)
        for row in rows[:4]:
            split.load(row).save(tmp_path / "p" / split.classnames[label] / f"{row}.png")
    (tmp_path / "names.txt").write_text("teapot\n", encoding="utf-8")
    command = ["learn", str(tmp_path / "p"), "--method", method, "--out", str(tmp_path / "out")]
    learned = in_process(*command)
    assert learned.returncode == 0, learned.stderr
    rows = in_process("predict", str(tmp_path / "out" / "prompt"), str(tmp_path / "p"))
    assert len(rows.stdout.splitlines()) == 8
    refused = in_process(*command, "--new-classes", str(tmp_path / "names.txt"))
    assert refused.returncode == 2
    assert "a prompt method such as coop" in refused.stderr
