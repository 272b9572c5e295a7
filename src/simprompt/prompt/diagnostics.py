"""Signs that a run went wrong, as the paper names them; each result carries those it shows."""

from __future__ import annotations

import torch

from simprompt.methods.teacher import teacher_features
from simprompt.prompt.prompt import Prompt
from simprompt.training.state import Curves
from simprompt.utils.memory import limit_mb

RISE, FALL = 1.10, 0.98  # what counts as rising and falling, between the middle and last third
NEAR_LIMIT = 0.85


def of_run(prompt: Prompt, peak: float) -> list[str]:
    """All signs of a run that has just been made, one sentence each; usually none.

    Args:
        peak: its largest resident memory, MB.
    """
    signs = []
    if prompt.curves is not None:
        signs += [only_warmed_up(prompt), overfits(prompt.curves)]
    if prompt.novel is not None:
        signs += [
            prompt.novel.sees_new,
            prompt.novel.left_out_as_too_long,
            unrelated(prompt),
        ]
    signs.append(short_of_memory(peak, limit_mb()))
    return [sign for sign in signs if sign]


def only_warmed_up(prompt: Prompt) -> str | None:
    """The whole training ran at the warm-up rate, so that next to nothing was learned.

    Silent for a method whose published schedule is a single epoch: it computes what it learns
    before that epoch (class means), and the rate changes nothing.
    """
    curves, training = prompt.curves, prompt.card["training"]
    single_epoch = type(prompt.learner).schedule.epochs == 1
    if curves is None or single_epoch or len(curves.lr) != 1 or curves.lr[0] >= training["lr"]:
        return None
    steps = max(1, prompt.card["shots"] // training["batch_size"])  # of a whole epoch
    ways = ["a larger training.epochs"] if training["epochs"] < 2 else []
    if (training["max_steps"] or 2 * steps) < 2 * steps:
        ways.append(f"a training.max_steps of at least {2 * steps}")
    count = "1 step" if curves.steps == 1 else f"{curves.steps} steps"
    return (
        f"The training had {count} in one epoch, which is the warm-up at a rate of "
        f"{curves.lr[0]:g}: next to nothing was learned. Set {' and '.join(ways)}."
    )


def overfits(curves: Curves) -> str | None:
    """SAR loss still rising while the method's own loss falls: the base classes are overfitted.

    The SAR loss starts near zero, where learned and hand-crafted prompt agree, so a rise in the
    first third is no sign; what is compared is the last third with the middle one.
    """
    third_length = len(curves.sar) // 3
    if third_length < 2:
        return None
    sar_before, sar_after = (
        _mean(curves.sar[i : i + third_length]) for i in (third_length, 2 * third_length)
    )
    before, after = (
        _mean(curves.loss[i : i + third_length]) for i in (third_length, 2 * third_length)
    )
    if sar_after <= RISE * sar_before or after >= FALL * before:
        return None
    return (
        f"The SAR loss still rose in the last third of the training (from {sar_before:.3g} to "
        f"{sar_after:.3g}) while the other loss fell: the prompt is overfitting its base classes. "
        "A larger sar.weight or fewer epochs hold it."
    )


def unrelated(prompt: Prompt) -> str | None:
    """The novel names have little to do with the base classes, as the hand-crafted prompt sees it.

    Names whose nearest base class is, on average,
    no nearer than half-way between what base classes are to each other on average and what the
    nearest of them is.
    """
    assert prompt.novel is not None
    names, base = prompt.novel.names, prompt.learner.classnames
    if not names or len(base) < 3:
        return None
    n, b = (
        teacher_features(prompt.clip, [prompt.card["template"]], group) for group in (names, base)
    )
    between = b @ b.T
    identity = torch.eye(len(base), dtype=torch.bool, device=b.device)
    typical = float(between[~identity].mean())
    base_nearest = float(between.masked_fill(identity, -2).amax(1).mean())
    nearest = float((n @ b.T).amax(1).mean())
    if nearest >= (typical + base_nearest) / 2:
        return None
    return (
        f"The novel names ({prompt.novel.source}) seem unrelated to the base classes: their mean "
        f"similarity to the nearest base class is {nearest:.2f}, that of a base class to the "
        f"nearest other one {base_nearest:.2f}. Take names of the same kind of things."
    )


def short_of_memory(peak: float, limit: float) -> str | None:
    """The run came close to what the machine or its container has; both in MB."""
    if not peak > NEAR_LIMIT * limit:  # also where either is not known
        return None
    return (
        f"The run took {peak:.0f} MB of {limit:.0f} MB. The recipe `low-memory` (50 novel names, "
        "K = 16) takes less, and so do fewer --workers."
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
