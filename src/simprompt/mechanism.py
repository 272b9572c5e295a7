"""How far a learned prompt's class similarities are from the hand-crafted ones, as numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from simprompt.sar import row_kl, similarity_logits

TAU = 0.01  # of every run's rows, whatever SAR trained at, so that the numbers compare


def relations(learned: Tensor, teacher: Tensor, tau: float = TAU) -> dict[str, float]:
    """Compare two sets of normalised text embeddings [C, E] of the same classes.

    Returns:
        row_kl: mean KL(P_i || Q_i) of the similarity rows at `tau`, diagonal out, in nats.
        correlation: Pearson's r between the off-diagonal similarities.
        drift: mean cosine between each class's two embeddings; SAR does not see this one.
    """
    n = len(learned)
    if n < 3:
        nan = float("nan")
        return {"row_kl": nan, "correlation": nan, "drift": nan}
    learned, teacher = learned.cpu().double(), teacher.cpu().double()  # not every GPU has float64
    own = torch.arange(n)
    q = similarity_logits(learned, learned, tau, own)
    p = similarity_logits(teacher, teacher, tau, own)
    above = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
    pair = torch.stack([(learned @ learned.T)[above], (teacher @ teacher.T)[above]])
    return {
        "row_kl": row_kl(p, q).mean().item(),
        "correlation": torch.corrcoef(pair)[0, 1].item(),
        "drift": (learned * teacher).sum(-1).mean().item(),
    }
