"""The schedule against its formula written out, and what a limit of steps does to it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simprompt.config import Training
from simprompt.training.schedule import epochs_and_steps, learning_rate, set_rates
from simprompt.utils.optimizers import SGD


@given(st.integers(1, 60), st.floats(1e-4, 1), st.floats(1e-6, 1e-3))
def test_every_rate_is_the_formula_s(epochs, lr, warmup):
    plain = Training(lr=lr, warmup_lr=warmup, epochs=epochs)
    twice = plain.model_copy(update={"schedule": "squared cosine"})
    for epoch in range(epochs):
        part = 1 if epoch == 0 else 0.5 + 0.5 * math.cos((epoch - 1) / epochs * math.pi)
        assert learning_rate(epoch, plain, epochs) == pytest.approx(part * lr if epoch else warmup)
        assert learning_rate(epoch, twice, epochs) == pytest.approx(
            part**2 * lr if epoch else warmup
        )


def test_rates_fall_from_the_first_epoch_on_and_stay_above_zero():
    settings = Training(lr=0.002, epochs=50)
    rates = [learning_rate(epoch, settings, 50) for epoch in range(1, 50)]
    assert rates[0] == 0.002
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 49
    assert rates[-1] > 0


def test_a_group_s_lr_multiplier_counts_after_the_warm_up():
    one, two = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimiser = SGD([{"params": [one]}, {"params": [two], "lr_multiplier": 3.0}], lr=1)
    settings = Training(lr=0.1, warmup_lr=1e-5, epochs=10)
    assert set_rates(optimiser, 0, settings, 10) == 1e-5
    assert [group["lr"] for group in optimiser.param_groups] == [1e-5, 1e-5]
    rate = set_rates(optimiser, 4, settings, 10)
    assert rate == learning_rate(4, settings, 10)
    assert [group["lr"] for group in optimiser.param_groups] == [rate, pytest.approx(3 * rate)]


@pytest.mark.parametrize(
    ("images", "batch", "limit", "wanted"),
    [
        (100, 32, None, (50, 3)),
        (96, 32, None, (50, 3)),
        (95, 32, None, (50, 2)),
        (5, 32, None, (50, 1)),
        (100, 32, 30, (10, 3)),
        (100, 32, 31, (10, 3)),
        (100, 32, 2, (1, 2)),
        (100, 32, 5, (1, 3)),
        (100, 32, 3000, (50, 3)),
    ],
)
def test_epochs_and_steps(images, batch, limit, wanted):
    settings = Training(epochs=50, batch_size=batch, max_steps=limit)
    assert epochs_and_steps(images, settings) == wanted


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 40), st.integers(1, 200))
def test_max_steps_is_an_upper_bound(images, batch, epochs, limit):
    free = epochs_and_steps(images, Training(epochs=epochs, batch_size=batch))
    found = epochs_and_steps(images, Training(epochs=epochs, batch_size=batch, max_steps=limit))
    assert 1 <= found[0] * found[1] <= limit
    assert found[0] <= free[0]
    if limit >= free[1]:  # room for a whole epoch: whole epochs, as many as there is room for
        assert found == (min(epochs, limit // free[1]), free[1])
