"""Base-to-new: learn from base shots, test base images among base names, new among new names."""

from __future__ import annotations

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset
from simprompt.experiments.protocols import common
from simprompt.experiments.protocols.common import Protocol, Tested
from simprompt.metrics import harmonic_mean
from simprompt.prompt.prompt import Prompt


def protocol(config: RunConfig) -> Protocol:
    """What is learned from and how it is tested."""
    return Protocol(lambda d: d.base, test)


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
