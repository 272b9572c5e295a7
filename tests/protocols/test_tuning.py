"""Settings are chosen on base classes, by the rule that was asked for."""

from __future__ import annotations

import pytest

from simprompt.data import icons
from simprompt.errors import SimpromptError
from simprompt.protocols.common import cached_dataset
from simprompt.protocols.tuning import REHEARSAL, best, parse_grid, strongest


def row(name, new, *scores):
    per_dataset = {f"d{i}": s for i, s in enumerate(scores)}
    return {
        "point": [name],
        "base": 0.0,
        "new": new,
        "score": sum(scores) / len(scores),
        "per_dataset": per_dataset,
    }


def test_grid_is_every_combination():
    assert parse_grid(["a=1,2", "b=3,4"]) == [
        ["a=1", "b=3"], ["a=1", "b=4"], ["a=2", "b=3"], ["a=2", "b=4"],
    ]  # fmt: skip
    with pytest.raises(SimpromptError, match="key=value"):
        parse_grid(["a"])


def test_one_standard_error_takes_the_strongest_of_equals():
    top = row("top", 60, 66, 70, 62, 68)
    level = row("level", 64, 67, 68, 63, 67)  # 0.25 behind, error 0.75
    worse = row("worse", 70, 64, 68, 60, 66)  # 2 behind on every dataset
    rows = [top, level, worse]
    assert best(rows) is top
    assert strongest(rows) is level
    assert strongest([top, worse]) is top
    assert best(rows, "d2") is level


def test_one_dataset_has_no_error_and_takes_the_best():
    assert strongest([row("a", 1, 66), row("b", 9, 65)])["point"] == ["a"]


def test_a_rehearsal_never_sees_new_classes_or_test_drawings():
    name = icons.tasks()[0]
    real, rehearsal = icons.load(name), cached_dataset(name + REHEARSAL)
    assert set(rehearsal.classnames) == set(real.base.classnames)
    tested = set(real.base.test.groups) | set(real.new.test.groups)
    assert not tested & (set(rehearsal.train.groups) | set(rehearsal.test.groups))
    assert not set(rehearsal.train.items) & set(rehearsal.test.items)
