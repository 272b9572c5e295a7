"""What the pages name of the package exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import simprompt
from test_architecture import ROOMS

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted({name for name in re.findall(r"`([\w.]+)`", PAGE) if "." in name})


def resolve(name: str) -> Any:
    """A module of the package, or what is in one, by its dotted name without "simprompt."."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(["simprompt", *parts[:length]])
        try:
            value = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AttributeError(f"there is no module {name}")


def test_what_the_page_names_exists():
    missing = []
    for name in NAMES:
        try:
            resolve(name)
        except AttributeError:
            missing.append(name)
    assert not missing


SETTINGS = {"sar", "training", "options", "clip"}  # `clip.notes` is of an object
FILES = {"py", "json", "csv", "md", "txt", "safetensors", "onnx", "npz", "html", "zip", "toml"}


def names_on(page: Path) -> list[str]:
    """What a page names of the package: `simprompt.x.y` and `room.y`, with or without a call."""
    names = re.findall(r"`((?:\w+\.)+\w+)(?:\([^`]*\))?`", page.read_text(encoding="utf-8"))
    found = []
    for name in names:
        first, last = name.partition(".")[0], name.rpartition(".")[2]
        if first == "simprompt":
            found.append(name.removeprefix("simprompt."))
        elif first in {*ROOMS} - SETTINGS and last not in FILES:
            found.append(name)
    return found


ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_any_page_names_exists(page):
    missing = []
    for name in names_on(page):
        try:
            value = resolve(name)
        except AttributeError:
            value = getattr(simprompt, name, None)
        if value is None:
            missing.append(name)
    assert not missing
