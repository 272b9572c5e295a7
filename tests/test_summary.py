"""Averages, paired differences and their intervals, computed by hand from a few runs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from simprompt.experiments.summary import averages, dataset_means, finite, paired, summarise
from simprompt.metrics import harmonic_mean
from simprompt.utils.statistics import interval, t_test


def run(dataset: str, method: str, seed: int, base: float, new: float) -> dict[str, Any]:
    return {
        "dataset": dataset, "method": method, "seed": seed, "base": base, "new": new,
        "h": harmonic_mean(base, new), "seconds": 1.5, "peak_mb": 10, "parameters": 2048,
        "key": "not shown",
    }  # fmt: skip


PLAIN = [
    run("b", "coop", 1, 60, 30), run("b", "coop", 2, 80, 50),
    run("a", "coop", 1, 90, 60), run("a", "coop", 2, 70, 40),
]  # fmt: skip
WITH_SAR = [
    run("b", "coop+sar", 1, 64, 38), run("b", "coop+sar", 2, 82, 58),
    run("a", "coop+sar", 1, 91, 64), run("a", "coop+sar", 2, 73, 42),
]  # fmt: skip
ZERO = [run("a", "zero-shot", s, 66, 65) for s in (1, 2)] + [
    run("b", "zero-shot", s, 55, 60) for s in (1, 2)
]


def test_means_are_over_seeds_first_in_the_order_of_names():
    means = dataset_means(PLAIN)
    assert list(means) == ["a", "b"]
    assert means["a"] == {"base": 80, "new": 50, "h": harmonic_mean(80, 50)}
    assert means["b"] == {"base": 70, "new": 40, "h": harmonic_mean(70, 40)}


def test_datasets_weigh_the_same_however_many_runs_they_have():
    made = averages([*PLAIN, run("b", "coop", 3, 70, 40)])
    assert made["base"] == 75
    assert made["new"] == 45
    assert made["h_of_means"] == pytest.approx(56.25)
    assert made["mean_h"] == pytest.approx((2 * 80 * 50 / 130 + 2 * 70 * 40 / 110) / 2)
    assert made["mean_h"] <= made["h_of_means"]


def test_a_difference_is_of_averages_with_the_interval_over_datasets():
    made = paired([*PLAIN, *WITH_SAR], "coop+sar", "coop")
    assert made.keys() == {"over", "base", "new", "h_of_means", "mean_h"}
    assert made["over"] == "all runs"
    # base: a 82 and 80, b 73 and 70; new: a 53 and 50, b 48 and 40
    assert made["base"] == {
        "method": 77.5, "reference": 75, "diff": 2.5, "ci95": [*interval([2, 3])],
        "p": t_test([2, 3]), "per_dataset": {"a": 2, "b": 3},
    }  # fmt: skip
    assert made["new"]["per_dataset"] == {"a": 3, "b": 8}
    assert made["new"]["diff"] == 5.5
    h = {"a": harmonic_mean(82, 53) - harmonic_mean(80, 50),
         "b": harmonic_mean(73, 48) - harmonic_mean(70, 40)}  # fmt: skip
    assert made["mean_h"]["per_dataset"] == pytest.approx(h)
    assert made["mean_h"]["diff"] == pytest.approx(sum(h.values()) / 2)
    assert made["mean_h"]["ci95"] == pytest.approx([*interval([*h.values()])])


def test_the_interval_of_h_of_means_is_of_its_linear_parts():
    made = paired([*PLAIN, *WITH_SAR], "coop+sar", "coop")["h_of_means"]
    assert made["method"] == pytest.approx(harmonic_mean(77.5, 50.5))
    assert made["reference"] == pytest.approx(harmonic_mean(75, 45))
    assert made["diff"] == pytest.approx(harmonic_mean(77.5, 50.5) - harmonic_mean(75, 45))
    assert "per_dataset" not in made

    def part(mean_base: float, mean_new: float, base: float, new: float) -> float:
        return 2 * (mean_new**2 * base + mean_base**2 * new) / (mean_base + mean_new) ** 2

    parts = [
        part(77.5, 50.5, 82, 53) - part(75, 45, 80, 50),
        part(77.5, 50.5, 73, 48) - part(75, 45, 70, 40),
    ]
    assert sum(parts) / 2 == pytest.approx(made["diff"])
    assert made["ci95"] == pytest.approx([*interval(parts)])


def test_one_dataset_has_no_interval_and_two_have():
    one = paired([*PLAIN[:2], *WITH_SAR[:2]], "coop+sar", "coop")
    assert all(one[m]["ci95"] is None for m in ("base", "new", "h_of_means", "mean_h"))
    assert one["base"]["per_dataset"] == {"b": 3}


@pytest.mark.parametrize("side", ["method", "reference"])
def test_only_what_both_ran_is_compared(side):
    ours, theirs = WITH_SAR, PLAIN
    more = run("c", "coop+sar" if side == "method" else "coop", 1, 10, 10)
    seed = run("a", "coop+sar" if side == "method" else "coop", 3, 0, 0)
    made = paired([*ours, *theirs, more, seed], "coop+sar", "coop")
    wanted = paired([*ours, *theirs], "coop+sar", "coop")
    assert made == {**wanted, "over": "shared runs"}


def test_a_document_of_one_pair_and_the_zero_shot():
    results = [*WITH_SAR, *PLAIN, *ZERO]
    made = summarise(results)
    assert list(made) == ["methods", "paired", "to_zero_shot", "runs"]
    assert list(made["methods"]) == ["zero-shot", "coop", "coop+sar"]
    assert made["methods"]["coop"] == averages(PLAIN)
    assert made["methods"]["zero-shot"] == averages(ZERO)
    assert made["paired"] == paired(results, "coop+sar", "coop")
    assert made["to_zero_shot"] == {
        m: paired(results, m, "zero-shot") for m in ("coop", "coop+sar")
    }
    assert [*made["runs"][0].items()] == [
        ("dataset", "b"), ("method", "coop+sar"), ("seed", 1), ("base", 64), ("new", 38),
        ("h", harmonic_mean(64, 38)), ("seconds", 1.5), ("peak_mb", 10), ("parameters", 2048),
    ]  # fmt: skip
    assert len(made["runs"]) == len(results)


def test_a_document_of_two_pairs_names_their_hosts():
    others = [{**r, "method": r["method"].replace("coop", "maple")} for r in [*PLAIN, *WITH_SAR]]
    alone = [run("a", "vpt+sar", 1, 1, 1), run("a", "kgcoop", 1, 2, 2)]
    results = [*PLAIN, *WITH_SAR, *others, *alone]
    made = summarise(results)
    assert made["paired"] == {
        "coop": paired(results, "coop+sar", "coop"), "maple": paired(results, "maple+sar", "maple"),
    }  # fmt: skip
    assert made["to_zero_shot"] == {}
    assert summarise(alone)["paired"] == {}


def test_what_is_no_number_becomes_null():
    document = {"a": [1.5, math.nan, (math.inf, -math.inf, 2)], "b": {"c": "nan", "d": None}}
    assert finite(document) == {"a": [1.5, None, [None, None, 2]], "b": {"c": "nan", "d": None}}
    json.dumps(finite(document), allow_nan=False)
