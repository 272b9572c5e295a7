"""Accuracy, harmonic mean, calibration and intervals against definitions and known numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simprompt.evaluate import (
    accuracy,
    calibration_error,
    harmonic_mean,
    interval,
    student_t_975,
)

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
