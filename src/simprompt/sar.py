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

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from simprompt.config import SAR
from simprompt.utils.devices import to_device
from simprompt.utils.seeds import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from simprompt.methods.base import PromptLearner


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
    indices = torch.arange(len(columns) - 1, device=rows.device)
    # picked by number: a mask would have its size read from the device
    return logits.gather(1, indices + (indices >= own[:, None]))


def row_kl(target: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(other)) of each row: logits [K, J] -> [K], in nats."""
    # in logarithms: at tau 0.01 probabilities underflow to 0, and 0 * log 0 would be NaN
    p, q = target.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def sar_loss(learned: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of the KL divergence from teacher to learned similarity rows.

    Args:
        learned: normalised embeddings of the drawn classes from the learnable prompt, [K, E].
        teacher: the same classes from the hand-crafted prompt, [K, E]; treated as constant.
        temperature: tau.

    Returns:
        A scalar >= 0, zero where both geometries agree.
    """
    diagonal = torch.arange(len(learned), device=learned.device)
    p = similarity_logits(teacher.detach(), teacher.detach(), temperature, diagonal)
    q = similarity_logits(learned, learned, temperature, diagonal)
    return row_kl(p, q).mean()


class Regulariser:
    """SAR for one run; the base of all regularisers.

    It draws the classes of each step and computes their loss.

    The classes are numbered base first, then novel. The draw has its own random numbers, so a
    run with SAR sees the same image batches as the run without.

    Args:
        settings: weight, temperature and sample are read.
        teacher: normalised embeddings [C, E] of all classes from the hand-crafted prompt.
        n_base: how many of them are base classes.
        seed: of the draws.
    """

    Config: ClassVar[type[SAR]] = SAR

    def __init__(self, settings: SAR, teacher: Tensor, n_base: int, seed: int) -> None:
        self.settings, self.teacher, self.n_base = settings, teacher, n_base
        self.generator = stream(seed, "sar")
        self.pool = torch.arange(len(teacher))

    @classmethod
    def build(
        cls,
        settings: SAR,
        learner: PromptLearner[Any],
        names: Sequence[str],
        templates: Sequence[str] = (),
        seed: int = 0,
    ) -> Self:
        """The regulariser of a run.

        Args:
            names: the base classes of the learner, then the novel ones.
            templates: those of the dataset.
        """
        return cls(settings, learner.teacher(names), len(learner.classnames), seed)

    def draw(self) -> Tensor:
        """Sorted class numbers [K], uniform without replacement (all, if K exceeds the pool)."""
        # sorted, since `loss` finds its rows by binary search
        order = torch.randperm(len(self.pool), generator=self.generator)
        return self.pool[order[: self.settings.classes_per_step]].sort().values

    def state_dict(self) -> dict[str, Any]:
        """What changes in it while a run is trained, for a checkpoint."""
        return {"stream": self.generator.get_state()}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what `kept` gave."""
        self.generator.set_state(kept["stream"])

    def needed(self, drawn: Tensor) -> Tensor:
        """Class numbers whose learned text a step must encode for SAR, sorted."""
        return drawn

    def share(self) -> float:
        """The part of all classes that a step needs, on average."""
        return min(1.0, self.settings.classes_per_step / len(self.pool))

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        """SAR loss, not yet weighted.

        Args:
            text: normalised learned embeddings [M, E] of the classes `numbers` [M], ascending.
            drawn: the classes of this step [K], a subset of `numbers`. Both are on the CPU.
        """
        rows = to_device(torch.searchsorted(numbers, drawn), text.device)
        teacher = self.teacher[to_device(drawn, self.teacher.device)]
        return sar_loss(text[rows], teacher, self.settings.temperature)

    def anchor(
        self, text: Tensor, numbers: Tensor, drawn: Tensor, images: Tensor
    ) -> Tensor | float:
        """What else to add to a step's loss: the paper has nothing, `sar_plus` has anchors."""
        return 0.0


COMPARED_TAU = 0.01  # temperature of the rows in every result, whatever SAR trained with


def relations(learned: Tensor, teacher: Tensor, tau: float = COMPARED_TAU) -> dict[str, float]:
    """Compare two sets of normalised text embeddings [C, E] of the same classes.

    Returns:
        row_kl: mean KL(P_i || Q_i) of the similarity rows at `tau`, diagonal out, in nats.
        correlation: Pearson's r between the off-diagonal similarities.
        drift: mean cosine between each class's two embeddings; SAR does not see this one.
    """
    n = len(learned)
    if n < 3:  # a row of two classes has one entry, whose softmax is 1 whatever it is
        nan = float("nan")
        return {"row_kl": nan, "correlation": nan, "drift": nan}
    learned, teacher = learned.cpu().double(), teacher.cpu().double()  # not every GPU has float64
    diagonal = torch.arange(n)
    q = similarity_logits(learned, learned, tau, diagonal)
    p = similarity_logits(teacher, teacher, tau, diagonal)
    # the matrices are symmetric: each pair counts once
    above = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
    pair = torch.stack([(learned @ learned.T)[above], (teacher @ teacher.T)[above]])
    return {
        "row_kl": row_kl(p, q).mean().item(),
        "correlation": torch.corrcoef(pair)[0, 1].item(),
        "drift": (learned * teacher).sum(-1).mean().item(),
    }
