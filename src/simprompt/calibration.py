"""Probabilities that mean something, from shots that were set aside.

A learned prompt is surer of itself than it is right: its temperature was CLIP's, and it has seen
its shots. Part of the shots is set aside, the prompt is learned on the rest with the same settings,
and what that one says of the images it has not seen gives

- the temperature T of Guo et al. (2017): p = softmax(log p / T), T at which the held-out labels are
  likeliest; which class is first does not change;
- a threshold for "none of these": with an image's own class taken from the candidates, the image
  is one of something unknown; the threshold tells those from the others as well as it can.

No test image and no image of a new class is looked at; the names of the new classes are among those
to choose from, as they will be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from simprompt.data.dataset import Split
from simprompt.evaluate import (
    at_temperature,
    best_temperature,
    best_threshold,
    calibration_error,
)
from simprompt.prompt import Prompt
from simprompt.saved import Calibration


def calibrate(
    prompt: Prompt,
    shots: Split,
    again: Callable[[Split], Prompt],
    *,
    val: Split | None = None,
    seed: int = 1,
) -> Calibration | None:
    """Fit temperature and threshold, and put them into the prompt and its card.

    Args:
        shots: what the prompt was learned from.
        again: learns on other shots as the prompt was learned.
        val: labelled images that were not learned from, if there are any; then nothing is learned
            again.
        seed: of what is set aside.

    Returns:
        None where no class has two images, so that nothing can be set aside.
    """
    if val is not None and len(val):
        held, judge, source = val, prompt, "val"
    else:
        rest, held = shots.set_aside(seed)
        if not len(held):
            return None
        judge, source = again(rest), "shots set aside"
    # among the names that it will answer with: more of them, and every answer is less sure
    probabilities = judge.probabilities(held, prompt.classes).cpu()
    made = fit(probabilities, torch.tensor(held.labels), source)
    prompt.calibrated(made.model_dump(mode="json"))
    return made


def fit(probabilities: Tensor, labels: Tensor, source: str) -> Calibration:
    """Temperature and threshold from probabilities [N, C] at T = 1 and labels [N]."""
    temperature = best_temperature(probabilities, labels)
    mild = at_temperature(probabilities, temperature)
    without = mild.scatter(-1, labels[:, None], 0.0)
    rest = without.sum(-1, keepdim=True)
    confident = (without / rest.clamp_min(1e-30)).max(-1).values
    threshold, kept, refused = best_threshold(
        mild.max(-1).values.tolist(), confident.tolist() if mild.shape[-1] > 2 else []
    )
    return Calibration(
        temperature=temperature, images=len(labels), source=source,
        ece_before=calibration_error(probabilities, labels),
        ece_after=calibration_error(mild, labels),
        unknown=threshold, known_kept=kept, unknown_refused=refused,
    )  # fmt: skip
