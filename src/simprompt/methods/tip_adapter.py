"""Tip-Adapter-F: a key-value cache of the shots beside zero-shot CLIP (Zhang et al., ECCV 2022).

    logits = scale * x h^T + alpha * exp(-beta (1 - x K^T)) Y,   loss = CE

K [N, E] starts as the mean feature of each training image's views and is learned; Y [N, C] are
the images' labels, one-hot; h is the hand-crafted prompt's. A yardstick for the base classes: a
new class has no shots to put into the cache. The authors go on to search alpha and beta on
validation data and keep the best epoch on test data; here both stay and the last epoch counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Settings, Training
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch, PromptLearner
from simprompt.methods.parts import own_columns
from simprompt.utils.devices import to_device
from simprompt.utils.optimizers import AdamW


class TipAdapterConfig(Settings):
    """The paper's alpha and beta."""

    alpha: float = Field(1.0, ge=0, description="of the cache's logits")
    beta: float = Field(5.5, gt=0, description="how fast a key's say falls with distance")
    eps: float = Field(1e-4, gt=0, description="of AdamW")


class TipAdapter(PromptLearner[TipAdapterConfig]):
    """A cache of the shots beside zero-shot; answers for no other name."""

    schedule = Training(lr=1e-3, epochs=20, batch_size=256, weight_decay=0.01)
    summary = "the keys of a cache: one feature a training image"
    source = "Zhang et al., ECCV 2022"
    text_moves = False
    new_classes = False

    def build(self, clip: CLIP, config: TipAdapterConfig, seed: int) -> None:
        reference = clip.logit_scale
        # one key a class stands in until `prepare` or a saved state says how many images there are
        self.keys = nn.Parameter(reference.new_zeros(len(self.classnames), clip.embed_dim))
        self.labels: Tensor
        self.register_buffer("labels", torch.arange(len(self.classnames), device=reference.device))

    def prepare(self, images: Images, labels: Tensor) -> None:
        assert isinstance(images, Tensor)
        device = self.clip.device
        self.keys = nn.Parameter(to_device(F.normalize(images.mean(1), dim=-1), device))
        self.labels = to_device(labels, device).clone()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        saved = state.get(f"{prefix}keys")
        if saved is not None and saved.shape[1:] == self.keys.shape[1:]:
            self.keys = nn.Parameter(self.keys.new_empty(saved.shape))
            self.labels = self.labels.new_empty(len(saved))
        super()._load_from_state_dict(state, prefix, *rest)

    def cache_logits(self, image: Tensor) -> Tensor:
        """alpha times the cache's logits, [B, C]."""
        values = F.one_hot(self.labels, len(self.classnames)).to(image.dtype)
        near = torch.exp(-self.config.beta * (1 - image @ self.keys.T))
        return self.config.alpha * near @ values

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        text = self.text_of_base(batch.images) if text is None else text
        logits = self.logits(batch.images, text) + self.cache_logits(batch.images)
        return self.cross_entropy(logits, batch.labels)

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        columns = own_columns(names, self.classnames, "Tip-Adapter has shots of", "it was")
        image = F.normalize(unnormalized, dim=-1)
        return self.logits(image, text) + self.cache_logits(image)[:, columns]

    def no_linear_head(self, names: Sequence[str]) -> str | None:
        return (
            "its cache is not a linear function of an image feature" if self.config.alpha else None
        )

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        return AdamW(
            self.parameters(),
            lr=settings.lr,
            eps=self.config.eps,
            weight_decay=settings.weight_decay,
        )


LEARNER = TipAdapter
