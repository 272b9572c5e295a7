"""Studies are well-formed grids; their tables say what the runs say; one of them is really run."""

from __future__ import annotations

import csv
import json
import math
import random

import pytest

from shell import finished_runs, in_process
from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.experiments.summary import averages, paired
from simprompt.metrics import harmonic_mean
from simprompt.studies import Point, Study, find, grid, plot, studies, table
from simprompt.utils.options import ModelOptions, RecipeOptions

pytestmark = pytest.mark.integration

ALL = sorted(studies())
TASKS = ("icons/places", "icons/food", "icons/home")


def invented(plan: grid.Plan, seed: int = 0) -> dict[str, dict]:
    """A result for every run of a plan, with made-up numbers."""
    rng = random.Random(seed)
    found = {}
    for config in plan.configs:
        base, new = rng.uniform(50, 90), rng.uniform(40, 80)
        if config.protocol == "few-shot":
            new = math.nan
        found[config.handle] = {
            "key": config.handle, "dataset": config.dataset, "method": config.label,
            "seed": config.seed, "base": base, "new": new, "h": harmonic_mean(base, new),
            "ece_base": 1.0, "ece_new": 2.0, "parameters": 768, "steps": 10,
            "train_seconds": 0.5, "peak_mb": 300.0,
        }  # fmt: skip
    return found


def test_the_studies_of_the_paper_and_ours_are_there():
    assert set(ALL) >= {
        "main", "eurosat-coop", "lambda", "novel-count", "sample-size", "sampling", "novel-source",
        "oracle", "domain-shift", "overhead", "temperature", "diagonal", "kl-direction", "teacher",
        "anchor",
    }  # fmt: skip
    with pytest.raises(SimpromptError, match="novel-count"):
        find("novel-counts")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("preset", sorted(grid.PRESETS))
def test_every_study_is_a_grid_of_valid_runs(name, preset):
    study = find(name)
    labels = [p.label for p in study.points]
    assert len(set(labels)) == len(labels)
    assert study.reference in labels[: study.smoke]
    plan = grid.plan(study, preset)
    sizes = {len(configs) for _, configs in plan.rows}
    assert sizes == {1 if preset == "smoke" else len(study.datasets or TASKS * 8) and max(sizes)}
    assert all(c.protocol == study.protocol for c in plan.configs)
    keys = [tuple(c.handle for c in configs) for _, configs in plan.rows]
    assert len(set(keys)) == len(keys), "two points are the same runs"


def test_datasets_seeds_model_and_settings_can_be_given():
    plan = grid.plan(
        find("lambda"), datasets=["imagenet"], model=ModelOptions("ViT-B-16/openai"), seeds=[4],
        recipe=RecipeOptions(settings=["training.epochs=7", "sar.temperature=0.5"]),
    )  # fmt: skip
    assert {(c.dataset, c.model, c.seed) for c in plan.configs} == {
        ("imagenet", "ViT-B-16/openai", 4)
    }
    assert {c.training.epochs for c in plan.configs} == {7}
    assert {c.sar.temperature for c in plan.configs if c.sar} == {0.5}
    weights = [c.sar.weight for c in plan.configs if c.sar]
    assert weights == pytest.approx([i / 10 for i in range(1, 11)])
    with pytest.raises(SimpromptError, match="smoke"):
        grid.plan(find("lambda"), "tiny")


def test_a_tokenizer_is_a_path_and_no_yaml():
    path = "/models/a: b #c/vocabulary.json"
    plan = grid.plan(find("lambda"), "smoke", model=ModelOptions(tokenizer=path))
    assert {c.tokenizer for c in plan.configs} == {path}


def test_the_estimate_measures_each_size_of_the_work(monkeypatch):
    """A step of the full matrix is not taken for one of eight classes, but weights cost alike."""
    measured = []

    def step(config):
        measured.append(config.sar.classes_per_step if config.sar else 0)
        return measured[-1] / 1000

    monkeypatch.setattr(grid, "step_seconds", step)
    monkeypatch.setattr(grid, "_steps", lambda config: 10)
    configs = grid.plan(find("sample-size"), datasets=["icons/places"]).configs
    seconds, per_step = grid.training_seconds(configs)
    sizes = [0, 8, 16, 32, 64, 128, 100000]
    assert sorted(measured) == sizes
    assert math.isclose(seconds, 3 * 10 * sum(sizes) / 1000)
    assert math.isclose(per_step["coop+sar"], sum(sizes) / 6)
    measured.clear()
    grid.training_seconds(grid.plan(find("lambda"), datasets=["icons/places"]).configs)
    assert len(measured) == 2


def test_points_whose_packages_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr(grid, "find_spec", lambda package: None)
    plan = grid.plan(find("teacher"), "smoke")
    assert len(plan.left_out) == 3
    assert all("sentence" in point.label for point in plan.left_out)
    assert not {p.label for p in plan.left_out} & {p.label for p, _ in plan.rows}


def test_runs_that_studies_share_are_the_same_runs():
    (coop,) = {
        c.handle
        for name in ("lambda", "sampling", "teacher", "anchor")
        for point, configs in grid.plan(find(name), "smoke").rows
        if point.label == "CoOp"
        for c in configs
    }
    assert coop


