"""docs/methods.md says what `methods list` says."""

from __future__ import annotations

from pathlib import Path

from simprompt import methods, recipes
from simprompt.commands.methods import describe

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def test_the_table_is_the_list() -> None:
    table = PAGE.partition("## ")[0]
    lines = {line.split("|")[1].strip(" `"): line for line in table.splitlines() if "| `" in line}
    for row in describe():
        line = lines[row["method"]]
        assert f" {row['parameters']:,}{'*' if row['per_class'] else ''} |" in line
        if row["method"] != "dept":
            assert ("| yes |" in line) == row["sar"]
            assert ("| live |" in line) == (row["image_tower"] == "live")


def test_every_name_on_the_page_exists() -> None:
    words = {word.strip("`,.()") for word in PAGE.replace("\n", " ").split() if "@" in word}
    assert words
    assert words <= set(recipes.names())
    assert all(f"`{name}`" in PAGE for name in methods.names())
