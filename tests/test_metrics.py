"""Accuracy, harmonic mean, calibration and intervals against definitions and known numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist, fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simprompt.metrics import (
    accuracy,
    at_temperature,
    base_new_area,
    best_temperature,
    best_threshold,
    calibration_error,
    class_accuracies,
    harmonic_gradient,
    harmonic_mean,
    macro_accuracy,
    reliability,
)
from simprompt.utils.statistics import interval, mean, part_interval, sign_test, student_t_975

percent = st.floats(0, 100)


@given(percent, percent)
def test_harmonic_mean_lies_between_and_is_symmetric(a, b):
    h = harmonic_mean(a, b)
    assert min(a, b) - 1e-9 <= h <= max(a, b) + 1e-9
    assert h == harmonic_mean(b, a)


@pytest.mark.parametrize(
    ("base", "new", "h"),
    [(69.34, 74.22, 71.70), (82.69, 63.22, 71.66), (80.73, 73.60, 77.00), (84.26, 76.10, 79.97)],
)
def test_published_averages_are_h_of_means(base, new, h):
    assert round(harmonic_mean(base, new), 2) == pytest.approx(h, abs=0.011)


def test_accuracy_counts_top_1():
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    assert accuracy(probabilities, torch.tensor([0, 1, 1, 1])) == 75.0
    assert math.isnan(accuracy(torch.zeros(0, 2), torch.zeros(0)))


def test_calibration_error_of_simple_cases():
    sure = torch.tensor([[1.0, 0.0]] * 4)
    assert calibration_error(sure, torch.tensor([0, 0, 0, 0])) == 0
    assert calibration_error(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(25)
    # two bins: |0.9 - 1| and |0.6 - 0.5|, half of the images each
    mixed = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    assert calibration_error(mixed, torch.tensor([0, 0, 0, 1])) == pytest.approx(10)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (7, 2.365),
     (8, 2.306), (10, 2.228), (15, 2.131), (30, 2.042), (120, 1.980)],
)  # fmt: skip
def test_student_t_equals_the_printed_tables(freedom, t):
    assert student_t_975(freedom) == pytest.approx(t, abs=6e-4)


def test_interval_of_known_values():
    # mean 2, deviation 1, three values: 2 +- 4.303 / sqrt(3)
    low, high = interval([1, 2, 3])
    assert low == pytest.approx(2 - 2.4842, abs=1e-3)
    assert high == pytest.approx(2 + 2.4842, abs=1e-3)
    assert interval([5.0]) == (-math.inf, math.inf)


# --- against definitions, written out with plain numbers ----------------------------------------


def some(seed: int, n: int, c: int, sharp: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities [n, c] and labels [n] that are right more often than by chance."""
    rng = torch.Generator().manual_seed(seed)
    p = (sharp * torch.randn(n, c, generator=rng, dtype=torch.float64)).softmax(-1)
    return p, torch.multinomial(p, 1, generator=rng).flatten()


def test_accuracies_count_by_class():
    p, labels = some(0, 40, 5)
    labels[labels == 3] = 2  # a class without images
    first = [row.index(max(row)) for row in p.tolist()]
    own = []
    for c in range(5):
        hits = [first[i] == c for i in range(40) if labels[i] == c]
        own.append((100 * sum(hits) / len(hits) if hits else None, len(hits)))
    made = class_accuracies(p, labels)
    assert [count for _, count in made] == [count for _, count in own]
    for (got, _), (wanted, count) in zip(made, own, strict=True):
        assert math.isnan(got) if not count else got == pytest.approx(wanted)
    seen = [value for value, count in own if count]
    assert macro_accuracy(p, labels) == pytest.approx(sum(seen) / len(seen))
    assert accuracy(p, labels) == pytest.approx(
        100 * sum(a == b for a, b in zip(first, labels.tolist(), strict=True)) / 40
    )
    assert math.isnan(macro_accuracy(p[:0], labels[:0]))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_s_interval_is_where_the_normal_test_just_does_not_refuse(case):
    count, of = case
    low, high = (end / 100 for end in part_interval(count, of))
    z, p = NormalDist().inv_cdf(0.975), count / of
    for end in (low, high):
        assert abs(p - end) == pytest.approx(z * math.sqrt(end * (1 - end) / of), abs=1e-7)
    assert 0 <= low <= p + 1e-12
    assert p <= high + 1e-12
    assert high <= 1
    assert (low == pytest.approx(0, abs=1e-12)) == (count == 0)
    assert (high == pytest.approx(1, abs=1e-12)) == (count == of)


