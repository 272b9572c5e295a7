"""The field's schedule: how many epochs and steps a training has, and the rate of each epoch."""

from __future__ import annotations

import math

import torch

from simprompt.config import Training


def learning_rate(epoch: int, settings: Training, epochs: int) -> float:
    """Dassl's sequence: a constant warm-up epoch, then a cosine stepped once an epoch.

    Epoch 0 runs at `warmup_lr`; epoch e >= 1 at lr * (1 + cos(pi (e - 1) / T)) / 2, so the last
    one is still above zero. With the schedule "squared cosine" the cosine factor counts twice, as
    in KgCoOp's published runs, whose code stepped two schedulers.
    """
    if epoch == 0:
        return settings.warmup_lr
    factor = (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
    return settings.lr * (factor * factor if settings.schedule == "squared cosine" else factor)


def set_rates(
    optimiser: torch.optim.Optimizer, epoch: int, settings: Training, epochs: int
) -> float:
    """Give every parameter group its rate for an epoch; returns the schedule's own.

    A group's "lr_multiplier" counts from epoch 1 on: Dassl's warm-up gives all groups one rate.
    """
    rate = learning_rate(epoch, settings, epochs)
    for group in optimiser.param_groups:
        group["lr"] = rate * (group.get("lr_multiplier", 1.0) if epoch else 1.0)
    return rate


def epochs_and_steps(n_images: int, settings: Training) -> tuple[int, int]:
    """(epochs, steps per epoch): incomplete batches are dropped unless there is no other.

    `max_steps` is an upper bound on their product: whole epochs, so that the schedule ends at its
    last rate, or the first steps of a single epoch where there is no room for a whole one.
    """
    steps = max(1, n_images // settings.batch_size)
    epochs, limit = settings.epochs, settings.max_steps
    if limit is None:
        return epochs, steps
    return max(1, min(epochs, limit // steps)), min(steps, limit)
