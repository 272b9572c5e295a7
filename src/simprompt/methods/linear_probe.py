"""Linear probe: a softmax classifier on frozen image features (Radford et al., ICML 2021).

    loss = CE(scale * x W^T + b),   W [C, E] and b [C] start at zero

A yardstick for the base classes; it says nothing of any other class. CLIP's authors fit it with
L-BFGS and choose the penalty on validation data; here it takes Adam steps with fixed settings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Settings, Training
from simprompt.methods.base import Batch, PromptLearner
from simprompt.methods.parts import own_columns
from simprompt.utils.optimizers import Adam


class LinearProbeConfig(Settings):
    """The probe has no settings but its training."""


class LinearProbe(PromptLearner[LinearProbeConfig]):
    """A linear classifier of the base classes; answers for no other name."""

    schedule = Training(lr=1e-3, epochs=50, batch_size=32)
    summary = "a linear classifier of the base classes on image features"
    source = "Radford et al., ICML 2021"
    text_moves = False
    new_classes = False

    def build(self, clip: CLIP, config: LinearProbeConfig, seed: int) -> None:
        reference = clip.logit_scale
        self.weight = nn.Parameter(reference.new_zeros(len(self.classnames), clip.embed_dim))
        self.bias = nn.Parameter(reference.new_zeros(len(self.classnames)))

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        return self.cross_entropy(self.all_logits(batch.images), batch.labels)

    def all_logits(self, image: Tensor) -> Tensor:
        """Of all base classes, [B, C], for image features [B, E]."""
        return self.clip.scaled(image) @ self.weight.T + self.bias

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        columns = own_columns(names, self.classnames, "A linear probe knows", "it was")
        return self.all_logits(F.normalize(unnormalized, dim=-1))[:, columns]

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        return Adam(self.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)


LEARNER = LinearProbe
