"""TCP: tokens made from what CLIP knows of each class (Yao et al., CVPR 2024).

    [T_i1] ... [T_iM] = Linear(E, E/4), QuickGELU, Linear(E/4, M W)  of h_i
    they take the context positions of class i in front of text layer L (8 of 12)
    loss = CE(scale * cos) + weight * (1 - mean_i cos(t_i, h_i))

h_i is the hand-crafted feature, so a class never seen gets its tokens from its own h_i. Below
layer L all classes share [SOT][context]; above it only SOT. Behind the name stands the template's
tail ("a photo of a {}, a type of pet." ends every prompt in ", a type of pet."), unless a student
template says otherwise: the authors' student and teacher differ on four datasets, and the sets
`tcp-student` and `tcp-teacher` have both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import ClassTokens
from simprompt.clip.transformer import activate
from simprompt.config import Training
from simprompt.methods.base import Batch, TextForm
from simprompt.methods.context_prompt import ContextPrompt
from simprompt.methods.parts import (
    ContextConfig,
    Wording,
    behind_sot,
    like_model,
    seeded,
    wording,
)
from simprompt.utils.optimizers import Adam


class TCPConfig(ContextConfig):
    """TCP's settings, as published."""

    init: str = Field("random", description="'random': N(0, 0.02); 'template'; else the words")
    layer: int | None = Field(
        None, ge=1, description="L, counted from 0; None: two thirds up, 8 of 12"
    )
    weight: float = Field(8.0, ge=0, description="of the distance to the hand-crafted features")
    eps: float = Field(1e-3, gt=0, description="of Adam, as the authors patched it in")


class TCP(ContextPrompt[TCPConfig]):
    """A context that is made from each class's hand-crafted feature."""

    schedule = Training(lr=2e-3, epochs=50, batch_size=32)
    summary = "M context vectors, and a two-layer net from class features to class tokens"
    source = "Yao et al., CVPR 2024"

    def initial_wording(self, config: TCPConfig, seed: int) -> Wording:
        tail = self.template.partition("{}")[2] or "."
        return wording(self.clip, config, self.template, seed, tail=tail)

    def build(self, clip: CLIP, config: TCPConfig, seed: int) -> None:
        super().build(clip, config, seed)
        sizes = clip.config.text
        self.layer = min(config.layer or max(1, sizes.layers * 2 // 3), sizes.layers - 1)
        e, hidden = clip.embed_dim, max(1, clip.embed_dim // 4)
        with seeded(seed, "net"):
            net = [nn.Linear(e, hidden), nn.Linear(hidden, config.n_ctx * sizes.width)]
        self.down, self.up = (like_model(clip, layer) for layer in net)

    def prompts(self, names: Sequence[str]) -> Suffixes:
        # only SOT is shared above layer L, so words that stay belong to every class
        suffixes = super().prompts(names)
        return Suffixes(suffixes.names, tuple((*self.rest, *ids) for ids in suffixes.ids))

    def unnormalized_text(self, prompts: Suffixes) -> Tensor:
        switch = self.class_tokens(self.teacher(prompts.names))
        prefix = behind_sot(self.clip, self.ctx)
        return self.clip.text.encode(prefix, prompts, switch=switch)

    def text_form(self) -> TextForm | str:
        if self.crafted_share is not None:
            return super().text_form()
        (hand_crafted,) = self.teacher.templates
        return TextForm(
            "{}" + self.tail,
            behind_sot(self.clip, self.ctx),
            self.rest,
            class_tokens=self.class_tokens,
            hand_crafted=hand_crafted,
        )

    def class_tokens(self, h: Tensor) -> ClassTokens:
        """The tokens of classes with the normalised hand-crafted features h [C, E]."""
        tokens = self.up(activate(self.down(h), "quick_gelu"))
        return ClassTokens(tokens.unflatten(1, self.ctx.shape), self.layer)  # [C, M, W]

    def extra_loss(self, batch: Batch, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        return self.config.weight * (1 - (text * self.teacher(self.classnames)).sum(-1).mean())

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        return Adam(
            self.parameters(),
            lr=settings.lr,
            eps=self.config.eps,
            weight_decay=settings.weight_decay,
        )


LEARNER = TCP
