"""Base-to-new: learn from base shots, test base images among base names, new among new names."""

from __future__ import annotations

from pathlib import Path

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset
from simprompt.evaluate import harmonic_mean
from simprompt.prompt import Prompt
from simprompt.protocols import common
from simprompt.protocols.common import Tested, limit
from simprompt.runs import Result

__all__ = ["limit", "run", "test"]


def run(config: RunConfig, out: str | Path, data: Dataset | None = None) -> Result:
    """Make one run and write it below `out`; returns its result.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    return common.run(config, out, lambda d: d.base, test, data)


def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
    """Closed-set accuracy on both halves; no new accuracy for a classifier of base classes."""
    tested = Tested({"base": data.base.classnames, "new": data.new.classnames})
    common.test_side(tested, "base", prompt, data.base.test, config)
    if prompt.learner.new_classes:
        common.test_side(tested, "new", prompt, data.new.test, config)
    else:
        tested.add_nothing("new")
    tested.measures["h"] = harmonic_mean(tested.measures["base"], tested.measures["new"])
    return tested
