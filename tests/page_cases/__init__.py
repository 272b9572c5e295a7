"""Cases of the table in docs/your-own-images.md, by the id of their row.

A module beside this one holds the cases of one kind: functions of a folder to build in, marked with
`@case("id")`. tests/data/test_own_images_page.py runs each, and fails for a row without one.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from simprompt.cli.main import app
from simprompt.errors import SimpromptError

Case = Callable[[Path], None]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Register the case of the row with this id."""

    def register(function: Case) -> Case:
        assert name not in CASES, f"two cases for {name}"
        CASES[name] = function
        return function

    return register


def all_cases() -> dict[str, Case]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return CASES


def images(root: Path, *paths: str) -> Path:
    """Small images at these paths, each of a colour of its own."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(zlib.crc32(path.encode()).to_bytes(4, "big")[:3])
        kind = "JPEG" if place.suffix in ("", ".jfif", ".jpg") else "PNG"
        Image.new("RGB", (6, 5), colour).save(place, kind)
    return root


def classes(root: Path, *folders: str, count: int = 2) -> Path:
    """A class folder at each of these paths, with so many images."""
    return images(root, *(f"{folder}/{i}.png" for folder in folders for i in range(count)))


def check(root: Path | str, *options: str) -> dict[str, Any]:
    """What `simprompt check` says of the user's own images, with exit code 0 or 1 for files
    that are damaged or double."""
    result = CliRunner().invoke(app, ["check", str(root), "--json", *options])
    assert result.exit_code in (0, 1), result.output
    assert result.stdout, result.exception
    own: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])["own"]
    return own


def refusal(root: Path | str, *options: str) -> str:
    """The message with which `simprompt check` refuses a source."""
    result = CliRunner().invoke(app, ["check", str(root), "--strict", *options])
    assert result.exit_code != 0, result.output
    assert isinstance(result.exception, SimpromptError), result.output
    return str(result.exception)
