"""The training loop: the field's schedule, one loss, one optimiser, read top to bottom."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.suffixes import Suffixes
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images, picked, with_views
from simprompt.methods.base import Batch, PromptLearner
from simprompt.sar import Regulariser
from simprompt.training.divergence import check_losses
from simprompt.training.joint import TrainingJob, encode, fit_together, length, prefix_length
from simprompt.training.schedule import set_rates
from simprompt.training.state import Curves, TrainState
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.gradients import training_mode, usable
from simprompt.utils.memory import pieces
from simprompt.utils.signals import defer_signals


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
        images: what the learner's `image_input` says: features of M views an image, [N, M, E], of
            which each step takes one at random; or pixels, [N, 3, S, S] or [N, M, 3, S, S], which
            are read as they are needed if they come as `Pixels`.
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


@training_mode()
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
    _check_runs(runs, settings)
    course = TrainState(runs, settings)
    epochs, steps = course.epochs, course.steps
    images = [_views(run.images) for run in runs]
    labels = [run.labels.cpu() for run in runs]
    device = runs[0].learner.clip.device
    for run, views, own_labels in zip(runs, images, labels, strict=True):
        run.learner.prepare(views, own_labels)
    course.begin(checkpoint)  # `prepare` may have put other parameters in place
    optimisers, watches = course.optimisers, course.watches
    prefix = prefix_length(runs[0])
    if not course.epoch:  # a learner that begins with NaN is refused before its first step
        check_losses(watches, learned=0)
    with defer_signals():  # a signal ends the training between steps, where a whole state is kept
        while course.epoch < epochs:
            epoch, first_step = course.epoch, course.step
            if not first_step:
                for watch in watches:
                    watch.begin(epoch)
            for optimiser in optimisers:
                rate = set_rates(optimiser, epoch, settings, epochs)
            feeds = [
                batches_of(views, own_labels, steps, epoch, settings, generator, first_step)
                for views, own_labels, generator in zip(
                    images, labels, course.open_epoch(), strict=True
                )
            ]
            for on_cpu in zip(*feeds, strict=True):
                batches = [batch.to(device) for batch in on_cpu]
                step_losses = course.attempt(
                    partial(_gradients, runs, optimisers, batches), checkpoint
                )
                for i, (loss, penalty, tokens) in enumerate(step_losses):
                    watches[i].saw(loss, penalty, batches[i])
                    course.tokens[i] += prefix + tokens
                if device.type == "cpu":  # where looking costs nothing
                    check_losses(watches)
                for optimiser in optimisers:
                    optimiser.step()
                course.step += 1
                if course.step < steps:
                    course.keep(checkpoint)
            _end_epoch(course, rate)
            if on_epoch:
                on_epoch(epoch + 1, epochs)
            if epoch + 1 == epochs:
                for watch, batch in zip(watches, batches, strict=True):
                    watch.end(batch)
            course.keep(checkpoint, at_the_end=epoch + 1 == epochs)
    seconds = course.seconds()
    for curve, token_count in zip(course.curves, course.tokens, strict=True):
        curve.seconds = seconds * token_count / sum(course.tokens)
        curve.pieces = course.spared.pieces
    return course.curves


def _views(images: Images) -> Images:
    """Images with a dimension of views; tensors of a caller's inference mode as copies, which
    autograd can use."""
    images = with_views(images)
    return usable(images) if isinstance(images, Tensor) else images


def _check_runs(runs: Sequence[TrainingJob], settings: Training) -> None:
    """Refuse what `train_together` cannot train, and warn of what a learner says of SAR."""
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
                warnings.warn(run.learner.sar_note, stacklevel=5)


def _end_epoch(course: TrainState, rate: float) -> None:
    """What learners do after an epoch, and its means in the curves; the next epoch is the next.

    Losses are read before the curves, which so hold finite numbers alone.
    """
    done = course.epoch + 1
    for run in course.runs:
        run.learner.after_epoch(done, course.epochs)
        if done == course.epochs:
            run.learner.after_training()
    check_losses(course.watches, learned=done)
    for run, curve, watch in zip(course.runs, course.curves, course.watches, strict=True):
        curve.loss.append(watch.loss / course.steps)
        curve.lr.append(rate)
        if run.sar is not None:
            curve.sar.append(watch.penalty / course.steps)
        curve.steps += course.steps
    course.close_epoch()


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
    numbers_drawn = regulariser.draw()
    numbers = regulariser.needed(numbers_drawn)
    if not run.learner.conditional:  # whose CE has text features of its own for every image
        # all base classes for CE, then the novel ones that were drawn: still ascending
        numbers = torch.cat([base, numbers[numbers >= len(base)]])
    return StepClasses(prompts.select(numbers.tolist()), numbers, numbers_drawn)


def _gradients(
    runs: Sequence[TrainingJob],
    optimisers: Sequence[torch.optim.Optimizer],
    batches: Sequence[Batch],
) -> list[tuple[Tensor, Tensor | None, float]]:
    """A step up to the gradients of all runs: the loss of each, SAR's, and the tokens it had
    encoded behind its prefix. Where memory ran out, one run after the other."""
    for optimiser in optimisers:
        # None, not zero: an optimiser leaves alone what a step does not use
        optimiser.zero_grad(set_to_none=True)
    step_classes = [classes_of(run) for run in runs]
    everyone = range(len(runs))
    results = []
    for indices in [everyone] if pieces(len(runs)) == 1 else [[i] for i in everyone]:
        jobs, asks = [runs[i] for i in indices], [step_classes[i] for i in indices]
        batches_here = [batches[i] for i in indices]
        texts = _texts(jobs, asks, batches_here)
        totals = []  # no run's loss depends on another's prompt
        for run, ask, batch, text in zip(jobs, asks, batches_here, texts, strict=True):
            loss, penalty, total = _losses(run, batch, ask, text)
            penalty = None if penalty is None else penalty.detach()
            results.append((loss.detach(), penalty, length(ask.prompts)))
            totals.append(total)
        reduce(torch.add, totals).backward()
    return results


def _texts(
    runs: Sequence[TrainingJob], step_classes: Sequence[StepClasses], batches: Sequence[Batch]
) -> Sequence[Tensor | None]:
    """Text features [C_r, E] of what each run asks for; None where its loss makes its own."""
    if len(runs) > 1:
        return encode([run.learner for run in runs], [ask.prompts for ask in step_classes])
    (run,), (ask,), (batch,) = runs, step_classes, batches
    return [run.learner.regularised_text(ask.prompts, batch) if len(ask.drawn) else None]


def _losses(
    run: TrainingJob, batch: Batch, ask: StepClasses, text: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """A step's own loss, SAR's loss where there is one, and what is minimised."""
    learner = run.learner
    if text is None or learner.conditional:
        loss = learner.loss(batch)
    else:
        loss = learner.loss(batch, text[: len(learner.classnames)])
    if run.sar is None or text is None or not len(ask.drawn):
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
        if settings.views == "random":  # one fresh view an epoch
            views = torch.full((len(rows),), epoch)
        else:
            views = torch.randint(images.shape[1], (len(rows),), generator=generator)
        picks.append((rows, views))
    picks = picks[first:]
    for (rows, views), images_picked in zip(picks, picked(images, picks), strict=True):
        yield Batch(images_picked, labels[rows], rows, views)


def check_sar(learner: PromptLearner[Any]) -> None:
    """Refuse SAR where it would have no gradient.

    Raises:
        SimpromptError: the learner's text features do not depend on what it learns.
    """
    if not learner.text_moves:
        raise SimpromptError(
            f"SAR cannot be used with {type(learner).__name__}: its text features do not change "
            f"while it learns {learner.summary}, so SAR would have no gradient. Use a method that "
            "learns a text prompt; for VPT that is vpt+text."
        )
