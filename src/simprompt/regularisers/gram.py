"""Gram matching: the similarities of the learned text are those of the hand-crafted text.

    loss = mean over drawn classes i, and j != i, of (t_i . t_j - h_i . h_j)^2 / (2 tau^2)

t_i is the learned text feature of class i and h_i the hand-crafted one. It is SAR's loss to second
order where every class is as similar to class i as any other: KL between two softmaxes is half the
variance of the difference of their logits. SAR weighs near classes more, and does not mind a
constant added to a row; this one weighs all alike.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from simprompt.config import SAR
from simprompt.sar import Regulariser, similarity_logits
from simprompt.utils.devices import to_device


class GramConfig(SAR):
    """The settings of Gram matching."""

    weight: float = Field(0.02, ge=0, description="weight of the loss")
    temperature: float = Field(0.01, gt=0, description="tau: similarities are divided by it")


class Gram(Regulariser):
    """Squared differences of similarities, all pairs alike."""

    Config = GramConfig

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        learned = text[to_device(torch.searchsorted(numbers, drawn), text.device)]
        crafted = self.teacher[to_device(drawn, self.teacher.device)].to(learned)
        own = torch.arange(len(drawn), device=text.device)
        tau = self.settings.temperature
        now = similarity_logits(learned, learned, tau, own)
        wanted = similarity_logits(crafted, crafted, tau, own)
        return (now - wanted).square().sum() / (2 * max(1, now.numel()))


REGULARISER = Gram
