"""The training loop: the field's schedule, one loss, one optimiser, read top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from simprompt.clip.text import Suffixes
from simprompt.config import Training
from simprompt.methods.base import Batch, PromptLearner
from simprompt.sar import Regulariser


def learning_rate(epoch: int, settings: Training, epochs: int) -> float:
    """Dassl's sequence: a constant warm-up epoch, then a cosine stepped once an epoch.

    Epoch 0 runs at `warmup_lr`; epoch e >= 1 at lr * (1 + cos(pi (e - 1) / T)) / 2, so the last
    one is still above zero.
    """
    if epoch == 0:
        return settings.warmup_lr
    return settings.lr * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2


def epochs_and_steps(n_images: int, settings: Training) -> tuple[int, int]:
    """(epochs, steps an epoch): incomplete batches are dropped unless there is no other."""
    steps = max(1, n_images // settings.batch_size)
    epochs = settings.epochs
    if settings.max_steps is not None:
        epochs = max(1, min(epochs, settings.max_steps // steps))
    return epochs, steps


@dataclass
class Curves:
    """Means over each epoch, for plots: the method's own loss, the SAR loss, the rate."""

    loss: list[float] = field(default_factory=list)
    sar: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0


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
        images: [N, M, E] normalised features of M views an image (or [N, 3, S, S] pixels for a
            learner with a live image tower); each step takes one random view of each image.
        labels: base class of each image, [N].
        sar: the regulariser and the prompts of its classes (base first, then novel).
        on_epoch: called after every epoch with (epochs done, epochs in all).

    Returns:
        The curves; the same seed and thread count give the same bits on a CPU.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(
        [p for p in learner.parameters() if p.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    n_base = len(learner.classnames)
    base = learner.prompts(learner.classnames)
    epochs, steps = epochs_and_steps(len(images), settings)
    curves = Curves()
    for epoch in range(epochs):
        rate = learning_rate(epoch, settings, epochs)
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = torch.randperm(len(images), generator=generator)
        sum_loss = sum_sar = 0.0
        for step in range(steps):
            rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            batch = Batch(pick_views(images, rows, generator), labels[rows])
            if sar is None:
                loss = learner.loss(batch, learner.text_features(base))
                penalty = None
            else:
                # base and drawn novel classes are encoded together, each once
                regulariser, prompts = sar
                drawn = regulariser.draw()
                needed = regulariser.needed(drawn)
                numbers = torch.cat([torch.arange(n_base), needed[needed >= n_base]])
                text = learner.text_features(prompts.select(numbers.tolist()))
                loss = learner.loss(batch, text[:n_base])
                penalty = regulariser.loss(text, numbers, drawn)
            total = loss if sar is None else loss + sar[0].settings.weight * penalty
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            sum_loss += loss.item()
            sum_sar += 0.0 if penalty is None else penalty.item()
        curves.loss.append(sum_loss / steps)
        curves.lr.append(rate)
        if sar is not None:
            curves.sar.append(sum_sar / steps)
        curves.steps += steps
        if on_epoch:
            on_epoch(epoch + 1, epochs)
    curves.seconds = time.perf_counter() - started
    return curves


def pick_views(images: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """One random view [B, E] of each of the images [N, M, E] at `rows`; pixels pass through."""
    if images.dim() == 4:
        return images[rows]
    views = torch.randint(images.shape[1], (len(rows),), generator=generator)
    return images[rows, views]
