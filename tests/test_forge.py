"""What a public forge reads: continuous integration, forms for issues, hooks before a commit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_a_mapping_in_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_every_python_that_the_package_admits_is_tried() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    said = re.findall(r"Python :: (3\.\d+)", project)
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    assert said
    assert jobs["linux"]["strategy"]["matrix"]["python"] == said
    assert f'requires-python = ">={said[0]}"' in project


def test_what_it_runs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    targets = re.findall(r"\bmake ([a-z-]+)$", text, re.MULTILINE)
    lists = re.findall(r"-r (requirements/\S+)", text)
    assert targets
    assert lists
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in lists:
        assert (ROOT / name).is_file(), name
