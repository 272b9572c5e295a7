"""The examples of docs/models.md, datasets.md and your-own-images.md run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("models.md", "datasets.md", "your-own-images.md")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder that the pages speak of, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, colour in (("Golden_Retriever", (200, 160, 60)), ("border-collie", (40, 40, 40))):
        for i in range(6):
            pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (60, 50, 3)), 0, 255)
            path = tmp_path / "my_photos" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (tmp_path / "names.txt").write_text("poodle\nhusky\n", encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, photos):
    from simprompt.cli.main import app

    text = (DOCS / page).read_text(encoding="utf-8")
    commands = re.findall(r"^\$ simprompt (.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, (command, result.output, result.exception)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / target).is_file(), target
