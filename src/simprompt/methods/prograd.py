"""ProGrad: CoOp that never steps against zero-shot CLIP (Zhu et al., ICCV 2023).

    g = g_ce                                        where g_ce . g_kl >= 0
    g = g_ce - lambda (g_ce . u) u,  u = g_kl/|g_kl|   otherwise
    g_kl = gradient of T^2 mean_b CE(softmax(z_b / T), softmax(s_b / T))

with s the learned logits and z those of the hand-crafted prompt. A regulariser beside it, such as
SAR, is not projected: its gradient is added to g.

The authors' code counts the template's words, not its tokens. Where a comma is a token of its own
("a type of pet, a photo of a") the start of the context loses the last token, which stays fixed
between context and name; `count: words` does as they do.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simprompt.config import Training
from simprompt.methods.base import Batch
from simprompt.methods.context_prompt import SharedContext
from simprompt.methods.parts import ContextConfig, Wording, wording


class ProGradConfig(ContextConfig):
    """ProGrad's settings: 16 tokens, the template's words last, zeros before them."""

    n_ctx: int = Field(16, ge=1, le=64, description="M, context tokens")
    strength: float = Field(1.0, ge=0, description="lambda; 0.8 in some published 8-16-shot runs")
    temperature: float = Field(1.0, gt=0, description="T")
    count: Literal["tokens", "words"] = Field(
        "tokens", description="how many of the template are learned; 'words' as the authors count"
    )


class ProGrad(SharedContext[ProGradConfig]):
    """CoOp whose steps never go against zero-shot CLIP."""

    schedule = Training(lr=2e-3, epochs=100, batch_size=32)
    summary = "M context vectors, shared by all classes"
    source = "Zhu et al., ICCV 2023"

    def initial_wording(self, config: ProGradConfig, seed: int) -> Wording:
        by_words = config.count == "words"
        return wording(self.clip, config, self.template, seed, fill_with="zeros", by_words=by_words)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        """A scalar with the value of the cross-entropy and the gradient g."""
        text = self.text_of_base(batch.images) if text is None else text
        logits = self.logits(batch.images, text)
        zero_shot = self.logits(batch.images, self.teacher(self.classnames))
        ce = self.cross_entropy(logits, batch.labels)
        kl = distillation(logits, zero_shot, self.config.temperature)
        (g_ce,) = torch.autograd.grad(ce, self.ctx, retain_graph=True)
        (g_kl,) = torch.autograd.grad(kl, self.ctx, retain_graph=True)
        g = project(g_ce, g_kl, self.config.strength)
        # value: ce; gradient: g. What is added to this loss differentiates as usual.
        return ce.detach() + ((self.ctx - self.ctx.detach()) * g).sum()


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean cross-entropy of softmax(logits / T) under softmax(teacher / T)."""
    target = (teacher / temperature).softmax(-1)
    return temperature**2 * F.cross_entropy(logits / temperature, target)


def project(g: Tensor, general: Tensor, strength: float) -> Tensor:
    """g without (`strength` times) its part against `general`; g itself if they agree."""
    along = (g * general).sum()
    against = g - strength * along / (general * general).sum() * general
    return torch.where(along >= 0, g, against)  # chosen where they are: an `if` would wait for them


LEARNER = ProGrad
