"""Accuracy, harmonic mean, calibration: pure functions."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simprompt.utils.statistics import mean

if TYPE_CHECKING:  # tables of finished runs need the averages alone, and need them soon
    from torch import Tensor


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent of probabilities [N, C] against labels [N]; NaN if N = 0."""
    if not len(labels):
        return math.nan
    return 100.0 * (probabilities.argmax(-1) == labels).double().mean().item()


def macro_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Mean over classes of each class's accuracy, in percent; classes without images do not count,
    NaN if there are none. (The micro accuracy, over images, is `accuracy`.)"""
    return mean([percent for percent, count in class_accuracies(probabilities, labels) if count])


def class_accuracies(probabilities: Tensor, labels: Tensor) -> list[tuple[float, int]]:
    """(accuracy in percent, images) of each of the C classes; NaN where it has no image."""
    right = (probabilities.argmax(-1) == labels).double()
    rows = []
    for label in range(probabilities.shape[-1]):
        rights = right[labels == label]
        rows.append((100 * rights.mean().item() if len(rights) else math.nan, len(rights)))
    return rows


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 if both are 0; lies between min and max."""
    return 2 * a * b / (a + b) if a + b else 0.0


def harmonic_gradient(a: float, b: float) -> tuple[float, float]:
    """Partial derivatives of `harmonic_mean` at (a, b), (0, 0) where both are 0.

    H grows in proportion with (a, b), so a times the first plus b times the second is H itself
    (Euler's theorem on homogeneous functions).
    """
    total = (a + b) ** 2
    return (2 * b * b / total, 2 * a * a / total) if total else (0.0, 0.0)


def base_new_area(
    base_scores: Tensor, base_labels: Tensor, new_scores: Tensor, new_labels: Tensor, n_base: int
) -> float:
    """Area under the curve of New against Base accuracy among all names at once, in percent of the
    whole, as a number added to every new name's score goes from -inf to inf (AUSUC, Chao et al.,
    ECCV 2016). NaN if there is no image on one side.

    An image that is right among the names of its own half is right among all of them up to some
    offset, its margin. So the area is the part of all pairs of a base and a new image in which both
    are right and the base image keeps its class for longer than the new one misses its own.

    Args:
        base_scores, new_scores: scores [N, C] of the base and of the new images over all names,
            the n_base base names first; logits or log-probabilities.
        base_labels, new_labels: columns of the scores.
    """
    if not len(base_labels) or not len(new_labels):
        return math.nan
    margins = []
    for scores, labels, first, own in (
        (base_scores, base_labels, 0, slice(0, n_base)),
        (new_scores, new_labels, n_base, slice(n_base, None)),
    ):
        right = scores[:, own].argmax(-1) + first == labels
        margin = scores[:, :n_base].amax(-1) - scores[:, n_base:].amax(-1)
        margins.append(sorted(margin[right].double().tolist()))
    of_base, of_new = margins
    # a tie counts half: the trapezoid between the two points of the curve
    pairs = sum(bisect_left(of_new, m) + bisect_right(of_new, m) for m in of_base) / 2
    return 100.0 * pairs / (len(base_labels) * len(new_labels))


def reliability(
    probabilities: Tensor, labels: Tensor, bins: int = 15
) -> list[tuple[float, float, int]]:
    """(mean confidence, part that is right, images) of each equal-width bin of confidence that
    has images, from the least sure."""
    confidence, predicted = probabilities.double().max(-1)
    right = (predicted == labels).double()
    # bins are open below, as Guo et al. have them; a confidence of 0 joins the first
    bin_of = (confidence * bins).ceil().long().clamp(1, bins)
    rows = []
    for b in bin_of.unique():
        inside = bin_of == b
        rows.append(
            (confidence[inside].mean().item(), right[inside].mean().item(), int(inside.sum()))
        )
    return rows


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent (Guo et al. 2017): mean |confidence - accuracy| over
    equal-width confidence bins, weighted by their share; NaN if N = 0."""
    if not len(labels):
        return math.nan
    error = 0.0
    for confidence, right, count in reliability(probabilities, labels, bins):
        error += count / len(labels) * abs(confidence - right)
    return 100.0 * error


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T), [N, C] float64; T = 1 changes nothing, a larger T makes them milder."""
    smallest = 1e-30  # a probability that underflowed
    return (probabilities.double().clamp_min(smallest).log() / temperature).softmax(-1)


def best_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature in [1/20, 20] at which held-out labels are likeliest (Guo et al. 2017).

    A label counts as (N + 1) / (N + 2), the rest goes to the other classes in proportion to their
    probabilities: Platt's (1999) targets, with which a few images that are all right do not make
    every other one certain. The cross-entropy is convex in 1/T, so its only minimum is found
    by golden section.

    Args:
        probabilities: [N, C], of images that were not learned from.
        labels: [N]; N = 0 gives 1.
    """
    if not len(labels):
        return 1.0
    logits, label = probabilities.double().clamp_min(1e-30).log(), labels[:, None]
    doubt = 1 / (len(labels) + 2)
    runner_up = logits.scatter(-1, label, -math.inf).softmax(-1).nan_to_num()  # NaN of one class
    target = (doubt * runner_up).scatter(-1, label, 1 - doubt)

    def loss(inverse: float) -> float:
        return -(target * (inverse * logits).log_softmax(-1)).sum().item()

    low, high, ratio = 1 / 20, 20.0, (math.sqrt(5) - 1) / 2
    while high - low > 1e-6 * high:
        # both inner points anew: reusing one would save half the losses of a few images
        inner_low, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(inner_low) <= loss(right) else (inner_low, high)
    return 2 / (low + high)


def best_threshold(known: Sequence[float], unknown: Sequence[float]) -> tuple[float, float, float]:
    """Where to say "none of these": (threshold, percent of known kept, percent of unknown refused).

    The confidence below which an image is refused, so that the two percentages are as high as they
    can be together (Youden's J); of equal ones the lowest.

    Args:
        known, unknown: confidences of images whose class is, and is not, among the candidates.
    """
    if not known or not unknown:
        return 0.0, 100.0, 0.0
    known, unknown = sorted(known), sorted(unknown)
    optimum = (-math.inf, 0.0, 100.0, 0.0)
    # 0 keeps all; to refuse all is worth as much, and so needs no threshold above the last
    for threshold in (0.0, *sorted({*known, *unknown})):
        kept_percent = 100.0 * (len(known) - bisect_left(known, threshold)) / len(known)
        refused = 100.0 * bisect_left(unknown, threshold) / len(unknown)
        if kept_percent + refused > optimum[0]:
            optimum = (kept_percent + refused, threshold, kept_percent, refused)
    return optimum[1:]
