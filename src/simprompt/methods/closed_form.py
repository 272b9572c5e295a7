"""What is learned of image features at once, without steps: an image map, class means, a probe, and
the calibration of two kinds of logits. Float64, on the CPU.

`methods.image_map`, `methods.means_with_text` and `methods.images_with_text` have the formulas and
their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.utils.optimizers import LBFGS
from simprompt.utils.seeds import stream

HALVES = 16
"""Random halves of the base classes that play the new ones, at most."""
LOGITS = 2**25
"""Of all halves together."""
STEPS = 100
"""Of L-BFGS."""


def mean_of_views(images: Tensor) -> Tensor:
    """Unit features [N, E], float64, of features [N, M, E] of M views of each image."""
    return F.normalize(F.normalize(images.double(), dim=-1).mean(1), dim=-1)


def solve(
    images: Tensor,
    labels: Tensor,
    text: Tensor,
    ridge: float,
    hold: float = 0.0,
    held: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(m [E], W [E, E]) of the map; see the formula above.

    Args:
        images: unit features [N, E], float64.
        labels: [N], rows of `text`.
        text: unit text features [C, E] of the base classes.
        ridge: l.
        hold: mu, with `held`, the unit text features [K, E] of novel names.
    """
    mean = images.mean(0)
    centred = images - mean  # X
    towards = (text - text.mean(0))[labels]  # T - t_mean
    scale = centred.norm(dim=1).mean() / towards.norm(dim=1).mean()
    penalty = ridge * centred.pow(2).sum(1).mean()
    spread = centred.T @ centred / len(images)  # X'X / N
    right = centred.T @ (scale * towards - centred) / len(images)  # R
    if not hold or held is None:
        factor = torch.linalg.cholesky(spread + penalty * torch.eye(len(spread)).to(spread))
        return mean, torch.cholesky_solve(right, factor)
    values, vectors = torch.linalg.eigh(spread)
    right = vectors.T @ right
    _, singular, directions = torch.linalg.svd(held - held.mean(0), full_matrices=False)
    strengths = (singular / singular[0]).square()  # e of the directions [K, E]; elsewhere it is 0
    along = right @ directions.T
    weights = values[:, None] * (1 + hold * strengths) + penalty
    across = (right - along @ directions) / (values[:, None] + penalty)
    return mean, vectors @ ((along / weights) @ directions + across)


