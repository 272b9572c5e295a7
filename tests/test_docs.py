"""docs/architecture.md names what there is, and leaves out no room."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import simprompt
from test_architecture import SOURCE, imports_of, module_name, room

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS, *WALKS = re.split(r"^## The (?:rooms|walk .*)$", PAGE, flags=re.MULTILINE)[1:]
LINES = re.findall(r"^\| (`[^|]*`) \|", ROOMS, re.MULTILINE)
LISTED = [re.findall(r"`(\w+)`", line) for line in LINES]
ROOM_NAMES = [name for line in LISTED for name in line]
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
        elif first in {*ROOM_NAMES} - SETTINGS and last not in FILES:
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


def test_every_room_is_on_the_page_and_no_other():
    rooms = {p.stem for p in SOURCE.glob("*.py")} | {p.parent.name for p in SOURCE.glob("*/*.py")}
    assert sorted(ROOM_NAMES) == sorted(rooms - {"__init__"})


def test_a_room_uses_those_below_it_alone():
    files = {module_name(path): path for path in SOURCE.rglob("*.py")}
    uses = {
        (room(module), room(other))
        for module, path in files.items()
        for other in imports_of(path, set(files))
        if "simprompt" not in (module, other)
    }
    place = {name: number for number, name in enumerate(ROOM_NAMES)}
    assert not [(a, b) for a, b in sorted(uses) if place[a] > place[b]]


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_is_ten_steps_each_with_a_name(walk):
    steps = re.split(r"^(?=\d+\. )", walk, flags=re.MULTILINE)[1:]
    assert [int(step.partition(".")[0]) for step in steps] == list(range(1, 11))
    assert all(re.search(r"`\w+(\.\w+)+`", step) for step in steps)
