"""What trackers are told of a finished run."""

from __future__ import annotations

import math

import pytest

from simprompt.experiments.sweep.trackers import curves, numbers, tracker

RESULT = {
    "key": "0123456789ab", "dataset": "icons/food", "method": "coop+sar", "seed": 2,
    "base": 80.0, "new": math.nan, "targets": {"icons/home": 50.0}, "warnings": ["a"],
    "mechanism": {"base": {"row_kl": 0.25, "drift": math.nan}}, "novel": {"count": 200},
    "curves": {"loss": [2.0, 1.0], "sar": [], "lr": [1e-5, 2e-3], "steps": 4, "seconds": 1.0},
    "config": {"model": "icons", "sar": {"weight": 0.1}},
}  # fmt: skip


def test_only_finite_measures_are_told():
    assert numbers(RESULT) == {
        "base": 80.0, "targets/icons/home": 50.0, "mechanism/base/row_kl": 0.25,
    }  # fmt: skip


def test_curves_count_epochs_from_one():
    assert curves(RESULT) == [
        ("train/loss", 1, 2.0), ("train/loss", 2, 1.0),
        ("train/lr", 1, 1e-5), ("train/lr", 2, 2e-3),
    ]  # fmt: skip


def test_tensorboard_can_read_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker("tensorboard", tmp_path)(RESULT)
    folder = tmp_path / "tensorboard" / "icons-food/coop+sar/seed2-0123456789ab"
    events = EventAccumulator(str(folder)).Reload()
    assert [e.value for e in events.Scalars("train/loss")] == [2.0, 1.0]
    assert [e.value for e in events.Scalars("base")] == [80.0]
