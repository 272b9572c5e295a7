"""KgCoOp: CoOp that stays near the hand-crafted prompt (Yao et al., CVPR 2023).

    loss = CE(scale * cos) + weight * (1 - mean_i cos(t_i, h_i))

over the base classes i, with t_i from the learned context and h_i from the hand-crafted prompt.
On unit vectors 1 - cos is half the squared distance that the paper writes down. Each class is
held in place by itself, where SAR holds the relations between classes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from simprompt.config import Training
from simprompt.methods.base import Batch
from simprompt.methods.context_prompt import SharedContext
from simprompt.methods.parts import ContextConfig


class KgCoOpConfig(ContextConfig):
    """KgCoOp's settings; the published `init` is "a photo of a" (recipe kgcoop@paper)."""

    weight: float = Field(8.0, ge=0, description="of the distance to the hand-crafted features")


class KgCoOp(SharedContext[KgCoOpConfig]):
    """CoOp with every base class held near its hand-crafted text."""

    schedule = Training(lr=2e-3, epochs=100, batch_size=128)
    summary = "M context vectors, shared by all classes"
    source = "Yao et al., CVPR 2023"

    def extra_loss(self, batch: Batch, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        return self.config.weight * knowledge_distance(text, self.teacher(self.classnames))


def knowledge_distance(text: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean cosine of normalised [C, E] (or [B, C, E]) and [C, E]; 0 where they agree, <= 2."""
    return 1 - (text * teacher).sum(-1).mean()


LEARNER = KgCoOp
