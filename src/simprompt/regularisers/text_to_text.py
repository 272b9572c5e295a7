"""Text-to-text classification: each learned text is to be recognised among the hand-crafted ones.

    loss = mean over the drawn classes i of CE(softmax over all classes j of t_i . h_j / tau, i)

t_i is the learned text feature of class i and h_j the hand-crafted one of class j, base and novel
classes alike. After LASP (Bulat and Tzimiropoulos, CVPR 2023), SAR's nearest relative: it holds
each text at its place among the others, where SAR holds the similarities among the learned texts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simprompt.config import SAR
from simprompt.sar import Regulariser
from simprompt.utils.devices import to_device


class TextToTextConfig(SAR):
    """The settings of text-to-text classification."""

    weight: float = Field(1.0, ge=0, description="weight of the loss")
    temperature: float = Field(0.01, gt=0, description="tau: 0.01 is CLIP's own")


class TextToText(Regulariser):
    """Cross-entropy of learned text against all hand-crafted texts."""

    Config = TextToTextConfig

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        rows = to_device(torch.searchsorted(numbers, drawn), text.device)
        logits = text[rows] @ self.teacher.T.to(text.dtype) / self.settings.temperature
        return F.cross_entropy(logits, to_device(drawn, text.device))


REGULARISER = TextToText
