"""Several runs trained together: seeds and weights of one task as one bigger text batch.

With ten classes a step of one run is some fifty tokens, too few to keep a machine busy: most of
the time goes into reading the tower's weights and starting small operations. Runs of the same
method on the same model share the frozen tower, so their classes are encoded in one pass, each
behind its own run's prompt (`TextTower.encode_each`). Random numbers, batches, draws, losses,
optimisers and schedules stay each run's own, so the outcome equals separate training up to the
order of floating-point sums.

The gain shrinks as a run's own tokens grow. Measured with the icon CLIP on one thread, the time of
separate steps over that of joint ones: 1.8 for eight runs of 53 tokens, 1.5 for six of 110, 1.3 for
four of 210. Beyond some 1000 tokens a step no number of runs gained more than a few percent, and
twelve runs of 254 tokens gained less (1.2) than four (1.3).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.text import Suffixes
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner
from simprompt.sar import Regulariser
from simprompt.schedule import epochs_and_steps, set_rates
from simprompt.streams import stream
from simprompt.train import Curves, Watch, batch_of

TOKENS = 1024  # in a step of all runs together; see above


@dataclass
class Run:
    """What `train` takes, for one of several runs; see there."""

    learner: PromptLearner
    images: Tensor  # [N, M, E] features of M views an image
    labels: Tensor  # [N]
    seed: int
    sar: tuple[Regulariser, Suffixes] | None = None


def takes(method: type[PromptLearner]) -> bool:
    """Whether runs of a method can be trained together, if their settings allow it."""
    return (
        not method.live_images
        and method.loss is PromptLearner.loss
        and method.regularised_text is PromptLearner.regularised_text
        and method.shared_prompt is not PromptLearner.shared_prompt
    )


def shared_prompt(learner: PromptLearner) -> tuple[Tensor, list[Tensor]] | None:
    """The prefix [P, W] and deep tokens [M, W] that make up all a learner's text features.

    None for learners whose text features are made in another way.
    """
    if not takes(type(learner)):
        return None
    shared = learner.shared_prompt()
    return None if shared is None else (shared[0], list(shared[1]))


def fit_together(runs: Sequence[Run], settings: Training) -> bool:
    """Whether `train_together` takes these runs: one method and model, as many steps in each."""
    first = runs[0]
    return all(
        type(run.learner) is type(first.learner)
        and run.learner.clip is first.learner.clip
        and (prompt := shared_prompt(run.learner)) is not None
        and (other := shared_prompt(first.learner)) is not None
        and prompt[0].shape == other[0].shape
        and len(prompt[1]) == len(other[1])
        and epochs_and_steps(len(run.images), settings)
        == epochs_and_steps(len(first.images), settings)
        for run in runs
    )


def pays(runs: Sequence[Run]) -> bool:
    """Whether a step of these runs has few enough tokens to gain by being one; also what bounds
    the memory of a batch."""
    return sum(map(_tokens, runs)) <= TOKENS


def _tokens(run: Run) -> float:
    """Text tokens that a step of this run encodes, on average over SAR's draws."""
    total = _prefix_length(run) + _length(run.learner.base)
    if run.sar is None:
        return total
    regulariser, prompts = run.sar
    novel = _length(prompts) - _length(run.learner.base)
    return total + novel * regulariser.share()


def _prefix_length(run: Run) -> int:
    shared = shared_prompt(run.learner)
    return len(shared[0]) if shared else 0


def _length(prompts: Suffixes) -> float:
    return sum(map(len, prompts.ids))