def test_wilson_s_interval_of_known_counts():
    assert part_interval(5, 10) == pytest.approx((23.659309, 76.340691), abs=1e-6)
    assert part_interval(0, 10) == pytest.approx((0, 27.753279), abs=1e-6)
    assert part_interval(10, 10) == pytest.approx((72.246721, 100), abs=1e-6)
    assert all(math.isnan(end) for end in part_interval(0, 0))


@given(st.integers(0, 9), st.integers(0, 9))
def test_the_sign_test_counts_all_outcomes_of_fair_coins(better, worse):
    n = better + worse
    as_far = sum(
        max(k, n - k) >= max(better, worse) for sides in range(2**n) for k in [sides.bit_count()]
    )
    assert sign_test(better, worse) == pytest.approx(as_far / 2**n)


def test_harmonic_mean_and_its_gradient_of_known_numbers():
    assert harmonic_mean(60, 30) == 40
    assert harmonic_mean(0, 0) == 0
    assert harmonic_mean(0, 50) == 0
    assert harmonic_gradient(60, 30) == pytest.approx((2 / 9, 8 / 9))
    assert harmonic_gradient(0, 5) == (2, 0)
    assert harmonic_gradient(0, 0) == (0, 0)


@pytest.mark.parametrize("bins", [None, 1, 4, 15])
def test_reliability_is_the_means_of_each_bin(bins):
    p, labels = some(1, 300, 12, 1.5)
    p[0], p[1] = torch.full((12,), 0.04), torch.full((12,), 0.1)  # the first two of 15 bins
    p[0, 3] = 0.05
    count = bins or 15
    inside: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(p.tolist(), labels.tolist(), strict=True):
        sure = max(row)
        number = next(b for b in range(1, count + 1) if sure <= b / count)
        inside.setdefault(number, []).append((sure, row.index(sure) == label))
    wanted = [
        (sum(c for c, _ in pairs) / len(pairs), sum(r for _, r in pairs) / len(pairs), len(pairs))
        for _, pairs in sorted(inside.items())
    ]
    made = reliability(p, labels) if bins is None else reliability(p, labels, bins)
    assert [n for *_, n in made] == [n for *_, n in wanted]
    for got, want in zip(made, wanted, strict=True):
        assert got == pytest.approx(want)
    error = 100 * sum(n * abs(c - r) for c, r, n in wanted) / 300
    made_error = (
        calibration_error(p, labels) if bins is None else calibration_error(p, labels, bins)
    )
    assert made_error == pytest.approx(error)


def test_confidence_at_the_ends_has_a_bin():
    nothing, all_of_it = torch.zeros(1, 3), torch.tensor([[0.0, 1.0 + 1e-6, 0.0]])
    assert reliability(nothing, torch.tensor([0]), 4) == [(0, 1, 1)]
    assert len(reliability(torch.cat([all_of_it, torch.eye(3)]), torch.ones(4), 4)) == 1
    assert math.isnan(calibration_error(nothing[:0], torch.zeros(0)))


def test_a_temperature_divides_the_logits():
    logits = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (0.5, 1.0, 3.0):
        torch.testing.assert_close(at_temperature(logits.softmax(-1), t), (logits / t).softmax(-1))
    underflowed = at_temperature(torch.tensor([[1.0, 0.0]]), 10.0)
    assert underflowed.dtype == torch.float64
    # ln 1e-30 = -69.1: what stands for a probability that is no longer there
    assert underflowed[0, 1].item() == pytest.approx(1e-3 / (1 + 1e-3))


def test_the_best_temperature_is_where_the_likelihood_does_not_rise():
    """Its slope in 1/T is the mean logit of the label less the mean logit that is expected, the
    label standing for (N + 1) / (N + 2) and the model's other opinions for the rest."""
    p, labels = some(2, 400, 6, 2.0)
    for times in (0.4, 1.0, 2.5):
        given_ones = (times * p.log()).softmax(-1)
        best = best_temperature(given_ones, labels)
        logits = given_ones.log()
        expected = (at_temperature(given_ones, best) * logits).sum(-1)
        own = given_ones.gather(1, labels[:, None])[:, 0]
        of_label = logits.gather(1, labels[:, None])[:, 0]
        of_others = ((given_ones * logits).sum(-1) - own * of_label) / (1 - own)
        slope = ((401 * of_label + of_others) / 402 - expected).mean()
        assert abs(slope.item()) < 1e-4
        assert 0.5 * times < best < 2 * times


@given(st.integers(1, 50), st.integers(2, 9), st.floats(0.55, 0.999))
def test_a_few_images_that_are_all_right_are_believed_as_far_as_a_few_go(n, classes, sure):
    """Laplace's rule of succession: the next one is right with probability (N + 1) / (N + 2)."""
    rest = (1 - sure) / (classes - 1)
    p = torch.full((n, classes), rest, dtype=torch.float64)
    p[:, 0] = sure
    best = best_temperature(p, torch.zeros(n, dtype=torch.long))
    if 1 / 19 < best < 19:
        assert at_temperature(p, best)[0, 0].item() == pytest.approx((n + 1) / (n + 2), abs=1e-4)


