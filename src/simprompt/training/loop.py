"""The training loop: the field's schedule, one loss, one optimiser, read top to bottom."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from typing import Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.text import Suffixes
from simprompt.clip.transformer import overflow
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images, picked, with_views
from simprompt.methods.base import Batch, PromptLearner
from simprompt.sar import Regulariser
from simprompt.training.joint import TrainingJob, encode, fit_together, length, prefix_length
from simprompt.training.schedule import epochs_and_steps, set_rates
from simprompt.utils.checkpoint import Checkpoint, State
from simprompt.utils.devices import to_device
from simprompt.utils.gradients import trains, usable
from simprompt.utils.memory import MemoryShortError, OOMRetry, advice, pieces
from simprompt.utils.seeds import stream
from simprompt.utils.signals import defer_signals, raise_if_stopped, stop_requested

MOST_NAMES = 8  # of classes in a message

T = TypeVar("T")


@dataclass
class Curves:
    """Means over each epoch, for plots: the method's own loss, the SAR loss, the rate."""

    loss: list[float] = field(default_factory=list)
    sar: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    pieces: int = 1  # that steps are cut into; more than 1 after memory ran out (see `memory`)


class DivergedError(SimpromptError):
    """A loss or a learned value that is NaN or infinite; says at which step, on which classes.

    Attributes:
        restored: whether the learner was put back to a state that is known to be good.
        prompt: that state as a prompt, where `prompt.prompt.learn` raised this.
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
        self._start = {k: v.detach().clone() for k, v in self.learner.state_dict().items()}

    def saw(self, loss: Tensor, penalty: Tensor | None, batch: Batch) -> None:
        """The method's loss of a step, and SAR's; read at the next look."""
        self._unread.append((loss.detach(), None if penalty is None else penalty.detach(),
                             batch.labels))  # fmt: skip

    def unread(self, learned: bool) -> Tensor:
        """What the next look reads, in one row of numbers: the losses, and with `learned` whether
        each tensor of what was learned is finite."""
        own = [x for loss, penalty, _ in self._unread for x in (loss, penalty) if x is not None]
        if learned:
            own += [x.isfinite().all() for x in self.learner.state_dict().values()]
        if not own:
            return torch.empty(0)
        wide = torch.promote_types(own[0].dtype, torch.float32)
        return torch.stack([x.to(wide) for x in own])

    def read(self, numbers: Iterator[float], learned: int | None) -> None:
        """Judge the numbers of `unread`; `learned` is how many epochs were learned by then."""
        unread, self._unread = self._unread, []
        for _, penalty, labels in unread:
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
                    done = f"after epoch {learned} of {self.epochs}"
                    self._stop(f"{name} holds NaN or infinity {done}")

    def end(self, batch: Batch) -> None:
        """All epochs are done; the outcome has to tell the last batch's images apart."""
        if not self.learner.predict(batch.images, self.learner.classnames).isfinite().all():
            shown = self._classes(batch.labels)
            self._stop(f"the outcome's probabilities are not numbers, on {shown}")

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
        place = f"at step {self._step + 1} of {self.steps}"
        return f"{place} in epoch {self._epoch + 1} of {self.epochs}"

    def _classes(self, labels: Tensor) -> str:
        names = [self.learner.classnames[label] for label in sorted(set(labels.tolist()))]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"images of {', '.join(names[:MOST_NAMES])}{more}"

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
        own, numbers = numbers[: len(row)], numbers[len(row) :]
        watch.read(iter(own), learned)


