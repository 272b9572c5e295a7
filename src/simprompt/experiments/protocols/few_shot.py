"""Few-shot: learn from k images of every class, test all classes (CoOp's first protocol).

There are no new classes, so `new` and `h` are NaN; the question is whether a regulariser costs
accuracy where nothing has to generalise. Shots: 1, 2, 4, 8 and 16 in the field.
"""

from __future__ import annotations

import math

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset
from simprompt.experiments.protocols import common
from simprompt.experiments.protocols.common import Protocol, Tested
from simprompt.prompt.prompt import Prompt


def protocol(config: RunConfig) -> Protocol:
    """What is learned from and how it is tested."""
    return Protocol(lambda d: d.all, test)


def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
    """Accuracy on all test images among all names."""
    tested = Tested({"base": data.all.classnames})
    common.test_side(tested, "base", prompt, data.all.test, config)
    tested.add_nothing("new")
    tested.measures["h"] = math.nan
    return tested