def test_the_best_temperature_stays_between_its_bounds():
    sure = torch.tensor([[0.9, 0.1]] * 4)
    assert best_temperature(sure, torch.ones(4, dtype=torch.long)) == pytest.approx(20, rel=1e-4)
    hardly = torch.tensor([[0.501, 0.499]] * 4)
    right = torch.zeros(4, dtype=torch.long)
    assert best_temperature(hardly, right) == pytest.approx(1 / 20, rel=1e-4)
    assert best_temperature(sure[:0], right[:0]) == 1
    assert best_temperature(torch.ones(3, 1), torch.zeros(3, dtype=torch.long)) <= 20


confidences = st.lists(st.integers(0, 8).map(lambda k: k / 8), max_size=8)


@given(confidences, confidences)
def test_the_best_threshold_is_the_lowest_of_the_best(known, unknown):
    threshold, kept, refused = best_threshold(known, unknown)
    if not known or not unknown:
        assert (threshold, kept, refused) == (0, 100, 0)
        return

    def both(at: float) -> tuple[float, float]:
        return (
            100 * len([v for v in known if v >= at]) / len(known),
            100 * len([v for v in unknown if v < at]) / len(unknown),
        )

    assert (kept, refused) == both(threshold)
    for at in {0.0, *known, *unknown}:
        assert sum(both(at)) <= kept + refused
        assert sum(both(at)) < kept + refused or at >= threshold


def test_a_mean_loses_nothing_to_rounding():
    assert mean([1e16, 1.0, -1e16]) == 1 / 3
    assert math.isnan(mean([]))


def by_simpson(t: float, n: int, steps: int = 4000) -> float:
    """P(T <= t) by integrating the density, whose constant is made of gamma functions."""
    constant = math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / math.sqrt(n * math.pi)
    width = t / steps
    total = 0.0
    for i in range(steps + 1):
        weight = 1 if i in (0, steps) else 4 if i % 2 else 2
        total += weight * (1 + (i * width) ** 2 / n) ** (-(n + 1) / 2)
    return 0.5 + constant * total * width / 3


@pytest.mark.parametrize("freedom", [*range(1, 9), 20, 33])
def test_student_t_is_the_quantile_of_its_density(freedom):
    assert by_simpson(student_t_975(freedom), freedom) == pytest.approx(0.975, abs=1e-9)


def test_student_t_of_one_and_two_in_closed_form():
    assert student_t_975(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert student_t_975(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    assert math.isnan(student_t_975(0))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_an_interval_is_t_standard_errors_around_the_mean(values):
    low, high = interval(values)
    half = student_t_975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    assert (low + high) / 2 == pytest.approx(fmean(values), abs=1e-9)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-6, abs=1e-9)
    assert low <= high


def test_the_area_is_under_the_curve_of_new_against_base():
    """The trapezoids below the accuracies at every offset between the names' margins."""
    rng = torch.Generator().manual_seed(3)
    n_base, scores, labels = 4, [], []
    for first, count in ((0, 4), (4, 3)):
        labels.append(torch.randint(first, first + count, (60,), generator=rng))
        rows = torch.randn(60, 7, generator=rng, dtype=torch.float64)
        rows[torch.arange(60), labels[-1]] += 1.5
        scores.append(rows.mul(4).round() / 4)  # with ties
    margins = [rows[:, :n_base].amax(-1) - rows[:, n_base:].amax(-1) for rows in scores]
    ends = torch.cat(margins).unique()
    offsets = [-100.0, *((a + b) / 2 for a, b in pairwise(ends)), 100.0]
    curve = []
    for offset in offsets:
        moved = [rows + offset * (torch.arange(7) >= n_base) for rows in scores]
        curve.append([accuracy(rows, own) for rows, own in zip(moved, labels, strict=True)])
    area = sum((b0 - b1) * (n0 + n1) / 2 / 100 for (b0, n0), (b1, n1) in pairwise(curve))
    made = base_new_area(scores[0], labels[0], scores[1], labels[1], n_base)
    assert made == pytest.approx(area)
    assert math.isnan(base_new_area(scores[0][:0], labels[0][:0], scores[1], labels[1], n_base))
    shifted = [rows + 3.0 * (torch.arange(7) >= n_base) for rows in scores]
    assert base_new_area(shifted[0], labels[0], shifted[1], labels[1], n_base) == pytest.approx(
        made
    )