def test_records_are_means_and_paired_differences():
    plan = grid.plan(find("sampling"), datasets=TASKS)
    results = invented(plan)
    rows = {r["point"]: r for r in table.records(plan, results)}
    assert list(rows) == [p.label for p in find("sampling").points]
    for point, configs in plan.rows:
        runs = [{**results[c.handle], "method": point.label} for c in configs]
        assert rows[point.label]["base"] == averages(runs)["base"]
        assert rows[point.label]["runs"] == 9
    everything = [
        {**results[c.handle], "method": p.label} for p, configs in plan.rows for c in configs
    ]
    wanted = paired(everything, "one fixed draw", "CoOp")["new"]
    row = rows["one fixed draw"]
    assert row["d_new"] == wanted["diff"]
    assert [row["d_new_low"], row["d_new_high"]] == wanted["ci95"]
    assert rows["CoOp"]["d_new"] is None


def test_points_without_results_are_left_out_and_one_task_has_no_interval():
    plan = grid.plan(find("sampling"), datasets=TASKS[:1])
    results = invented(plan)
    for config in plan.rows[1][1]:
        del results[config.handle]
    rows = table.records(plan, results)
    assert len(rows) == 3
    assert all(r["d_new_low"] is None for r in rows)


def test_new_at_a_base_lies_on_the_path():
    path = [(90.0, 40.0), (80.0, 50.0), (70.0, 52.0)]
    assert table.at_base(path, 90) == 40
    assert table.at_base(path, 85) == 45
    assert table.at_base(path, 72.5) == 51.5
    assert table.at_base(path, 60) is None
    assert table.at_base([(90.0, 40.0), (90.0, 45.0), (80.0, 50.0)], 90) == 40, "the first time"


def test_frontiers_are_compared_where_base_is_equal():
    """Two paths of one shape, the second always 3 higher: the gain is 3 whatever the weights."""
    study = Study(
        "two", "?",
        (Point("CoOp", sar=False),
         *(Point(f"a{w}", (f"sar.weight={w}",), x=str(w), series="a") for w in (1, 2, 3)),
         *(Point(f"b{w}", (f"sar.weight={w}5",), x=str(w), series="b") for w in (1, 2))),
        "CoOp", "weight", "frontier",
    )  # fmt: skip
    plan = grid.plan(study, datasets=TASKS, seeds=[1])
    base = {"CoOp": 90, "a1": 80, "a2": 70, "a3": 60, "b1": 75, "b2": 65}
    results = {}
    for point, configs in plan.rows:
        for i, config in enumerate(configs):
            lift = 3 if point.series == "b" else 0
            new = 130 - base[point.label] + lift * (point.label != "CoOp")
            results[config.handle] = {
                "dataset": config.dataset, "seed": 1, "base": base[point.label] + i, "new": new,
            }  # fmt: skip
    a, b = table.frontiers(plan, results)
    assert a["d_new"] is None
    assert (a["series"], b["series"]) == ("a", "b")
    # the lowest Base that both reach is b's 65, in each task i higher by i = 0, 1, 2
    assert a["base"] == b["base"] == pytest.approx((90 + 65) / 2 + 1)
    assert a["new"] == pytest.approx(130 - (90 + 65) / 2)
    # b's path rises by 3 over its first 15 points of Base, and 12.5 of them are walked
    assert b["d_new"] == pytest.approx(3 * 12.5 / 15, abs=0.2)
    assert b["datasets"] == 3


@pytest.mark.parametrize("name", ["novel-count", "anchor", "few-shot", "domain-shift", "overhead"])
def test_table_and_plot_of_each_kind_are_written(name, tmp_path):
    plan = grid.plan(find(name), datasets=TASKS, seeds=[1, 2])
    results = invented(plan)
    rows = table.records(plan, results)
    paths = plot.write(plan.study, rows, tmp_path)
    assert [p.suffix for p in paths] == [".svg", ".png"]
    assert all(p.stat().st_size > 5000 for p in paths)
    again = list(csv.DictReader(table.as_csv(rows).splitlines()))
    assert [r["point"] for r in again] == [p.label for p, _ in plan.rows]
    assert "nan" not in table.as_csv(rows)
    written = table.table(plan.study, rows)
    assert all(len(row) == len(written.columns) for row in written.rows)


def test_a_study_by_name_is_run_written_and_not_run_twice(tmp_path):
    command = ("study", "sampling", "--smoke", "--out", str(tmp_path),
               "--set", "sar.novel_count=40", "--set", "training.shots=2")  # fmt: skip
    first = in_process(*command)
    assert first.returncode == 0, first.stderr
    assert "sampling: 4 runs, about" in first.stderr
    folder = tmp_path / "sampling-smoke"
    assert {p.name for p in folder.iterdir()} == {
        "table.csv", "table.md", "runs.csv", "plot.svg", "plot.png",
    }  # fmt: skip
    stamps = finished_runs(tmp_path)
    assert len(stamps) == 4
    again = in_process(*command, "--json")
    assert "4 of them there already" in again.stderr
    document = json.loads(again.stdout)
    assert [r["point"] for r in document["rows"]] == [p.label for p in find("sampling").points]
    assert finished_runs(tmp_path) == stamps


def test_list_and_a_wrong_name():
    listed = json.loads(in_process("list", "studies", "--json").stdout)
    assert sorted(s["name"] for s in listed) == ALL
    wrong = in_process("study", "lamda")
    assert wrong.returncode == 2
    assert "lambda" in wrong.stderr


@pytest.mark.slow
def test_every_study_by_name_at_smoke(tmp_path):
    found = in_process("study", "all", "--smoke", "--out", str(tmp_path), "--json")
    assert found.returncode == 0, found.stderr
    assert [d["study"] for d in json.loads(found.stdout)] == list(studies())
    for name in ALL:
        assert (tmp_path / f"{name}-smoke" / "plot.svg").is_file()


def test_a_run_config_of_a_study_is_found_again():
    plan = grid.plan(find("anchor"), "smoke")
    assert all(RunConfig(**c.model_dump(mode="json")).handle == c.handle for c in plan.configs)