def probe(images: Tensor, labels: Tensor, classes: int, scale: float, penalty: float) -> Tensor:
    """Weights and, in the last column, biases [C, E + 1] of a softmax classifier of unit features.

    They make least the mean cross-entropy of scale (x w_c) + b_c plus `penalty` times the squared
    norm of all w, which is convex; by L-BFGS from zero.
    """
    start = images.new_zeros(classes, images.shape[1] + 1)
    found = start.clone().requires_grad_()
    optimiser = LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        weight, bias = found[:, :-1], found[:, -1]
        value = F.cross_entropy(scale * images @ weight.T + bias, labels)
        value = value + penalty * weight.pow(2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return found.detach()


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The unit means [C, E] of unit features [N, E], and each image's cosine with each of them,
    [N, C], its own part taken out of its class's."""
    members = F.one_hot(labels, classes).to(features.dtype)
    sums = members.T @ features
    means = F.normalize(sums, dim=-1)
    cosines = features @ means.T
    leave_one_out = F.normalize(sums[labels] - features, dim=-1)
    cosines[torch.arange(len(labels)), labels] = (features * leave_one_out).sum(-1)
    return means, cosines


def drawn_halves(cosines: Tensor, seed: int) -> Tensor:
    """[T, C]: which classes play the new ones in each of at most `HALVES` trials, for cosines of
    [N, C]."""
    classes = cosines.shape[1]
    generator = stream(seed, "halves of the base classes")
    trials = max(1, min(HALVES, LOGITS // cosines.numel()))
    halves = [torch.randperm(classes, generator=generator) for _ in range(trials)]
    return torch.stack(halves) < classes // 2


def fitted(
    by_known: Tensor,
    by_text: Tensor,
    labels: Tensor,
    new: Tensor,
    scale: float,
    weights: Tensor | None = None,
) -> Tensor:
    """(a, b, c) of the least cross-entropy, float64 [3].

    Args:
        by_known: cosines [N, C] of the images with each class's mean, or what else stands for it;
            [T, N, C] if they differ by trial.
        by_text: cosines with each class's text, [N, C], or [T, N, C] if they differ by trial.
        labels: [N].
        new: [T, C] which classes play the new ones, in T trials.
        scale: where a and b begin.
        weights: [T, N] of the images, of sum 1; None: all alike.
    """
    start = torch.tensor([scale, scale]).log().to(by_known)
    logs, offset = start.clone().requires_grad_(), by_known.new_zeros(()).requires_grad_()
    optimiser = LBFGS([logs, offset], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        a, b = logs.exp()
        logits = torch.where(new[:, None], b * by_text + offset, a * by_known)  # [T, N, C]
        everyone = labels.repeat(len(new))
        if weights is None:
            value = F.cross_entropy(logits.flatten(0, 1), everyone)
        else:
            each = F.cross_entropy(logits.flatten(0, 1), everyone, reduction="none")
            value = each @ weights.flatten()
        value = value + 1e-3 * (logs - start).pow(2).sum()  # perfect images would have no least
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return torch.cat([logs.detach().exp(), offset.detach()[None]])


@dataclass(frozen=True)
class Form:
    """How images and text are put together, see `methods.images_with_text`.

    Attributes:
        known: what tells classes with images apart: their "probe", their "means", or "text" alone.
        share: q, of text in their logits; "text" takes it as 1.
        ridge: l of the image map in front of text; None: there is no map.
        map_new: whether it stands in front of the text of names without images as well.
    """

    known: Literal["probe", "means", "text"] = "probe"
    share: float = 0.3
    ridge: float | None = 0.1
    map_new: bool = True


class Fit:
    """What is fitted to some images, each part once however many forms ask for it.

    Args:
        images: unit features [N, E], float64.
        labels: [N], rows of `text`.
        text: unit text features [C, E] of these classes.
        scale: the model's logit scale.
        penalty: of the probe.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, text: Tensor, scale: float, penalty: float
    ) -> None:
        self.images, self.labels, self.text = images, labels, text
        self.scale, self.penalty = scale, penalty
        self._maps: dict[float, tuple[Tensor, Tensor]] = {}
        self._classifiers: dict[str, Tensor] = {}

    def map(self, ridge: float | None) -> tuple[Tensor, Tensor]:
        """(m, W) of the image map; zeros where there is none, or where a single class has images,
        so that no direction tells classes apart."""
        width = self.images.shape[1]
        if ridge is None or len(self.text) < 2:
            return self.images.new_zeros(width), self.images.new_zeros(width, width)
        if ridge not in self._maps:
            self._maps[ridge] = solve(self.images, self.labels, self.text, ridge)
        return self._maps[ridge]

    def classifier(self, known: str) -> Tensor:
        """Weights and biases [C, E + 1] of what tells images apart beside text."""
        if known not in self._classifiers:
            classes, width = self.text.shape
            value = self.images.new_zeros(classes, width + 1)
            if known == "means":
                value[:, :-1] = class_means(self.images, self.labels, classes)[0]
            elif known == "probe":
                value = probe(self.images, self.labels, classes, self.scale, self.penalty)
            self._classifiers[known] = value
        return self._classifiers[known]

    def by_text(self, ridge: float | None, images: Tensor, text: Tensor) -> Tensor:
        """Logits [B, K] of other unit features by their cosine with any text [K, E], behind the
        map."""
        mean, weight = self.map(ridge)
        return self.scale * F.normalize(images + (images - mean) @ weight, dim=-1) @ text.T

    def by_known(self, form: Form, images: Tensor) -> Tensor:
        """Logits [B, C] over the classes with images."""
        by_text = self.by_text(form.ridge, images, self.text)
        if form.known == "text":
            return by_text
        found = self.classifier(form.known)
        return self.scale * images @ found[:, :-1].T + found[:, -1] + form.share * by_text


def calibrated(form: Form, whole: Fit, seed: int) -> Tensor:
    """(a, b, c) that make the logits of known classes, times a, and those of text, times b and
    plus c, comparable.

    In each trial half of the classes play the new ones. All is fitted to images of the other half,
    a quarter of which is set aside; the cross-entropy over all classes is of the images that were
    set aside and of those of the pseudo-new classes, both groups alike.
    """
    labels, classes = whole.labels, len(whole.text)
    like = whole.images.new_zeros(len(labels), classes)
    plays_new = drawn_halves(like, seed)
    generator = stream(seed, "images set aside for the calibration")
    other = form.ridge if form.map_new else None
    by_known, by_text, weights = [], [], []
    for new in plays_new:
        aside = quarter(labels, classes, generator)
        known = ~new[labels]
        rows = known & ~aside if bool((known & aside).any()) else known
        tested = known & aside if bool((known & aside).any()) else known
        numbers = (~new).long().cumsum(0) - 1
        part = Fit(
            whole.images[rows],
            numbers[labels[rows]],
            whole.text[~new],
            whole.scale,
            whole.penalty,
        )
        scores = like.clone()
        scores[:, ~new] = part.by_known(form, whole.images)
        by_known.append(scores)
        by_text.append(part.by_text(other, whole.images, whole.text))
        weights.append(
            tested.to(like) / tested.sum().clamp_min(1)
            + (~known).to(like) / (~known).sum().clamp_min(1)
        )
    share = torch.stack(weights)
    return fitted(
        torch.stack(by_known),
        torch.stack(by_text),
        labels,
        plays_new,
        1.0,
        share / share.sum(),
    )


def quarter(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A quarter of the rows of each class, at least one where there are two: a mask [N]."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        rows = (labels == label).nonzero().flatten()
        count = max(len(rows) // 4, int(len(rows) > 1))
        chosen[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return chosen
