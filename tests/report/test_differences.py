"""A difference in a table is the difference of the numbers that the table shows."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re

import pytest

from simprompt.experiments.summary import averages, dataset_means, paired, summarise
from simprompt.metrics import harmonic_gradient, harmonic_mean
from simprompt.report import page, published, table, tables, words
from simprompt.report.table import MARK, ROUNDING, Shared
from simprompt.studies import find, grid
from simprompt.studies import table as study_table
from simprompt.utils.statistics import interval, mean, student_t_975

TASKS = ("eurosat", "oxford_pets", "dtd", "ucf101")
METHODS = ("zero-shot", "coop", "coop+sar", "kgcoop", "kgcoop+sar")


def invented(number: int, protocol: str = "base-to-new", seeds: int = 3) -> list[dict]:
    """Runs whose accuracies lie so far apart that every way to average H gives another number."""
    rng = random.Random(number)
    config = {"model": "m", "training": {"shots": 16, "epochs": 50, "max_steps": None},
              "max_test_per_class": None, "protocol": protocol}  # fmt: skip
    results = []
    for task in TASKS:
        for method in METHODS:
            for seed in range(1, seeds + 1):
                base, new = rng.uniform(20, 95), rng.uniform(5, 80)
                if protocol == "few-shot":
                    new = math.nan
                results.append({
                    "key": f"{task}-{method}-{seed}", "protocol": protocol, "dataset": task,
                    "method": method, "seed": seed, "base": base, "new": new,
                    "h": harmonic_mean(base, new), "ece_base": 1.0, "ece_new": 2.0,
                    "parameters": 5, "steps": 9, "train_seconds": 1.0, "seconds": 2.0,
                    "peak_mb": 3.0, "config": config,
                })  # fmt: skip
    return results


def uneven(number: int) -> list[dict]:
    """The same where CoOp lacks a seed of one task and KgCoOp+SAR a task."""
    return [
        r
        for r in invented(number)
        if (r["dataset"], r["method"], r["seed"]) != ("dtd", "coop", 2)
        and (r["dataset"], r["method"]) != ("eurosat", "kgcoop+sar")
    ]


def differences_of(shown: table.Table) -> list[tuple[float, float, float]]:
    """(difference, number, number of zero-shot) of every cell below a heading "Δ X".

    A group of rows is compared with its own zero-shot, which is its first row.
    """
    names = [c.name for c in shown.columns]
    method = names.index("Method")
    found = []
    first: list = []
    for number, row in enumerate(shown.rows):
        if number in shown.breaks:
            first = row
        assert first[method] == "zero-shot"
        for i, name in enumerate(names):
            if name.startswith("Δ ") and row is not first:
                j = names.index(name.removeprefix("Δ "))
                found.append((row[i], row[j], first[j]))
    return found


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("protocol", ["base-to-new", "generalised", "cross-dataset", "few-shot"])
@pytest.mark.parametrize("number", range(3))
def test_differences_to_zero_shot_are_of_the_numbers_shown(number, protocol):
    results = invented(number, protocol)
    for shown in (tables.average_table(results), tables.dataset_table(results)):
        found = differences_of(shown)
        assert len(found) >= len(METHODS) - 1
        assert all(close(d, ours - theirs) for d, ours, theirs in found)
        assert not any(isinstance(d, Shared) for d, _, _ in found)


@pytest.mark.parametrize("make", [invented, uneven])
@pytest.mark.parametrize("number", range(3))
def test_what_sar_changes_stands_beside_the_two_numbers_it_is_between(number, make):
    shown = tables.paired_table(make(number))
    assert [r[1] for r in shown.rows] == 2 * ["Base", "New", "H of means", "Mean of H"]
    for _, _, host, sar, difference, (low, high), _, _ in shown.rows:
        assert close(difference, sar - host)
        assert close((low + high) / 2, difference)


def test_those_two_numbers_are_the_averages_where_both_ran_alike():
    results = invented(0)
    average = {r[0]: r for r in tables.average_table(results).rows}
    rows = tables.paired_table(results).rows[:4]
    assert [r[2] for r in rows] == average["CoOp"][1:5]
    assert [r[3] for r in rows] == average["CoOp+SAR"][1:5]


def test_printed_numbers_differ_by_the_printed_difference():
    """In the text itself, to within its rounding."""
    results = invented(1)
    text = table.text(tables.paired_table(results), digits=2).replace("−", "-")
    lines = re.findall(r"(\d+\.\d\d) +(\d+\.\d\d) +([+-]?\d+\.\d\d) +\[", text)
    assert len(lines) == 8
    for host, sar, difference in lines:
        assert abs(float(sar) - float(host) - float(difference)) < 0.0151


@pytest.mark.parametrize("format", ["text", "markdown", "latex"])
def test_every_format_says_what_rounding_does_and_marks_other_runs(format):
    even = tables.written([tables.average_table(invented(0))], format)
    odd = tables.written([tables.average_table(uneven(0))], format)
    mark = r"\dag{}" if format == "latex" else MARK
    assert " ".join(ROUNDING.split()) in " ".join(even.split())
    assert mark not in even
    assert odd.count(mark) == 1 + 3 + 3, "the legend, CoOp's and KgCoOp+SAR's three differences"


def test_a_marked_difference_is_over_the_runs_of_both():
    results = uneven(2)
    rows = {r[0]: r for r in tables.average_table(results).rows}
    there = {(r["dataset"], r["seed"]) for r in results if r["method"] == "coop"}
    zero = [r for r in results if r["method"] == "zero-shot"]
    zero = averages([r for r in zero if (r["dataset"], r["seed"]) in there])
    assert isinstance(rows["CoOp"][7], Shared)
    assert close(rows["CoOp"][7], rows["CoOp"][3] - zero["h_of_means"])
    assert not isinstance(rows["CoOp+SAR"][7], Shared)
    marked = {(r[0], r[1]): isinstance(r[5], Shared) for r in tables.dataset_table(results).rows}
    assert [k for k, v in marked.items() if v] == [("dtd", "CoOp")]


@pytest.mark.parametrize("make", [invented, uneven])
def test_csv_differences_are_of_the_rows_above(make):
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(make(0)))))
    shown = {(r["dataset"], r["method"]): r for r in rows if r["row"] in ("dataset", "average")}
    found = [r for r in rows if r["row"] == "difference"]
    assert len(found) >= 15
    for r in found:
        ours, theirs = (shown[r["dataset"], r[k]] for k in ("method", "reference"))
        columns = [c for c in ("base", "new", "h", "h_of_means", "mean_h") if ours[c]]
        assert len(columns) == (3 if r["dataset"] else 4)
        for c in columns:
            assert float(r[c]) == pytest.approx(float(ours[c]) - float(theirs[c]), abs=2e-4)
            if not r["dataset"]:
                middle = (float(r[f"{c}_low"]) + float(r[f"{c}_high"])) / 2
                assert middle == pytest.approx(float(r[c]), abs=2e-4)
    others = {(r["dataset"], r["method"], r["reference"])
              for r in rows if r["row"] == "shared difference"}  # fmt: skip
    assert bool(others) == (make is uneven)
    if others:
        assert {d for d, _, _ in others} == {"", "dtd"}
        assert all({"coop", "kgcoop+sar"} & {m, r} for _, m, r in others)


def test_json_differences_are_of_its_numbers():
    document = json.loads(tables.as_json(invented(0)))
    for host, gains in document["paired"].items():
        assert gains["over"] == "all runs"
        for m, value in document["methods"][host].items():
            ours = document["methods"][f"{host}+sar"][m]
            assert gains[m]["reference"] == value
            assert gains[m]["method"] == ours
            assert close(gains[m]["diff"], ours - value)
    zero = {r["dataset"]: r for r in document["datasets"] if r["method"] == "zero-shot"}
    for r in document["datasets"]:
        if r["method"] != "zero-shot":
            for m in ("base", "new", "h"):
                assert close(r["to_zero_shot"][m], r[m] - zero[r["dataset"]][m])
    odd = summarise(uneven(0))["paired"]
    assert {host: gains["over"] for host, gains in odd.items()} == {
        "coop": "shared runs", "kgcoop": "shared runs",
    }  # fmt: skip


def test_differences_on_tasks_average_to_those_that_are_means():
    gains = paired(uneven(3), "coop+sar", "coop")
    for m in ("base", "new", "mean_h"):
        assert close(mean([*gains[m]["per_dataset"].values()]), gains[m]["diff"])
    assert "per_dataset" not in gains["h_of_means"]


def test_published_rows_differ_from_ours_by_what_is_shown():
    (shown,) = published.tables(invented(0))[1:]
    ours: list = []
    compared = 0
    for number, row in enumerate(shown.rows):
        if number in shown.breaks:
            ours = row
            assert row[1].startswith("ours: ")
            continue
        for i in (2, 4, 6):
            assert close(row[i + 1], ours[i] - row[i])
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", ["sampling", "anchor", "domain-shift"])
@pytest.mark.parametrize("missing", [0, 1])
def test_study_tables_differ_by_what_they_show(name, missing):
    plan = grid.plan(find(name), datasets=TASKS[:3], seeds=[1, 2])
    rng = random.Random(0)
    results = {}
    for config in plan.configs:
        base, new = rng.uniform(20, 95), rng.uniform(5, 80)
        results[config.handle] = {
            "key": config.handle, "dataset": config.dataset, "method": config.label,
            "seed": config.seed, "base": base, "new": new, "h": harmonic_mean(base, new),
            "ece_base": 1.0, "ece_new": 2.0, "parameters": 7, "steps": 1, "train_seconds": 0.5,
            "peak_mb": 3.0,
        }  # fmt: skip
    other = next(p.label for p, _ in plan.rows if p.label != plan.study.reference)
    if missing:
        del results[next(c for p, c in plan.rows if p.label == other)[0].handle]
    records = {r["point"]: r for r in study_table.records(plan, results)}
    start = records[plan.study.reference]
    for label, r in records.items():
        if label == plan.study.reference:
            assert r["compared"] is None
            continue
        assert r["compared"] == ("shared runs" if missing and label == other else "all runs")
        for m in ("base", "new", "h", "mean_h"):
            if r["compared"] == "all runs":
                assert close(r[f"d_{m}"], r[m] - start[m])
            assert close((r[f"d_{m}_low"] + r[f"d_{m}_high"]) / 2, r[f"d_{m}"])
    shown = study_table.table(plan.study, [*records.values()])
    names = [c.name for c in shown.columns]
    lines = {row[0]: row for row in shown.rows}
    for i in [i for i, n in enumerate(names) if n.startswith("Δ ")]:
        j = names.index(names[i].removeprefix("Δ "))
        for label in set(lines) - {plan.study.reference}:
            cell = lines[label][i]
            assert isinstance(cell, Shared) == bool(missing and label == other)
            if not isinstance(cell, Shared):
                assert close(cell, lines[label][j] - lines[plan.study.reference][j])
    frontier = study_table.frontiers(plan, results)
    for r in frontier[1:]:
        assert close(r["d_new"], r["new"] - frontier[0]["new"])
        assert close(r["h"], harmonic_mean(r["base"], r["new"]))


def test_the_sentences_say_the_differences_shown():
    results = invented(4)
    rows = {(r[0], r[1]): r[4] for r in tables.paired_table(results).rows}
    said = words.explanation(results)[2]
    for measure, ending in (("New", "points on new"), ("Base", "on base"),
                            ("H of means", "in H of the means")):  # fmt: skip
        number = table.signed(rows["CoOp", measure])
        assert re.search(rf"{re.escape(number)} {ending}", said)


def test_the_sentences_say_when_the_differences_are_of_other_runs():
    assert "that both have" not in " ".join(words.explanation(invented(0)))
    assert "on the tasks and seeds that both have" in words.explanation(uneven(0))[1]
    assert "of what was lost" not in " ".join(words.explanation(uneven(0)))


def test_the_page_says_what_its_tables_mean(results):
    some = [r for r in results if not (r["method"] == "coop" and r["seed"] == 2)]
    html = page.render(some, lambda name: (_ for _ in ()).throw(ValueError("none")))
    assert f"{MARK}: over the tasks and seeds that both have" in html
    assert ROUNDING in html


# --- the interval of H ---------------------------------------------------------------------------


def test_gradient_is_that_of_h():
    rng = random.Random(0)
    for _ in range(20):
        a, b, step = rng.uniform(1, 99), rng.uniform(1, 99), 1e-5
        da, db = harmonic_gradient(a, b)
        slope = (harmonic_mean(a + step, b) - harmonic_mean(a - step, b)) / (2 * step)
        assert da == pytest.approx(slope, rel=1e-5)
        assert (da, db) == harmonic_gradient(b, a)[::-1]
        assert a * da + b * db == pytest.approx(harmonic_mean(a, b))
    assert harmonic_gradient(0, 0) == (0, 0)


def moderate(number: int, tasks: int) -> list[dict]:
    """One seed of two methods on many tasks that differ as real ones do."""
    rng = random.Random(number)
    results = []
    for i in range(tasks):
        base, new = rng.gauss(60, 8), rng.gauss(55, 8)
        for method, (up, down) in {"a": (0, 0), "b": (rng.gauss(4, 3), rng.gauss(-3, 3))}.items():
            results.append({"dataset": f"d{i:02}", "method": method, "seed": 1,
                            "base": base + up, "new": new + down})  # fmt: skip
    return results


def test_the_interval_of_h_is_the_jackknife_s():
    """Tukey's jackknife, leaving out a task at a time, asks for no derivative."""
    for number in range(5):
        results = moderate(number, 12)
        low, high = paired(results, "b", "a")["h_of_means"]["ci95"]
        left_out = []
        for d in dataset_means(results):
            rest = [r for r in results if r["dataset"] != d]
            left_out.append(paired(rest, "b", "a")["h_of_means"]["diff"])
        n = len(left_out)
        error = math.sqrt((n - 1) / n * sum((v - mean(left_out)) ** 2 for v in left_out))
        assert (high - low) / 2 == pytest.approx(student_t_975(n - 1) * error, rel=0.05)


def test_the_interval_of_h_holds_the_truth_as_often_as_it_says():
    """The truth is the difference over as many tasks as there can be; 95 of 100 samples of eight
    tasks hold it, and of 300 samples at most 5 % more or less, which is four standard errors."""
    everything = moderate(0, 4000)
    truth = paired(everything, "b", "a")["h_of_means"]["diff"]
    by_task: dict[str, list[dict]] = {}
    for r in everything:
        by_task.setdefault(r["dataset"], []).append(r)
    groups = [*by_task.values()]
    held = 0
    for k in range(300):
        eight = [r for group in groups[8 * k : 8 * k + 8] for r in group]
        low, high = paired(eight, "b", "a")["h_of_means"]["ci95"]
        held += low <= truth <= high
    assert held / 300 == pytest.approx(0.95, abs=0.05)


def test_intervals_of_plain_means_are_student_s_t_over_tasks():
    gains = paired(moderate(1, 8), "b", "a")
    for m in ("base", "new", "mean_h"):
        assert gains[m]["ci95"] == list(interval([*gains[m]["per_dataset"].values()]))
