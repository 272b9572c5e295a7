"""`simprompt doctor`: what it finds, and what it calls wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from simprompt.cli import checks
from simprompt.cli.main import app
from simprompt.errors import EXTRAS
from simprompt.utils import memory

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path) -> None:
    """An environment that says nothing, and a machine with everything."""
    for name in list(os.environ):
        if name.startswith(("SIMPROMPT_", "HF_", "OMP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(memory, "limit_mb", lambda: 8000.0)
    monkeypatch.setattr(checks, "LEAST_SPACE", 0)


def found(name: str) -> checks.Finding:
    return next(one for one in checks.examine() if one.name == name)


def test_a_sound_installation_has_no_problem():
    said = CliRunner().invoke(app, ["doctor"])
    assert "Nothing is wrong." in said.stdout, said.stdout
    assert said.exit_code == 0
    assert torch.__version__.startswith(found("torch").value)
    assert found("icons").value == "ships with the package"


def test_as_json_it_is_all_findings():
    said = CliRunner().invoke(app, ["doctor", "--json"])
    rows = json.loads(said.stdout)
    assert [row["name"] for row in rows] == [one.name for one in checks.examine()]
    assert said.exit_code == int(any(row["problem"] for row in rows))


def test_a_cache_that_cannot_be_written_is_said_with_the_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "file"))
    assert "let SIMPROMPT_CACHE name another place" in found("cache").problem
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_a_full_disk_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "not yet" / "there"))
    monkeypatch.setattr(checks, "LEAST_SPACE", float("inf"))
    assert "little room" in found("cache").problem
    assert not (tmp_path / "not yet").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SIMPROMPT_CHECKPOINT_EVERY", "often", "takes a number of seconds"),
        ("SIMPROMPT_CASHE", "/tmp", "Did you mean 'SIMPROMPT_CACHE'?"),
        ("SIMPROMPT_DATA", "/nowhere at all", ""),
    ],
)
def test_variables_that_say_nothing(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    assert found(name).value == value
    assert said in found(name).problem
    assert bool(said) == bool(found(name).problem)


def test_a_data_root_that_is_not_there(monkeypatch):
    monkeypatch.setenv("SIMPROMPT_DATA", "/nowhere at all")
    assert "make it" in found("datasets").problem


def test_an_old_package_and_a_small_machine(monkeypatch):
    versions = {"torch": "1.13.0", "numpy": "99.0"}
    monkeypatch.setattr(checks, "_version", versions.get)
    monkeypatch.setattr(memory, "limit_mb", lambda: 900.0)
    assert "pip install --upgrade 'torch>=2.4'" in found("torch").problem
    assert not found("numpy").problem
    assert "pip install safetensors" in found("safetensors").problem
    assert "may not fit" in found("memory").problem
    assert "pip install 'fastapi" in found("app").value


def test_the_extras_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = {"test", "proof", "pretrain"}
    declared = {
        extra: tuple(name for name in packages if not name.startswith("torch>"))
        for extra, packages in declared["optional-dependencies"].items()
        if extra not in others
    }
    assert declared == {**EXTRAS}
    assert checks.PURPOSES.keys() == EXTRAS.keys()
