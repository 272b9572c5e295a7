"""The paper's failure signatures: said where they show, silent elsewhere."""

from __future__ import annotations

import math

from simprompt.protocols.signs import only_warmed_up, overfits, short_of_memory
from simprompt.train import Curves


def curves(loss: list[float], sar: list[float]) -> Curves:
    return Curves(loss=loss, sar=sar)


def test_rising_sar_and_falling_ce_is_overfitting():
    down = [3 - 0.2 * i for i in range(12)]
    up = [0.1 * (i + 1) for i in range(12)]
    assert "overfitting" in overfits(curves(down, up))
    assert overfits(curves(down, up[::-1])) is None, "SAR falls"
    assert overfits(curves([1.0] * 12, up)) is None, "CE stands still"
    early = [0.0, 0.4, 0.8, 1.2, *([1.2] * 8)]
    assert overfits(curves(down, early)) is None, "it starts at zero, so it must rise at first"


def test_too_few_epochs_or_no_sar_say_nothing():
    assert overfits(curves([3, 2, 1], [1, 2, 3])) is None
    assert overfits(curves([3, 2, 1, 0.5, 0.3, 0.2], [])) is None


def test_memory_near_the_limit_names_the_recipe():
    assert "low-memory" in short_of_memory(950, 1000)
    assert short_of_memory(500, 1000) is None
    assert short_of_memory(500, math.nan) is None
    assert short_of_memory(math.nan, 1000) is None


def test_a_training_that_was_its_warm_up_is_a_sign():
    said = only_warmed_up(Curves(lr=[1e-5], steps=10), 0.01)
    assert "one epoch of 10 steps" in said
    assert "training.max_steps of at least 20" in said
    assert only_warmed_up(Curves(lr=[1e-5, 0.01], steps=20), 0.01) is None
    assert only_warmed_up(Curves(lr=[0.01], steps=10), 0.01) is None, (
        "its warm-up has the full rate"
    )
    assert only_warmed_up(Curves(), 0.01) is None, "nothing is trained"
