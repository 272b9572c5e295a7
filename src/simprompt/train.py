"""The training loop: the field's schedule, one loss, one optimiser, read top to bottom."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.batched import Run, encode, fit_together, length, prefix_length
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.text import Suffixes
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import Batch, PromptLearner
from simprompt.pixels import Images, picked, with_views
from simprompt.sar import Regulariser
from simprompt.schedule import epochs_and_steps, set_rates
from simprompt.streams import stream

MOST_NAMES = 8  # of classes in a message


@dataclass
class Curves:
    """Means over each epoch, for plots: the method's own loss, the SAR loss, the rate."""

    loss: list[float] = field(default_factory=list)
    sar: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0


class DivergedError(SimpromptError):
    """A loss or a learned value that is NaN or infinite; says at which step, on which classes.

    Attributes:
        restored: whether the learner was put back to a state that is known to be good.
        prompt: that state as a prompt, where `prompt.learn` raised this.
    """

    def __init__(self, message: str, restored: bool = False) -> None:
        super().__init__(message)
        self.restored = restored
        self.prompt: Any = None


class Watch:
    """Stops a training that is no longer finite, and puts its learner back to where it was.

    The state at the start of an epoch is known to be good once the first loss of that epoch,
    which was computed from it, is finite. All methods raise `DivergedError`.

    Attributes:
        good: the last state that is known to be good; None before the first finite loss.
    """

    def __init__(self, learner: PromptLearner, settings: Training, epochs: int, steps: int) -> None:
        self.learner, self.settings, self.epochs, self.steps = learner, settings, epochs, steps
        self.good: dict[str, Tensor] | None = None
        self._good_epochs = self._epoch = 0
        self._start: dict[str, Tensor] = {}

    def begin(self, epoch: int) -> None:
        """Another epoch begins; what was learned so far has to be finite."""
        self._check_state(epoch)
        self._epoch = epoch
        self._start = {k: v.detach().clone() for k, v in self.learner.state_dict().items()}

    def penalty(self, value: float, step: int) -> float:
        """SAR's loss of a step, if it is finite."""
        if not math.isfinite(value):
            self._stop(f"the SAR loss is {value} {self._at(step)}, on classes that SAR drew")
        return value

    def loss(self, value: float, batch: Batch, step: int) -> float:
        """The method's loss of a step, if it is finite."""
        if not math.isfinite(value):
            self._stop(f"the loss is {value} {self._at(step)}, on {self._classes(batch)}")
        if step == 0:
            self.good, self._good_epochs = self._start, self._epoch
        return value

    def end(self, batch: Batch) -> None:
        """All epochs are done; the outcome has to tell the last batch's images apart."""
        self._check_state(self.epochs)
        if not self.learner.predict(batch.images, self.learner.classnames).isfinite().all():
            self._stop(f"the outcome's probabilities are not numbers, on {self._classes(batch)}")

    def _check_state(self, done: int) -> None:
        if name := not_finite(self.learner.state_dict()):
            self._stop(f"{name} holds NaN or infinity after epoch {done} of {self.epochs}")

    def _at(self, step: int) -> str:
        return f"at step {step + 1} of {self.steps} in epoch {self._epoch + 1} of {self.epochs}"

    def _classes(self, batch: Batch) -> str:
        names = [self.learner.classnames[label] for label in sorted(set(batch.labels.tolist()))]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"images of {', '.join(names[:MOST_NAMES])}{more}"

    def _stop(self, what: str) -> NoReturn:
        state = self._start if self.good is None else self.good
        if state:  # what it began with may not be finite
            self.learner.load_state_dict(state)
        if self.good is None:
            raise DivergedError(
                f"Nothing was learned: {what}. The model, an image or a setting gives numbers that "
                "are not finite."
            )
        raise DivergedError(
            f"The training diverged: {what}. The last good prompt is the one after "
            f"{self._good_epochs} of {self.epochs} epochs. Try a training.lr below "
            f"{self.settings.lr:g}; with SAR, perhaps a smaller sar.weight.",
            restored=True,
        )


