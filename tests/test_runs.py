"""Run directories are whole or absent; summaries average the way they say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import pytest

from simprompt.clip.catalogue import embedded_digest
from simprompt.config import SAR, RunConfig
from simprompt.errors import SimpromptError
from simprompt.evaluate import harmonic_mean
from simprompt.runs import (
    averages,
    finished,
    paired,
    read_runs,
    remove_remains,
    run_folder,
    summarise,
    write_run,
)


def result(dataset, method, seed, base, new):
    return {
        "dataset": dataset, "method": method, "seed": seed, "base": base, "new": new,
        "h": harmonic_mean(base, new), "seconds": 1.0, "peak_mb": 300.0, "parameters": 768,
    }  # fmt: skip


GRID = [
    result("a", "coop", 1, 80, 40), result("a", "coop", 2, 90, 50),
    result("b", "coop", 1, 60, 60), result("b", "coop", 2, 70, 70),
    result("a", "coop+sar", 1, 78, 46), result("a", "coop+sar", 2, 86, 54),
    result("b", "coop+sar", 1, 60, 66), result("b", "coop+sar", 2, 68, 72),
    result("a", "zero-shot", 1, 50, 50), result("b", "zero-shot", 1, 50, 60),
]  # fmt: skip


def test_key_is_the_settings_and_nothing_else():
    config = RunConfig(dataset="icons/animals", sar=SAR(weight=0.4))
    assert config.key == RunConfig(dataset="icons/animals", sar=SAR(weight=0.4)).key
    assert config.key != RunConfig(dataset="icons/animals", sar=SAR(weight=0.5)).key
    assert config.key != config.model_copy(update={"seed": 2}).key


def test_a_run_is_there_whole_or_not_at_all(tmp_path):
    config = RunConfig(dataset="d")

    def broken(folder):
        (folder / "half").write_text("written", encoding="utf-8")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_run(tmp_path, config, broken)
    assert finished(tmp_path, config) is None
    assert list(tmp_path.rglob("half")) == []

    def good(folder):
        assert not run_folder(tmp_path, config).exists(), "nothing is visible while it is made"
        (folder / "prompt").write_text("p", encoding="utf-8")
        return {"base": 1}

    write_run(tmp_path, config, good)
    assert finished(tmp_path, config) == {"base": 1}
    assert (run_folder(tmp_path, config) / "prompt").read_text(encoding="utf-8") == "p"


def test_a_run_with_other_embedded_weights_is_made_again(tmp_path):
    config = RunConfig(dataset="d", model="icons")
    theirs, ours = (
        {"base": 1, "weights": "0" * 16},
        {"base": 2, "weights": embedded_digest("icons")},
    )
    write_run(tmp_path, config, lambda _: theirs)
    assert finished(tmp_path, config) is None
    write_run(tmp_path, config, lambda _: ours)
    assert finished(tmp_path, config) == ours
    elsewhere = RunConfig(dataset="d", model="ViT-B-16/openai")  # known by its repository
    write_run(tmp_path, elsewhere, lambda _: {"base": 3, "weights": None})
    assert finished(tmp_path, elsewhere) == {"base": 3, "weights": None}


def test_what_a_killed_process_left_is_not_read(tmp_path):
    done = tmp_path / "a" / "coop" / "seed1-x"
    left = tmp_path / "a" / "coop" / ".seed2-y-partial"
    for folder, row in ((done, GRID[0]), (left, GRID[1])):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(row), encoding="utf-8")
    assert [r["seed"] for r in read_runs([tmp_path])] == [1]


KILLED = """
import os, signal, sys
from simprompt.config import RunConfig
from simprompt.runs import write_run
write_run(sys.argv[1], RunConfig(dataset="d"), lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.skipif(os.name != "posix", reason="nothing can be asked of a process id")
def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.rglob(".seed*")
    other = RunConfig(dataset="d", seed=2)

    def fill(folder):
        assert remove_remains(tmp_path) == 1
        assert folder.is_dir()
        assert not left.exists()
        return {"base": 1}

    write_run(tmp_path, other, fill)
    assert remove_remains(tmp_path) == 0
    assert finished(tmp_path, other) == {"base": 1}


def test_what_a_process_elsewhere_left_is_removed_after_a_week(tmp_path):
    folder = tmp_path / "a" / "coop"
    young = folder / f".seed1-x-{os.getpid()}@0123abcd-pq"
    old = folder / ".seed1-x-partial"
    now = time.time()
    for path, days in ((young, 6), (old, 8)):
        path.mkdir(parents=True)
        os.utime(path, (now, now - days * 24 * 3600))
    assert remove_remains(tmp_path) == 1
    assert list(folder.iterdir()) == [young]


def test_no_runs_is_a_clear_error(tmp_path):
    with pytest.raises(SimpromptError, match="No finished run"):
        read_runs([tmp_path])
    with pytest.raises(SimpromptError, match="There is no directory"):
        read_runs([tmp_path / "nowhere"])


def test_averages_both_ways():
    rows = [r for r in GRID if r["method"] == "coop"]
    found = averages(rows)
    assert found["base"] == 75
    assert found["new"] == 55
    assert found["h_of_means"] == harmonic_mean(75, 55)
    assert found["mean_h"] == (harmonic_mean(85, 45) + harmonic_mean(65, 65)) / 2
    assert found["mean_h"] <= found["h_of_means"]


def test_paired_differences_average_seeds_then_tasks():
    found = paired(GRID, "coop+sar", "coop")
    assert found["new"]["per_dataset"] == {"a": 5, "b": 4}
    assert found["new"]["diff"] == 4.5
    # deviation of (5, 4) is sqrt(1/2); t(1) = 12.706; half width = 12.706 / 2
    low, high = found["new"]["ci95"]
    assert math.isclose(high - 4.5, 12.7062 / 2, rel_tol=1e-4)
    assert math.isclose(4.5 - low, 12.7062 / 2, rel_tol=1e-4)
    assert found["base"]["diff"] == -2


def test_one_task_has_no_interval():
    found = paired([r for r in GRID if r["dataset"] == "a"], "coop+sar", "coop")
    assert found["new"]["diff"] == 5
    assert found["new"]["ci95"] is None


def test_summary_has_the_documented_shape():
    document = json.loads(json.dumps(summarise(GRID)))
    assert list(document["methods"]) == ["zero-shot", "coop", "coop+sar"]
    assert set(document["methods"]["coop"]) == {"base", "new", "h_of_means", "mean_h"}
    assert set(document["paired"]) == {"base", "new", "h"}
    assert document["to_zero_shot"]["coop+sar"]["base"]["diff"] == pytest.approx(19)
    assert set(document["runs"][0]) == {
        "dataset", "method", "seed", "base", "new", "h", "seconds", "peak_mb", "parameters",
    }  # fmt: skip
