"""Tests and intervals of differences, against SciPy and against their definitions."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simprompt.experiments.summary import averages, interval_with_seeds
from simprompt.utils.statistics import (
    equivalence,
    holm,
    interval,
    mean,
    t_test,
    two_level_interval,
)

several = st.lists(st.floats(-50, 50).map(lambda v: round(v, 3)), min_size=2, max_size=12).filter(
    lambda values: len(set(values)) > 1
)


@given(several)
def test_p_of_a_mean_is_scipy_s(values):
    assert t_test(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-9)


@given(several, st.floats(0.1, 20))
def test_equivalence_is_two_one_sided_tests(values, margin):
    below = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(values, margin, alternative="less").pvalue
    assert equivalence(values, margin) == pytest.approx(max(below, above), abs=1e-9)


def test_few_values_and_equal_ones():
    assert math.isnan(t_test([1.0]))
    assert math.isnan(equivalence([1.0], 2))
    assert t_test([0.0, 0.0]) == 1
    assert t_test([3.0, 3.0]) == 0
    assert equivalence([3.0, 3.0], 2) == 1
    assert equivalence([1.0, 1.0], 2) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_as_the_step_down_procedure_does(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[i] * (len(p_values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert holm([math.nan, 0.01])[1] == 0.01


def test_seeds_widen_the_interval_only_by_what_they_differ():
    generator = random.Random(1)
    levels = [generator.gauss(1, 2) for _ in range(40)]
    same = [[level] * 3 for level in levels]
    noisy = [[level + generator.gauss(0, 3) for _ in range(3)] for level in levels]

    def average(groups):
        return mean([mean(group) for group in groups])

    low, high = two_level_interval(same, average)
    t_low, t_high = interval(levels)
    assert (low, high) == pytest.approx((t_low, t_high), abs=0.15 * (t_high - t_low))
    noisy_low, noisy_high = two_level_interval(noisy, average)
    assert noisy_high - noisy_low > 1.15 * (high - low)
    assert two_level_interval(noisy, average) == (noisy_low, noisy_high)  # the seed's


@pytest.mark.parametrize("measure", ["base", "new", "h_of_means", "mean_h"])
def test_the_interval_with_seeds_is_around_the_difference_of_the_averages(measure):
    generator = random.Random(2)
    results: list[dict[str, Any]] = []
    for dataset in "abcdefgh":
        level = generator.uniform(30, 70)
        for seed in (1, 2, 3):
            for method, gain in (("coop", 0), ("coop+sar", 5)):
                base, new = (level + gain + generator.gauss(0, 1) for _ in range(2))
                results.append(
                    {"dataset": dataset, "seed": seed, "method": method, "base": base, "new": new}
                )
    low, high = interval_with_seeds(results, "coop+sar", "coop", measure)
    ours, theirs = (
        averages([r for r in results if r["method"] == m])[measure] for m in ("coop+sar", "coop")
    )
    assert low < ours - theirs < high
    assert 3 < low < high < 7
    extra = {"dataset": "z", "seed": 1, "method": "coop", "base": 0.0, "new": 0.0}
    assert interval_with_seeds([*results, extra], "coop+sar", "coop", measure) == (low, high)


@pytest.mark.parametrize("given", [(), (41, 3)])
def test_a_two_level_interval_redraws_groups_and_then_all_values_of_each(given):
    groups = [[1.0, 4.0, 9.0], [2.0, 2.5], [7.0, -1.0, 3.0, 8.0]]
    samples, seed = given or (4000, 0)
    random_ = random.Random(seed)
    found = []
    for _ in range(samples):
        drawn = random_.choices(groups, k=3)
        found.append(mean([mean(random_.choices(group, k=len(group))) for group in drawn]))
    found.sort()
    low, high = round(0.025 * (samples - 1)), round(0.975 * (samples - 1))
    redrawn = two_level_interval(groups, lambda some: mean([mean(group) for group in some]), *given)
    assert redrawn == (found[low], found[high])


def test_an_adjusted_p_is_a_probability():
    assert holm([0.6, 0.9, math.nan]) == [1.0, 1.0, pytest.approx(math.nan, nan_ok=True)]