def train(
    learner: PromptLearner,
    images: Images,
    labels: Tensor,
    settings: Training,
    seed: int,
    sar: tuple[Regulariser, Suffixes] | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Curves:
    """Train `learner` in place.

    Args:
        images: [N, M, E] features of M views an image, normalised unless the learner is
            `natural`; each step takes one random view of each image. For a learner with a live
            image tower: pixels, [N, 3, S, S] or [N, M, 3, S, S], which are read as they are
            needed if they come as `Pixels`.
        labels: base class of each image, [N].
        sar: the regulariser and the prompts of its classes (base first, then novel).
        on_epoch: called after every epoch with (epochs done, epochs in all).

    Returns:
        The curves; the same seed and thread count give the same bits on a CPU.

    Raises:
        SimpromptError: SAR on a learner whose text features cannot move.
        DivergedError: a loss or what is learned is not finite; see `Watch`.
    """
    (curves,) = train_together([Run(learner, images, labels, seed, sar)], settings, on_epoch)
    return curves


def train_together(
    runs: Sequence[Run],
    settings: Training,
    on_epoch: Callable[[int, int], None] | None = None,
) -> list[Curves]:
    """Train the learners of all runs in place, in one pass of the text tower a step.

    Random numbers, batches, draws, losses and optimisers stay each run's own. One run is computed
    as it stands; several must fit (`batched.fit_together`).

    Returns:
        The curves of each run, equal to those of `train` up to the order of floating-point sums.
        `seconds` is the run's share of the time of all, in proportion to the text tokens it had
        encoded; the shares add up to the time that all took.

    Raises:
        SimpromptError: runs that do not fit together, or SAR on a learner whose text features
            cannot move.
        DivergedError: a run's loss or prompt is not finite. The others stopped with it; made one by
            one, they go on.
    """
    if not runs:
        return []
    if len(runs) > 1 and not fit_together(runs, settings):
        raise SimpromptError(
            "These runs cannot be trained together: it takes one method whose text features come "
            "from a shared context (coop, kgcoop, language), one model, prompts of one size and "
            "the same number of steps. Train them one by one."
        )
    for run in runs:
        if run.sar is not None:
            check_sar(run.learner)
            if run.learner.sar_note:
                warnings.warn(run.learner.sar_note, stacklevel=3)
    started = time.perf_counter()
    generators = [stream(run.seed, "images") for run in runs]
    images = [with_views(run.images) for run in runs]
    for run, views in zip(runs, images, strict=True):
        run.learner.prepare(views, run.labels)
    optimisers = [run.learner.optimiser(settings) for run in runs]
    epochs, steps = epochs_and_steps(len(images[0]), settings)
    watches = [Watch(run.learner, settings, epochs, steps) for run in runs]
    curves = [Curves() for _ in runs]
    tokens, prefix = [0.0] * len(runs), prefix_length(runs[0])
    for epoch in range(epochs):
        for watch in watches:
            watch.begin(epoch)
        for optimiser in optimisers:
            rate = set_rates(optimiser, epoch, settings, epochs)
        sums = [[0.0, 0.0] for _ in runs]  # of the method's own loss, of SAR's
        feeds = [
            batches_of(views, run.labels, steps, epoch, settings, generator)
            for run, views, generator in zip(runs, images, generators, strict=True)
        ]
        for step, batches in enumerate(zip(*feeds, strict=True)):
            asked = [classes_of(run) for run in runs]
            losses = []  # no run's loss depends on another's prompt
            for i, text in enumerate(_texts(runs, asked, batches)):
                loss, penalty, total = _losses(runs[i], batches[i], asked[i], text)
                sums[i][0] += watches[i].loss(loss, batches[i], step)
                sums[i][1] += watches[i].penalty(penalty, step)
                tokens[i] += prefix + length(asked[i].prompts)
                losses.append(total)
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            reduce(torch.add, losses).backward()
            for optimiser in optimisers:
                optimiser.step()
        for run, curve, (loss, penalty) in zip(runs, curves, sums, strict=True):
            curve.loss.append(loss / steps)
            curve.lr.append(rate)
            if run.sar is not None:
                curve.sar.append(penalty / steps)
            curve.steps += steps
            run.learner.after_epoch(epoch + 1, epochs)
        if on_epoch:
            on_epoch(epoch + 1, epochs)
    for watch, batch in zip(watches, batches, strict=True):
        watch.end(batch)
    seconds = time.perf_counter() - started
    for curve, own in zip(curves, tokens, strict=True):
        curve.seconds = seconds * own / sum(tokens)
    return curves


@dataclass
class Asked:
    """The classes whose text a run's step needs: base first, then the drawn novel ones."""

    prompts: Suffixes
    numbers: Tensor
    drawn: Tensor


def classes_of(run: Run) -> Asked:
    """What a step of this run encodes; SAR draws here."""
    base = torch.arange(len(run.learner.classnames))
    if run.sar is None:
        return Asked(run.learner.base, base, base[:0])
    regulariser, prompts = run.sar
    drawn = regulariser.draw()
    numbers = regulariser.needed(drawn)
    if not run.learner.conditional:  # whose CE has text features of its own for every image
        numbers = torch.cat([base, numbers[numbers >= len(base)]])
    return Asked(prompts.select(numbers.tolist()), numbers, drawn)


def _texts(
    runs: Sequence[Run], asked: Sequence[Asked], batches: Sequence[Batch]
) -> Sequence[Tensor | None]:
    """Text features [C_r, E] of what each run asks for; None where its loss makes its own."""
    if len(runs) > 1:
        return encode([run.learner for run in runs], [ask.prompts for ask in asked])
    (run,), (ask,), (batch,) = runs, asked, batches
    return [None if run.sar is None else run.learner.regularised_text(ask.prompts, batch)]


def _losses(run: Run, batch: Batch, ask: Asked, text: Tensor | None) -> tuple[float, float, Tensor]:
    """A step's own loss, SAR's loss, and what is minimised."""
    learner = run.learner
    if text is None or learner.conditional:
        loss = learner.loss(batch)
    else:
        loss = learner.loss(batch, text[: len(learner.classnames)])
    if run.sar is None or text is None:
        return loss.item(), 0.0, loss
    regulariser, _ = run.sar
    text = F.normalize(text, dim=-1)
    penalty = regulariser.loss(text, ask.numbers, ask.drawn)
    total = loss + regulariser.settings.weight * penalty
    total = total + regulariser.anchor(text, ask.numbers, ask.drawn, batch.images)
    return loss.item(), penalty.item(), total


def batches_of(
    images: Images,
    labels: Tensor,
    steps: int,
    epoch: int,
    settings: Training,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """The batches of an epoch: images [N, M, ...] in random order, each as one of its M views.

    All is drawn before the first batch, so that pixels can be read ahead.
    """
    order = torch.randperm(len(images), generator=generator)
    picks = []
    for step in range(steps):
        rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        if settings.views == "live":  # one fresh view an epoch
            views = torch.full((len(rows),), epoch)
        else:
            views = torch.randint(images.shape[1], (len(rows),), generator=generator)
        picks.append((rows, views))
    for (rows, views), some in zip(picks, picked(images, picks), strict=True):
        yield Batch(some, labels[rows], rows, views)


def check_sar(learner: PromptLearner) -> None:
    """Refuse SAR where it would have no gradient.

    Raises:
        SimpromptError: the learner's text features do not depend on what it learns.
    """
    if not learner.text_moves:
        raise SimpromptError(
            f"SAR cannot be used with {type(learner).__name__}: its text features do not change "
            f"while it learns {learner.learned}, so SAR would have no gradient. Use a method that "
            "learns a text prompt; for VPT that is vpt+text."
        )