def train(
    learner: PromptLearner[Any],
    images: Images,
    labels: Tensor,
    settings: Training,
    seed: int,
    sar: tuple[Regulariser, Suffixes] | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Curves:
    """Train `learner` in place.

    Args:
        images: [N, M, E] features of M views an image, normalised unless the learner is
            `unnormalized`; each step takes one random view of each image. For a learner with a live
            image tower: pixels, [N, 3, S, S] or [N, M, 3, S, S], which are read as they are
            needed if they come as `Pixels`.
        labels: base class of each image, [N].
        sar: the regulariser and the prompts of its classes (base first, then novel).
        on_epoch: called after every epoch with (epochs done, epochs in all).
        checkpoint: where the training is kept every minute, at its end, and when a signal asks to
            stop; it begins with what is there. None keeps nothing.

    On a GPU nothing in a step waits for it: losses are read once an epoch.

    Returns:
        The curves; the same seed and thread count give the same bits on a CPU.

    Raises:
        SimpromptError: SAR on a learner whose text features cannot move.
        DivergedError: a loss or what is learned is not finite; see `DivergenceGuard`.
    """
    run = TrainingJob(learner, images, labels, seed, sar)
    (curves,) = train_together([run], settings, on_epoch, checkpoint)
    return curves


@trains
def train_together(
    runs: Sequence[TrainingJob],
    settings: Training,
    on_epoch: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Curves]:
    """Train the learners of all runs in place, in one pass of the text tower a step.

    Random numbers, batches, draws, losses and optimisers stay each run's own. One run is computed
    as it stands; several must fit (`training.joint.fit_together`).

    Gradients are computed whatever mode of autograd the caller is in.

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
                warnings.warn(run.learner.sar_note, stacklevel=4)
    course = TrainState(runs, settings)
    epochs, steps = course.epochs, course.steps
    images = [with_views(run.images) for run in runs]
    images = [usable(views) if isinstance(views, Tensor) else views for views in images]
    labels = [run.labels.cpu() for run in runs]
    device = runs[0].learner.clip.device
    for run, views, own_labels in zip(runs, images, labels, strict=True):
        run.learner.prepare(views, own_labels)
    course.begin(checkpoint)
    optimisers, watches = course.optimisers, course.watches
    prefix = prefix_length(runs[0])
    if not course.epoch:
        check_losses(watches, learned=0)
    with defer_signals():
        while course.epoch < epochs:
            epoch, first = course.epoch, course.step
            if not first:
                for watch in watches:
                    watch.begin(epoch)
            for optimiser in optimisers:
                rate = set_rates(optimiser, epoch, settings, epochs)
            feeds = [
                batches_of(views, own_labels, steps, epoch, settings, generator, first)
                for views, own_labels, generator in zip(
                    images, labels, course.open_epoch(), strict=True
                )
            ]
            for on_cpu in zip(*feeds, strict=True):
                batches = [batch.to(device) for batch in on_cpu]
                made = course.attempt(partial(_gradients, runs, optimisers, batches), checkpoint)
                for i, (loss, penalty, tokens) in enumerate(made):
                    watches[i].saw(loss, penalty, batches[i])
                    course.tokens[i] += prefix + tokens
                if device.type == "cpu":  # where looking costs nothing
                    check_losses(watches)
                for optimiser in optimisers:
                    optimiser.step()
                course.step += 1
                if course.step < steps:
                    course.keep(checkpoint)
            for run in runs:
                run.learner.after_epoch(epoch + 1, epochs)
            check_losses(watches, learned=epoch + 1)
            for run, curve, watch in zip(runs, course.curves, watches, strict=True):
                curve.loss.append(watch.loss / steps)
                curve.lr.append(rate)
                if run.sar is not None:
                    curve.sar.append(watch.penalty / steps)
                curve.steps += steps
            course.close_epoch()
            if on_epoch:
                on_epoch(epoch + 1, epochs)
            if epoch + 1 == epochs:
                for watch, batch in zip(watches, batches, strict=True):
                    watch.end(batch)
            course.keep(checkpoint, at_the_end=epoch + 1 == epochs)
    seconds = course.seconds()
    for curve, own in zip(course.curves, course.tokens, strict=True):
        curve.seconds = seconds * own / sum(course.tokens)
        curve.pieces = course.spared.pieces
    return course.curves


class TrainState:
    """How far a training is: all that changes while it goes on, and is kept in a checkpoint.

    Attributes:
        epoch, step: the next step to take.
        curves, tokens: of each run; tokens are those it had encoded.
    """

    def __init__(self, runs: Sequence[TrainingJob], settings: Training) -> None:
        self.runs, self.settings = runs, settings
        self.epochs, self.steps = epochs_and_steps(len(runs[0].images), settings)
        self.epoch = self.step = 0
        self.curves = [Curves() for _ in runs]
        self.tokens = [0.0] * len(runs)
        self._streams = [stream(run.seed, "images") for run in runs]
        self._drawn: list[Tensor] = []  # the streams' states before this epoch's draws
        self._before, self._since = 0.0, time.perf_counter()
        ways = ["a smaller batch (`--set training.batch_size=N`)"]
        if len(runs) > 1:
            ways.append("`--batch-runs off`")
        self.spared = OOMRetry("A training step", advice(runs[0].learner.clip.device.type, *ways))

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Make optimisers and watches, the learners being prepared, and take up what was kept."""
        state = checkpoint.read() if checkpoint else None
        if state:  # before the optimisers: a learner may put other parameters in place
            for run, kept in zip(self.runs, state["runs"], strict=True):
                run.learner.load_state_dict(kept["learner"])
        settings = self.settings
        self.optimisers = [run.learner.optimiser(settings) for run in self.runs]
        self.watches = [
            DivergenceGuard(run.learner, settings, self.epochs, self.steps) for run in self.runs
        ]
        if state:
            self._take_up(state)

    def open_epoch(self) -> Sequence[torch.Generator]:
        """The streams that this epoch's batches are drawn from."""
        self._drawn = [generator.get_state() for generator in self._streams]
        return self._streams

    def close_epoch(self) -> None:
        """All steps of this epoch are done."""
        self.epoch, self.step = self.epoch + 1, 0
        self._drawn = [generator.get_state() for generator in self._streams]

    def attempt(self, step: Callable[[], T], checkpoint: Checkpoint | None) -> T:
        """A step up to its gradients; in smaller pieces if memory runs out, and from then on.

        Raises:
            SimpromptError: memory runs out even so; the steps before are kept.
        """
        before = [run.sar and run.sar[0].state_dict() for run in self.runs]

        def undo() -> None:
            """Rewind SAR's draws, and put back the averages that its losses move."""
            for run, kept in zip(self.runs, before, strict=True):
                if run.sar:
                    run.sar[0].load_state_dict(kept or {})

        try:
            return self.spared(step, undo)
        except MemoryShortError as error:
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            if checkpoint and (self.epoch or self.step):
                check_losses(self.watches)
                if checkpoint.write(self._kept()):
                    place = f"{checkpoint.place}: the same training goes on from there"
                    text = f"{error} What it had learned is kept in {place}."
                    raise MemoryShortError(text, error.why) from None
            raise

    def seconds(self) -> float:
        """What the training took so far, in this process and in those before."""
        return self._before + time.perf_counter() - self._since

    def keep(self, checkpoint: Checkpoint | None, at_the_end: bool = False) -> None:
        """Write a checkpoint if it is time, and end if a signal asks for that.

        Raises:
            Stopped: it does.
        """
        kept = ""
        if checkpoint and (at_the_end or stop_requested() or checkpoint.due()):
            if self.step:
                check_losses(self.watches)
            if checkpoint.write(self._kept()):
                done = self.epoch * self.steps + self.step
                kept = f"{done} of {self.epochs * self.steps} steps in {checkpoint.place}"
        raise_if_stopped(kept)

    def _kept(self) -> State:
        for curves in self.curves:
            curves.pieces = self.spared.pieces
        parts = zip(self.runs, self.optimisers, self.watches, self.curves, self._drawn, strict=True)
        return {
            "at": [self.epoch, self.step, self.seconds(), self.tokens],
            "runs": [
                {
                    "learner": dict(run.learner.state_dict()),
                    "averages": [dict(one) for one in run.learner.averages()],
                    "sar": run.sar and run.sar[0].state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "watch": watch.state_dict(),
                    "curves": asdict(curves),
                    "stream": drawn,
                }
                for run, optimiser, watch, curves, drawn in parts
            ],
        }

    def _take_up(self, state: State) -> None:
        self.epoch, self.step, self._before, self.tokens = state["at"]
        self.curves = [Curves(**kept["curves"]) for kept in state["runs"]]
        self.spared.pieces = self.curves[0].pieces
        for kept, run, optimiser, watch, generator in zip(
            state["runs"], self.runs, self.optimisers, self.watches, self._streams, strict=True
        ):
            for average, values in zip(run.learner.averages(), kept["averages"], strict=True):
                average.update(
                    {k: to_device(v, run.learner.clip.device) for k, v in values.items()}
                )
            if run.sar:
                run.sar[0].load_state_dict(kept["sar"])
            optimiser.load_state_dict(kept["optimiser"])
            watch.load_state_dict(kept["watch"])
            generator.set_state(kept["stream"])


@dataclass
class StepClasses:
    """The classes whose text a run's step needs: base first, then the drawn novel ones."""

    prompts: Suffixes
    numbers: Tensor
    drawn: Tensor


def classes_of(run: TrainingJob) -> StepClasses:
    """What a step of this run encodes; SAR draws here."""
    base = torch.arange(len(run.learner.classnames))
    if run.sar is None:
        return StepClasses(run.learner.base, base, base[:0])
    regulariser, prompts = run.sar
    drawn = regulariser.draw()
    numbers = regulariser.needed(drawn)
    if not run.learner.conditional:  # whose CE has text features of its own for every image
        numbers = torch.cat([base, numbers[numbers >= len(base)]])
    return StepClasses(prompts.select(numbers.tolist()), numbers, drawn)


def _gradients(
    runs: Sequence[TrainingJob],
    optimisers: Sequence[torch.optim.Optimizer],
    batches: Sequence[Batch],
) -> list[tuple[Tensor, Tensor | None, float]]:
    """A step up to the gradients of all runs: the loss of each, SAR's, and the tokens it had
    encoded behind its prefix. Where memory ran out, one run after the other."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    step_classes = [classes_of(run) for run in runs]
    everyone = range(len(runs))
    made = []
    for some in [everyone] if pieces(len(runs)) == 1 else [[i] for i in everyone]:
        own, wanted = [runs[i] for i in some], [step_classes[i] for i in some]
        given = [batches[i] for i in some]
        texts = _texts(own, wanted, given)
        totals = []  # no run's loss depends on another's prompt
        for run, ask, batch, text in zip(own, wanted, given, texts, strict=True):
            loss, penalty, total = _losses(run, batch, ask, text)
            penalty = None if penalty is None else penalty.detach()
            made.append((loss.detach(), penalty, length(ask.prompts)))
            totals.append(total)
        reduce(torch.add, totals).backward()
    return made


def _texts(
    runs: Sequence[TrainingJob], step_classes: Sequence[StepClasses], batches: Sequence[Batch]
) -> Sequence[Tensor | None]:
    """Text features [C_r, E] of what each run asks for; None where its loss makes its own."""
    if len(runs) > 1:
        return encode([run.learner for run in runs], [ask.prompts for ask in step_classes])
    (run,), (ask,), (batch,) = runs, step_classes, batches
    return [None if run.sar is None else run.learner.regularised_text(ask.prompts, batch)]


def _losses(
    run: TrainingJob, batch: Batch, ask: StepClasses, text: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """A step's own loss, SAR's loss where there is one, and what is minimised."""
    learner = run.learner
    if text is None or learner.conditional:
        loss = learner.loss(batch)
    else:
        loss = learner.loss(batch, text[: len(learner.classnames)])
    if run.sar is None or text is None:
        return loss, None, loss
    regulariser, _ = run.sar
    text = F.normalize(text, dim=-1)
    penalty = regulariser.loss(text, ask.numbers, ask.drawn)
    total = loss + regulariser.settings.weight * penalty
    total = total + regulariser.anchor(text, ask.numbers, ask.drawn, batch.images)
    return loss, penalty, total


def batches_of(
    images: Images,
    labels: Tensor,
    steps: int,
    epoch: int,
    settings: Training,
    generator: torch.Generator,
    first: int = 0,
) -> Iterator[Batch]:
    """The batches of an epoch from step `first` on, on the CPU: images [N, M, ...] in random order,
    each as one of its M views.

    All is drawn before the first batch, so that pixels can be read ahead, and so that an epoch can
    be entered at any step.
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
    picks = picks[first:]
    for (rows, views), some in zip(picks, picked(images, picks), strict=True):
        yield Batch(some, labels[rows], rows, views)


def check_sar(learner: PromptLearner[Any]) -> None:
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
