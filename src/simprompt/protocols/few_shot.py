"""Few-shot: learn from k images of every class, test all classes (CoOp's first protocol).

There are no new classes, so `new` and `h` are NaN; the question is whether a regulariser costs
accuracy where nothing has to generalise. Shots: 1, 2, 4, 8 and 16 in the field.
"""

from __future__ import annotations

import math
from pathlib import Path

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset
from simprompt.prompt import Prompt
from simprompt.protocols import common
from simprompt.protocols.common import Tested
from simprompt.runs import Result


def run(config: RunConfig, out: str | Path, data: Dataset | None = None) -> Result:
    """Make one run and write it below `out`; returns its result.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    return common.run(config, out, lambda d: d.all, test, data)


def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
    """Accuracy on all test images among all names."""
    tested = Tested({"base": data.all.classnames})
    common.test_side(tested, "base", prompt, data.all.test, config)
    tested.add_nothing("new")
    tested.measures["h"] = math.nan
    return tested
