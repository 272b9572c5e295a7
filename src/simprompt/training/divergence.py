"""A training whose numbers are no longer finite is stopped and put back to its last good state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from simprompt.clip.transformer import overflow
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import Batch, PromptLearner
from simprompt.utils.checkpoint import State

MOST_NAMES = 8  # of classes in a message


class DivergedError(SimpromptError):
    """A loss or a learned value that is NaN or infinite; says at which step, on which classes.

    Attributes:
        restored: whether the learner was put back to a state that is known to be good.
        prompt: that state as a prompt, where `learn.learn.learn` raised this.
    """

    def __init__(self, message: str, restored: bool = False) -> None:
        super().__init__(message)
        self.restored = restored
        self.prompt: Any = None


class DivergenceGuard:
    """Sums up a training's losses, stops it when something is no longer finite, and puts its
    learner back to where it was.

    The state at the start of an epoch is known to be good once the first loss of that epoch,
    which was computed from it, is finite. `check_losses` reads what `saw` was given; it and `end`
    raise `DivergedError`.

    Attributes:
        good: the last state that is known to be good; None before the first finite loss.
        loss, penalty: sums of the method's own loss and of SAR's over this epoch's steps.
    """

    def __init__(
        self, learner: PromptLearner[Any], settings: Training, epochs: int, steps: int
    ) -> None:
        self.learner, self.settings, self.epochs, self.steps = learner, settings, epochs, steps
        self.good: dict[str, Tensor] | None = None
        self._good_epochs = self._epoch = self._step = 0
        self._start: dict[str, Tensor] = {}
        self._unread: list[tuple[Tensor, Tensor | None, Tensor]] = []
        self.loss = self.penalty = 0.0

    def begin(self, epoch: int) -> None:
        """Another epoch begins."""
        self._epoch, self._step, self.loss, self.penalty = epoch, 0, 0.0, 0.0
        # copies: the optimiser changes parameters in place
        self._start = {k: v.detach().clone() for k, v in self.learner.state_dict().items()}

    def saw(self, loss: Tensor, penalty: Tensor | None, batch: Batch) -> None:
        """The method's loss of a step, and SAR's; read at the next look."""
        self._unread.append(
            (loss.detach(), None if penalty is None else penalty.detach(), batch.labels)
        )

    def unread(self, learned: bool) -> Tensor:
        """What the next look reads, in one row of numbers: the losses, and with `learned` whether
        each tensor of what was learned is finite."""
        own = [x for loss, penalty, _ in self._unread for x in (loss, penalty) if x is not None]
        if learned:
            own += [x.isfinite().all() for x in self.learner.state_dict().values()]
        if not own:
            return torch.empty(0)
        # one type for losses and flags, so that one copy from the device reads them all
        wide = torch.promote_types(own[0].dtype, torch.float32)
        return torch.stack([x.to(wide) for x in own])

    def read(self, numbers: Iterator[float], learned: int | None) -> None:
        """Judge the numbers of `unread`; `learned` is how many epochs were learned by then."""
        pending, self._unread = self._unread, []
        for _, penalty, labels in pending:
            value = next(numbers)
            if not math.isfinite(value):
                self._stop(f"the loss is {value} {self._at()}, on {self._classes(labels)}")
            if self._step == 0:
                self.good, self._good_epochs = self._start, self._epoch
            self.loss += value
            if penalty is not None:
                value = next(numbers)
                if not math.isfinite(value):
                    self._stop(f"the SAR loss is {value} {self._at()}, on classes that SAR drew")
                self.penalty += value
            self._step += 1
        if learned is not None:
            for name, finite in zip(self.learner.state_dict(), numbers, strict=True):
                if not finite:
                    when = f"after epoch {learned} of {self.epochs}"
                    self._stop(f"{name} holds NaN or infinity {when}")

    def end(self, batch: Batch) -> None:
        """All epochs are done; the outcome has to tell the last batch's images apart."""
        if not self.learner.predict(batch.images, self.learner.classnames).isfinite().all():
            shown_classes = self._classes(batch.labels)
            self._stop(f"the outcome's probabilities are not numbers, on {shown_classes}")

    def state_dict(self) -> State:
        """What a checkpoint holds of it; all it was given has been read."""
        numbers = [self._good_epochs, self._epoch, self._step, self.loss, self.penalty]
        return {"good": self.good, "numbers": numbers}

    def load_state_dict(self, kept: State) -> None:
        """Go on from what `kept` gave."""
        self.good = kept["good"]
        self._good_epochs, self._epoch, self._step, self.loss, self.penalty = kept["numbers"]
        if self._step:  # the first loss of this epoch was finite
            self._start = kept["good"]

    def _at(self) -> str:
        location = f"at step {self._step + 1} of {self.steps}"
        return f"{location} in epoch {self._epoch + 1} of {self.epochs}"

    def _classes(self, labels: Tensor) -> str:
        names = [self.learner.classnames[label] for label in sorted(set(labels.tolist()))]
        suffix = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"images of {', '.join(names[:MOST_NAMES])}{suffix}"

    def _stop(self, what: str) -> NoReturn:
        state = self._start if self.good is None else self.good
        if state:  # what it began with may not be finite
            self.learner.load_state_dict(state)
        if self.good is None:
            text = self.learner.clip.text
            raise DivergedError(
                f"Nothing was learned: {what}. The model, an image or a setting gives numbers that "
                f"are not finite{overflow('perhaps the model', text.dtype)}."
            )
        raise DivergedError(
            f"The training diverged: {what}. The last good prompt is the one after "
            f"{self._good_epochs} of {self.epochs} epochs. Try a training.lr below "
            f"{self.settings.lr:g}; with SAR, perhaps a smaller sar.weight.",
            restored=True,
        )


def check_losses(watches: Sequence[DivergenceGuard], learned: int | None = None) -> None:
    """Read all that the watches were given, in one copy from the device.

    Args:
        learned: epochs done, if what was learned by then is to be finite as well.
    """
    rows = [watch.unread(learned is not None) for watch in watches]
    numbers = torch.cat(rows).tolist()
    for watch, row in zip(watches, rows, strict=True):
        row_numbers, numbers = numbers[: len(row)], numbers[len(row) :]
        watch.read(iter(row_numbers), learned)
