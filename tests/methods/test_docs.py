"""docs/methods.md says what `list methods` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from simprompt import methods, recipes
from simprompt.cli.described import STORED, describe, with_table

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def test_the_table_is_the_list() -> None:
    assert with_table(PAGE, describe(methods.names())) == PAGE, "run `make methods`"


def test_every_name_on_the_page_exists() -> None:
    words = {word.strip("`,.()") for word in PAGE.replace("\n", " ").split() if "@" in word}
    assert words
    assert not words - {*recipes.names()}, "docs/methods.md names recipes that do not exist"


def test_the_stored_list_is_what_the_methods_say() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert stored == describe(methods.names()), "run `make methods`"


def test_the_list_is_whole_at_80_columns_and_loads_no_torch(monkeypatch) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "simprompt", "list", "methods"],
        capture_output=True, encoding="utf-8", env={**os.environ, "COLUMNS": "80"}, check=True,
    )  # fmt: skip
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not [name for name in (*methods.names(), *recipes.names()) if name not in done.stdout]
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" not in imported, "run `make methods`: what it stored need not be loaded"
