"""The table of docs/your-own-images.md: each row is a case that calls the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from page_cases import all_cases

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "your-own-images.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| .+ \| .+ \|$", re.MULTILINE)


def rows() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return ROW.findall(text[text.index("## What lies on the disk") :])


def test_every_row_has_a_case_and_every_case_a_row():
    assert len(rows()) == len(set(rows()))
    assert set(rows()) == set(all_cases())


@pytest.mark.parametrize("name", rows())
def test_row(name, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "source"
    root.mkdir()
    all_cases()[name](root)