def train_together(runs: Sequence[Run], settings: Training) -> list[Curves]:
    """Train the learners of all runs in place.

    Returns:
        The curves of each run, equal to those of `train`. `seconds` is not measured for a run by
        itself: it is the run's share of the time of all, in proportion to the text tokens it had
        encoded. The shares add up to the time that all took.

    Raises:
        SimpromptError: runs that do not fit together.
        DivergedError: a run's loss or prompt is not finite. The others stopped with it; made one by
            one, they go on.
    """
    if not runs:
        return []
    if not fit_together(runs, settings):
        raise SimpromptError(
            "These runs cannot be trained together: it takes one method whose text features come "
            "from a shared context (coop, kgcoop, language), one model, prompts of one size and "
            "the same number of steps. Train them one by one."
        )
    started = time.perf_counter()
    generators = [stream(run.seed, "images") for run in runs]
    for run in runs:
        run.learner.prepare(run.images, run.labels)
    optimisers = [run.learner.optimiser(settings) for run in runs]
    epochs, steps = epochs_and_steps(len(runs[0].images), settings)
    curves = [Curves() for _ in runs]
    prefix = _prefix_length(runs[0])
    encoded = [0.0] * len(runs)  # tokens
    watches = [Watch(run.learner, settings, epochs, steps) for run in runs]
    for epoch in range(epochs):
        for watch in watches:
            watch.begin(epoch)
        for optimiser in optimisers:
            rate = set_rates(optimiser, epoch, settings, epochs)
        orders = [
            torch.randperm(len(run.images), generator=generator)
            for run, generator in zip(runs, generators, strict=True)
        ]
        sums = torch.zeros(2, len(runs), dtype=torch.float64)  # losses, penalties
        for step in range(steps):
            some = slice(step * settings.batch_size, (step + 1) * settings.batch_size)
            batches = [
                batch_of(run.images, run.labels, order[some], epoch, settings, generator)
                for run, order, generator in zip(runs, orders, generators, strict=True)
            ]
            asked = [_classes(run) for run in runs]
            texts = _encode([run.learner for run in runs], [a.prompts for a in asked])
            total = torch.zeros((), device=texts[0].device)
            for i, (run, batch, ask, text) in enumerate(
                zip(runs, batches, asked, texts, strict=True)
            ):
                encoded[i] += prefix + _length(ask.prompts)
                loss = run.learner.loss(batch, text[: len(run.learner.classnames)])
                total = total + loss
                sums[0, i] += watches[i].loss(loss.item(), batch, step)
                if run.sar is not None:
                    regulariser = run.sar[0]
                    penalty = regulariser.loss(text, ask.numbers, ask.drawn)
                    total = total + regulariser.settings.weight * penalty
                    total = total + regulariser.anchor(text, ask.numbers, ask.drawn, batch.images)
                    sums[1, i] += watches[i].penalty(penalty.item(), step)
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            total.backward()  # no run's loss depends on another's prompt
            for optimiser in optimisers:
                optimiser.step()
        for i, (run, curve) in enumerate(zip(runs, curves, strict=True)):
            curve.loss.append(sums[0, i].item() / steps)
            curve.lr.append(rate)
            if run.sar is not None:
                curve.sar.append(sums[1, i].item() / steps)
            curve.steps += steps
            run.learner.after_epoch(epoch + 1, epochs)
    for watch, batch in zip(watches, batches, strict=True):
        watch.end(batch)
    seconds = time.perf_counter() - started
    for curve, tokens in zip(curves, encoded, strict=True):
        curve.seconds = seconds * tokens / sum(encoded)
    return curves


@dataclass
class _Asked:
    """The classes a run's step needs: base first, then the drawn novel ones."""

    prompts: Suffixes
    numbers: Tensor
    drawn: Tensor


def _classes(run: Run) -> _Asked:
    numbers = torch.arange(len(run.learner.classnames))
    if run.sar is None:
        return _Asked(run.learner.base, numbers, numbers[:0])
    regulariser, prompts = run.sar
    drawn = regulariser.draw()
    needed = regulariser.needed(drawn)
    numbers = torch.cat([numbers, needed[needed >= len(numbers)]])
    return _Asked(prompts.select(numbers.tolist()), numbers, drawn)


def _encode(learners: Sequence[PromptLearner], prompts: Sequence[Suffixes]) -> list[Tensor]:
    """Normalised text features [C_r, E] of each run, in one pass."""
    made = [shared for learner in learners if (shared := shared_prompt(learner)) is not None]
    prefixes = torch.stack([prefix for prefix, _ in made])  # [R, P, W]
    layers = zip(*(deep for _, deep in made), strict=True)
    deep = [torch.stack(tokens) for tokens in layers]  # [R, M, W] each
    texts = learners[0].clip.text.encode_each(prefixes, prompts, deep)
    return [F.normalize(text, dim=-1) for text in texts]
