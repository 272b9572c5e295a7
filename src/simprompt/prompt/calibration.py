"""Calibrated probabilities and a rejection threshold, from shots that are set aside.

A learned prompt may be overconfident: its temperature is CLIP's, and it has seen its shots. Part of
the shots is set aside, the prompt is learned on the rest with the same settings, and the answers to
the images that were set aside give

- the temperature T of Guo et al. (2017): p = softmax(log p / T), at which the held-out labels are
  likeliest; the likeliest class does not change. T differs from 1 only where that makes the labels
  of *other* classes' images likelier, by more than the standard error (`cross_validated`);
- a threshold for "none of these" (`fit_threshold`). An image without its own class among the
  candidates stands for an image of an unknown class.

What is reported of both is measured on images of classes that chose neither, with an interval over
classes, because images of one class are alike. No test image and no image of a new class is used;
the names of the new classes are among the candidates, as they will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from simprompt.data.split import Split
from simprompt.metrics import at_temperature, best_temperature, calibration_error
from simprompt.prompt.prompt import Prompt
from simprompt.prompt.storage import Calibration
from simprompt.utils.seeds import stream
from simprompt.utils.statistics import part_interval

FOLDS = 5
"""Groups of classes; the temperature is tested on one and fitted on the others."""
DRAWS = 400
"""Bootstrap samples of the classes, from which the threshold and its rates come."""
NUMBERS = 2**22
"""Scores of as many draws as are sorted at a time."""


def calibrate(
    prompt: Prompt,
    shots: Split,
    again: Callable[[Split], Prompt],
    *,
    val: Split | None = None,
    seed: int = 1,
) -> Calibration | None:
    """Fit temperature and threshold, and put them into the prompt and its card.

    All is fitted on uncalibrated probabilities, so that a second call gives the same values.

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
        held_out, judge, source = val, prompt, "val"
    else:
        remaining, held_out = shots.set_aside(seed)
        if not len(held_out):
            return None
        judge, source = again(remaining), "shots set aside"
    previous = judge.learner.temperature
    judge.learner.temperature = 1.0
    try:
        # among the names that it will answer with: more of them, and every answer is less sure
        probabilities = judge.probabilities(held_out, prompt.classes).cpu()
    finally:
        judge.learner.temperature = previous
    fitted_values = fit(probabilities, torch.tensor(held_out.labels), source)
    fitted_values = fitted_values.model_copy(update={"among": list(prompt.classes)})
    prompt.calibrated(fitted_values.model_dump(mode="json"))
    return fitted_values


def fit(probabilities: Tensor, labels: Tensor, source: str) -> Calibration:
    """Temperature and threshold from probabilities [N, C] at T = 1 and labels [N]."""
    temperature, crossed = cross_validated(probabilities, labels)
    fitted = at_temperature(probabilities, temperature)
    limit = fit_threshold(fitted, labels)
    right = int((fitted.argmax(-1) == labels).sum())
    return Calibration(
        temperature=temperature,
        images=len(labels),
        source=source,
        ece_before=calibration_error(probabilities, labels),
        ece_after=calibration_error(crossed, labels),
        confidence_before=_mean_confidence(probabilities),
        confidence=_mean_confidence(crossed),
        right=100 * right / len(labels) if len(labels) else 0.0,
        right_interval=list(_over_classes(fitted.argmax(-1) == labels, labels)),
        unknown=limit.threshold,
        known_kept=limit.kept,
        unknown_refused=limit.refused,
        known_kept_interval=list(limit.kept_interval),
        unknown_refused_interval=list(limit.refused_interval),
    )


