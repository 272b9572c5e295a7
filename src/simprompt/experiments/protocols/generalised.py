"""Generalised base-to-new: base and new images, each among *all* names at once.

Closed-set tables test base images among base names and new images among new names, so they never
ask whether a new image is taken for a base class, which is what a prompt that overfits its base
classes does first. Named after generalised zero-shot learning (Chao et al., ECCV 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor

from simprompt.config import RunConfig
from simprompt.data.dataset import Dataset
from simprompt.experiments.protocols import common
from simprompt.experiments.protocols.base_to_new import test as base_to_new
from simprompt.experiments.protocols.common import Protocol, Tested
from simprompt.metrics import accuracy, base_new_area, harmonic_mean
from simprompt.prompt.prompt import Prompt


def protocol(config: RunConfig) -> Protocol:
    """What is learned from and how it is tested."""
    return Protocol(lambda d: d.base, test)


def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
    """`base`, `new`, `h` among all names; beside them the closed-set accuracies of the same
    images, `new_as_base`, the percentage of new images that were called a base class, and `area`
    (`metrics.base_new_area`)."""
    if not prompt.learner.new_classes:
        return base_to_new(prompt, data, config)  # it has no answer for new classes either way
    tested = Tested({"base": data.base.classnames, "new": data.new.classnames})
    n_base = len(data.base.labels)
    names = [*data.base.classnames, *data.new.classnames]
    scores: list[Tensor] = []
    columns_of: list[Tensor] = []
    for side, view, first_column in (("base", data.base, 0), ("new", data.new, n_base)):
        split = common.limit(view.test, config.max_test_per_class)
        labels = torch.tensor(split.labels)
        probabilities = prompt.probabilities(split, names)
        tested.add(side, probabilities, labels + first_column)
        log_probabilities = probabilities.double().clamp_min(1e-30).log()  # 0 where it underflowed
        scores.append(log_probabilities)
        columns_of.append(labels + first_column)
        columns = probabilities[:, first_column : first_column + len(view.labels)]
        tested.measures[f"{side}_closed"] = accuracy(columns, labels)
        if side == "new":
            as_base = probabilities.argmax(-1) < n_base
            tested.measures["new_as_base"] = 100.0 * as_base.double().mean().item()
    tested.measures["area"] = base_new_area(
        scores[0], columns_of[0], scores[1], columns_of[1], n_base
    )
    tested.measures["h"] = harmonic_mean(tested.measures["base"], tested.measures["new"])
    return tested
