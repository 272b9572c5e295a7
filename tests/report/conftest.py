"""Synthetic results: three tasks, three methods, two seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.store import read_runs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    synthetic.write_runs(out, synthetic.TASKS, seeds=(1, 2))
    return out


@pytest.fixture
def results(folder: Path) -> list[RunResult]:
    return read_runs([folder])