def cross_validated(probabilities: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The temperature to use, and the probabilities [N, C] at temperatures fitted elsewhere.

    The classes are put into `FOLDS` groups; the images of each are judged at the temperature of
    the other groups. T = 1 is kept unless the mean gain in log likelihood is larger than its
    standard error over classes: a temperature fitted on a few images is as likely to harm.

    Returns:
        T, and the held-out probabilities at the temperature of the other groups; as given if T = 1.
    """
    probabilities = probabilities.double()
    classes = labels.unique()
    if len(classes) < 2:
        return 1.0, probabilities
    crossed = probabilities.clone()
    for fold in range(min(FOLDS, len(classes))):
        inside = torch.isin(labels, classes[fold::FOLDS])
        elsewhere = best_temperature(probabilities[~inside], labels[~inside])
        crossed[inside] = at_temperature(probabilities[inside], elsewhere)
    gains = _log_likelihood(crossed, labels) - _log_likelihood(probabilities, labels)
    gain = gains.mean()
    sums = torch.stack([(gains[labels == label] - gain).sum() for label in classes])
    correction = len(classes) / (len(classes) - 1)
    error = (correction * sums.square().sum()).sqrt() / len(labels)
    if not gain > error:
        return 1.0, probabilities
    return best_temperature(probabilities, labels), crossed


@dataclass(frozen=True)
class Threshold:
    """A threshold for "none of these", and what it is expected to do on other images.

    Attributes:
        threshold: a probability; 0 where nothing told known images from unknown ones.
        kept: percent of images at or above it whose class is among the candidates.
        refused: percent of images below it whose class is not.
        kept_interval, refused_interval: 95% intervals of these, over classes.
    """

    threshold: float
    kept: float = 100.0
    refused: float = 0.0
    kept_interval: tuple[float, float] = (0.0, 100.0)
    refused_interval: tuple[float, float] = (0.0, 100.0)


def fit_threshold(probabilities: Tensor, labels: Tensor) -> Threshold:
    """The threshold from calibrated probabilities [N, C] of held-out images and labels [N].

    The classes are drawn with replacement `DRAWS` times. In each draw the threshold is the one with
    the largest sum of kept and refused images of the drawn classes (Youden's J), and its rates are
    taken from the images of the other classes. The result is the median threshold, the rates over
    all draws, and the central 95% of them, widened to Wilson's interval of one observation a class.
    """
    classes, groups = labels.unique(return_inverse=True)
    if len(classes) < 2 or probabilities.shape[-1] < 3:  # an image needs two other candidates
        return Threshold(0.0)
    confidences = probabilities.double().max(-1).values
    without_label = probabilities.double().scatter(-1, labels[:, None], 0.0)
    unknown = (without_label / without_label.sum(-1, keepdim=True).clamp_min(1e-30)).max(-1).values
    generator = stream(0, "classes of the threshold")
    resampled = torch.randint(len(classes), (DRAWS, len(classes)), generator=generator)
    weights = torch.zeros(DRAWS, len(classes), dtype=torch.float64)
    weights.scatter_add_(1, resampled, torch.ones_like(resampled, dtype=torch.float64))
    scores, order = torch.cat([confidences, unknown]).sort()
    borders = torch.cat([scores[:1], scores, scores[-1:]])
    between = (borders[:-1] + borders[1:]) / 2  # a threshold below each score, and one above all
    tied = torch.cat([torch.tensor([False]), scores.diff() == 0, torch.tensor([False])])
    sign = torch.cat([-torch.ones_like(confidences), torch.ones_like(unknown)])[order]
    thresholds, hits, counts = [], [], []
    for chunk in weights.split(max(1, NUMBERS // len(scores))):
        share = chunk[:, groups] / chunk[:, groups].sum(-1, keepdim=True)  # [D, N]
        gains = (share.repeat(1, 2)[:, order] * sign).cumsum(-1)
        gains = torch.cat([gains.new_zeros(len(gains), 1), gains], -1).masked_fill(tied, -math.inf)
        optimum = (gains >= gains.amax(-1, keepdim=True) - 1e-12).to(torch.uint8).argmax(-1)
        threshold = torch.where(optimum > 0, between[optimum], 0.0)
        outside = chunk[:, groups] == 0
        thresholds.append(threshold)
        known_hits = (outside & (confidences >= threshold[:, None])).sum(-1)
        unknown_hits = (outside & (unknown < threshold[:, None])).sum(-1)
        hits.append(torch.stack([known_hits, unknown_hits]))
        counts.append(outside.sum(-1))
    chosen = float(torch.cat(thresholds).median())
    rates = [_rate(row, torch.cat(counts), len(classes)) for row in torch.cat(hits, -1)]
    if rates[0][0] + rates[1][0] <= 100 or not chosen:  # no better than refusing at random
        return Threshold(0.0)
    (kept_rate, kept_interval), (refused_rate, refused_interval) = rates
    return Threshold(chosen, kept_rate, refused_rate, kept_interval, refused_interval)


def _rate(hits: Tensor, counts: Tensor, classes: int) -> tuple[float, tuple[float, float]]:
    """Percent of the `counts` [D] images of all draws, and its interval."""
    rate = (100 * hits.sum() / counts.sum()).item()
    rates = 100 * hits.double()[counts > 0] / counts[counts > 0]
    low, high = rates.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    lower, upper = part_interval(rate / 100 * classes, classes)
    return rate, (min(low, lower), max(high, upper))


def _over_classes(right: Tensor, labels: Tensor) -> tuple[float, float]:
    """95% interval, in percent, of a rate over images [N], with one observation a class."""
    classes = len(labels.unique())
    return (
        part_interval(right.double().mean().item() * classes, classes) if classes else (0.0, 100.0)
    )


def _mean_confidence(probabilities: Tensor) -> float:
    """Mean probability of the answers, percent."""
    if not len(probabilities):
        return 0.0
    return 100 * probabilities.double().max(-1).values.mean().item()


def _log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Log probability [N] of each image's own class."""
    return probabilities.gather(1, labels[:, None])[:, 0].clamp_min(1e-30).log()
