"""The training loop: the field's schedule, one loss, one optimiser, read top to bottom."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.layouts.common import not_finite
from simprompt.clip.text import Suffixes
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import Batch, PromptLearner
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
    images: Tensor,
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
            image tower: pixels, [N, 3, S, S] or [N, M, 3, S, S].
        labels: base class of each image, [N].
        sar: the regulariser and the prompts of its classes (base first, then novel).
        on_epoch: called after every epoch with (epochs done, epochs in all).

    Returns:
        The curves; the same seed and thread count give the same bits on a CPU.

    Raises:
        SimpromptError: SAR on a learner whose text features cannot move.
        DivergedError: a loss or what is learned is not finite; see `Watch`.
    """
    if sar is not None:
        check_sar(learner)
        if learner.sar_note:
            warnings.warn(learner.sar_note, stacklevel=2)
    started = time.perf_counter()
    generator = stream(seed, "images")
    n_base = len(learner.classnames)
    if images.dim() == 4:
        images = images[:, None]  # pixels, one view
    learner.prepare(images, labels)
    optimiser = learner.optimiser(settings)
    epochs, steps = epochs_and_steps(len(images), settings)
    curves = Curves()
    watch = Watch(learner, settings, epochs, steps)
    for epoch in range(epochs):
        watch.begin(epoch)
        rate = set_rates(optimiser, epoch, settings, epochs)
        order = torch.randperm(len(images), generator=generator)
        sum_loss = sum_sar = 0.0
        for step in range(steps):
            rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            batch = batch_of(images, labels, rows, epoch, settings, generator)
            if sar is None:
                total = loss = learner.loss(batch)
            else:
                regulariser, prompts = sar
                drawn = regulariser.draw()
                numbers = regulariser.needed(drawn)
                if learner.conditional:  # CE has text features of its own for every image
                    text = learner.regularised_text(prompts.select(numbers.tolist()), batch)
                    loss = learner.loss(batch)
                else:  # base and drawn novel classes are encoded together, each once
                    numbers = torch.cat([torch.arange(n_base), numbers[numbers >= n_base]])
                    text = learner.regularised_text(prompts.select(numbers.tolist()), batch)
                    loss = learner.loss(batch, text[:n_base])
                text = F.normalize(text, dim=-1)
                penalty = regulariser.loss(text, numbers, drawn)
                total = loss + regulariser.settings.weight * penalty
                total = total + regulariser.anchor(text, numbers, drawn, batch.images)
                sum_sar += watch.penalty(penalty.item(), step)
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            sum_loss += watch.loss(loss.item(), batch, step)
        curves.loss.append(sum_loss / steps)
        curves.lr.append(rate)
        if sar is not None:
            curves.sar.append(sum_sar / steps)
        curves.steps += steps
        learner.after_epoch(epoch + 1, epochs)
        if on_epoch:
            on_epoch(epoch + 1, epochs)
    watch.end(batch)
    curves.seconds = time.perf_counter() - started
    return curves


def batch_of(
    images: Tensor,
    labels: Tensor,
    rows: Tensor,
    epoch: int,
    settings: Training,
    generator: torch.Generator,
) -> Batch:
    """The images [N, M, ...] at `rows`, each as one of its M views."""
    if settings.views == "live":  # one fresh view an epoch
        views = torch.full((len(rows),), epoch)
    else:
        views = torch.randint(images.shape[1], (len(rows),), generator=generator)
    return Batch(images[rows, views], labels[rows], rows, views)


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
