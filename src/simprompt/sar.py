"""Similarity Alignment Regularisation (arXiv 2502.11969): the paper in one file.

Let C be the base classes plus novel class names, t_i the L2-normalised text embedding of class i
from the learnable prompt and h_i the one from the hand-crafted prompt. Each step draws K classes
and compares, for each of them, how similar the others are to it:

    P_i = softmax over j != i of h_i . h_j / tau      (teacher, frozen)
    Q_i = softmax over j != i of t_i . t_j / tau      (learned; gradients reach rows and columns)
    loss = CE + weight * mean_i KL(P_i || Q_i)

The loss sees relations only. One rotation of all learned embeddings leaves every t_i . t_j as it
was, so SAR cannot notice when all text turns together away from the images; CE on the base
classes is what holds the text in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simprompt.config import SAR
from simprompt.streams import stream


def similarity_logits(rows: Tensor, columns: Tensor, tau: float, own: Tensor | None) -> Tensor:
    """Cosine similarities over tau, [K, J] or, without each row's own column, [K, J-1].

    Args:
        rows: normalised embeddings [K, E].
        columns: normalised embeddings [J, E].
        own: index [K] of the column that is the row itself; None keeps all columns. Leaving it
            out by selection rather than by -inf avoids 0 * -inf = NaN in the KL.
    """
    logits = rows @ columns.T / tau
    if own is None:
        return logits
    others = torch.ones_like(logits, dtype=torch.bool)
    others[torch.arange(len(rows), device=rows.device), own] = False
    return logits[others].view(len(rows), -1)


def row_kl(target: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(other)) of each row: logits [K, J] -> [K], in nats."""
    p, q = target.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def sar_loss(
    learned: Tensor,
    teacher: Tensor,
    settings: SAR,
    learned_columns: Tensor | None = None,
    teacher_columns: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the KL divergence between teacher and learned similarity rows.

    Args:
        learned: normalised embeddings of the drawn classes from the learnable prompt, [K, E].
        teacher: the same classes from the hand-crafted prompt, [K, E]; treated as constant.
        settings: temperature, diagonal and direction are read.
        learned_columns, teacher_columns: what rows compare with, [J, E]; None: the K themselves.
        own: the column of each row's own class, [K]; None: 0..K-1.

    Returns:
        A scalar >= 0, zero where both geometries agree.
    """
    if own is None:
        own = torch.arange(len(learned), device=learned.device)
    skip = own if settings.diagonal == "out" else None
    columns = learned if learned_columns is None else learned_columns
    fixed = teacher if teacher_columns is None else teacher_columns
    q = similarity_logits(learned, columns, settings.temperature, skip)
    p = similarity_logits(teacher.detach(), fixed.detach(), settings.temperature, skip)
    return (row_kl(p, q) if settings.direction == "teacher" else row_kl(q, p)).mean()


class Regulariser:
    """SAR for one run: draws the classes of each step and computes their loss.

    The classes are numbered base first, then novel. The draw has its own random numbers, so a
    run with SAR sees the same image batches as the run without.
    """

    def __init__(self, settings: SAR, teacher: Tensor, n_base: int, seed: int) -> None:
        self.settings, self.teacher, self.n_base = settings, teacher, n_base
        self.generator = stream(seed, "sar")
        self.pool = torch.arange(0 if settings.draw == "base+novel" else n_base, len(teacher))
        self.drawn: Tensor | None = None

    def draw(self) -> Tensor:
        """Sorted class numbers [K], uniform without replacement (all, if K exceeds the pool)."""
        if self.drawn is None or self.settings.redraw == "step":
            order = torch.randperm(len(self.pool), generator=self.generator)
            self.drawn = self.pool[order[: self.settings.sample]].sort().values
        return self.drawn

    def needed(self, drawn: Tensor) -> Tensor:
        """Class numbers whose learned text a step must encode for SAR, sorted."""
        return drawn if self.settings.columns == "sample" else torch.arange(len(self.teacher))

    def anchor(
        self, text: Tensor, numbers: Tensor, drawn: Tensor, images: Tensor
    ) -> Tensor | float:
        """What else to add to a step's loss: the paper has nothing, `sar_plus` has anchors."""
        return 0.0

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        """SAR loss, not yet weighted.

        Args:
            text: normalised learned embeddings [M, E] of the classes `numbers` [M], ascending.
            drawn: the classes of this step [K], a subset of `numbers`.
        """
        rows = torch.searchsorted(numbers, drawn)
        device = self.teacher.device
        if self.settings.columns == "sample":
            return sar_loss(text[rows.to(device)], self.teacher[drawn.to(device)], self.settings)
        columns = torch.searchsorted(numbers, self.needed(drawn))
        return sar_loss(
            text[rows.to(device)],
            self.teacher[drawn.to(device)],
            self.settings,
            text[columns.to(device)],
            self.teacher,
            drawn.to(device),
        )
