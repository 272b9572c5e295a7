"""What a difference says: intervals, tests and the correction for many of them. Pure functions.

Means are over tasks, and a mean over tasks speaks of other tasks like these: `interval`, `t_test`
and `equivalence` take one number per task. `two_level_interval` draws seeds as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def mean(values: Sequence[float]) -> float:
    """The mean, summed exactly; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of independent values, by Student's t; infinite for one value."""
    m, n = mean(values), len(values)
    if n < 2:
        return (-math.inf, math.inf)
    half = student_t_975(n - 1) * _deviation(values) / math.sqrt(n)
    return (m - half, m + half)


def student_t_975(freedom: int) -> float:
    """97.5% quantile of Student's t, by bisection on its distribution function."""
    if freedom < 1:
        return math.nan
    low, high = 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < 0.975 else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, n: int) -> float:
    """P(T <= t): the finite series for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and
    26.7.4)."""
    if t < 0:
        return 1 - _t_cdf(-t, n)
    theta = math.atan2(t, math.sqrt(n))
    sine, cosine = math.sin(theta), math.cos(theta)
    if n % 2:
        term, total = cosine, cosine if n > 1 else 0.0
        for k in range(2, n - 2, 2):
            term *= k / (k + 1) * cosine**2
            total += term
        inside = 2 / math.pi * (theta + sine * total)
    else:
        term, total = 1.0, 1.0
        for k in range(1, n - 2, 2):
            term *= k / (k + 1) * cosine**2
            total += term
        inside = sine * total
    return 0.5 + inside / 2


def t_test(values: Sequence[float]) -> float:
    """Two-sided p of Student's t: how likely a mean as far from 0 is where the true one is 0; NaN
    for fewer than two values."""
    t = _t_statistic(values)
    return math.nan if math.isnan(t) else 2 * (1 - _t_cdf(abs(t), len(values) - 1))


def equivalence(values: Sequence[float], margin: float) -> float:
    """p of the claim that the mean lies within +-margin, by two one-sided t tests (Schuirmann
    1987).

    The larger of the p values against "it is -margin or less" and "it is margin or more"; below
    0.05 just where the 90% interval of the mean lies inside the margin. NaN for fewer than two
    values.
    """
    below = _t_statistic([v + margin for v in values])
    above = _t_statistic([v - margin for v in values])
    if math.isnan(below):
        return math.nan
    freedom = len(values) - 1
    return max(1 - _t_cdf(below, freedom), _t_cdf(above, freedom))


def _t_statistic(values: Sequence[float]) -> float:
    m, n = mean(values), len(values)
    if n < 2:
        return math.nan
    error = _deviation(values) / math.sqrt(n)
    return m / error if error else math.copysign(math.inf, m) if m else 0.0


def _deviation(values: Sequence[float]) -> float:
    m = mean(values)
    return math.sqrt(math.fsum((v - m) ** 2 for v in values) / (len(values) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several claims, each adjusted so that the chance of any false one stays below the
    level (Holm 1979): the smallest times their number, the next times one fewer, and so on, never
    falling. A NaN is no claim and stays one."""
    claims = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = list(p_values), 0.0
    for rank, (p, i) in enumerate(claims):
        largest = max(largest, min(1.0, (len(claims) - rank) * p))
        adjusted[i] = largest
    return adjusted


def two_level_interval(
    groups: Sequence[Sequence[T]],
    statistic: Callable[[Sequence[Sequence[T]]], float],
    samples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of a statistic of groups of values, such as seeds in tasks, by the
    bootstrap on two levels (Davison & Hinkley 1997, 3.8): groups are drawn with replacement, and
    the values in each of them too.

    Args:
        groups: the values of each task; paired differences, or pairs of both methods' numbers.
        statistic: of groups like these.
        samples: redraws; with 4000 the ends are good to about a twentieth of the interval's length.
    """
    generator = random.Random(seed)
    found = sorted(
        statistic(
            [
                generator.choices(group, k=len(group))
                for group in generator.choices(groups, k=len(groups))
            ]
        )
        for _ in range(samples)
    )
    return found[round(0.025 * (samples - 1))], found[round(0.975 * (samples - 1))]


def part_interval(count: float, of: int) -> tuple[float, float]:
    """95% interval, in percent, of a part of which `count` of `of` were seen (Wilson 1927)."""
    if not of:
        return math.nan, math.nan
    z, p = 1.959963984540054, count / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def sign_test(better: int, worse: int) -> float:
    """Two-sided p of McNemar's exact test: how likely it is that of `better` + `worse` images on
    which two classifiers differ so many or more go one way, if both are as good."""
    n, k = better + worse, min(better, worse)
    if not n:
        return 1.0
    tail: float = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)
