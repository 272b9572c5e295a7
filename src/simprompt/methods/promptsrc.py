"""PromptSRC: IVLP kept near frozen CLIP in three ways, and averaged (Khattak et al., ICCV 2023).

    loss = CE + 25 mean|t - h| + 10 mean|x - x0| + KL(softmax z || softmax s) / (B C)

with t, x the prompted text and image features, h, x0 the frozen ones, s, z their logits; h is the
average of 60 templates. The sum of KL over the batch is divided by B C as in the authors' code. At
the end the weights become a Gaussian-weighted average over the epochs.

Initial words beyond the M context tokens stay in the prompt, as in IVLP.

x0 of every training view is computed once before training. h is this learner's teacher, so it is
also what SAR aligns with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.config import Template, Training
from simprompt.features.pixels import Images, in_order
from simprompt.methods.base import Batch
from simprompt.methods.context_prompt import TwoTowerConfig, TwoTowerPrompt
from simprompt.methods.teacher import IMAGENET_60, Teacher


class PromptSRCConfig(TwoTowerConfig):
    """PromptSRC's base-to-new settings; depths are cut to the layers the towers have."""

    n_tokens: int = Field(4, ge=1, description="image tokens a layer")
    text_depth: int = Field(9, ge=1, description="text layers with tokens of their own")
    depth: int = Field(9, ge=1, description="image layers with tokens of their own")
    text_weight: float = Field(25.0, ge=0)
    image_weight: float = Field(10.0, ge=0)
    logit_weight: float = Field(1.0, ge=0)
    average_mean: float = Field(15.0, description="epoch with the largest weight in the average")
    average_std: float = Field(1.0, gt=0, description="in epochs")
    templates: tuple[Template, ...] | None = Field(None, description="of the teacher; None: the 60")


class PromptSRC(TwoTowerPrompt[PromptSRCConfig]):
    """IVLP that is held near frozen CLIP and averaged over epochs."""

    schedule = Training(lr=2.5e-3, epochs=20, batch_size=4)
    summary = "tokens at the first layers of both towers, averaged over epochs"
    source = "Khattak et al., ICCV 2023"

    def build(self, clip: CLIP, config: PromptSRCConfig, seed: int) -> None:
        super().build(clip, config, seed)
        self.frozen = torch.empty(0)

    @cached_property
    def teacher(self) -> Teacher:
        templates = self.config.templates or IMAGENET_60
        return Teacher(self.clip, templates, unnormalized=True, names=self.classnames)

    def prepare(self, images: Images, labels: Tensor) -> None:
        chunks = in_order(images, "frozen features of the training images")
        frozen = torch.cat([self.clip.encode_pixels(chunk) for chunk in chunks])
        self.frozen = frozen.unflatten(0, images.shape[:2])  # [N, M, E]

    def extra_loss(self, batch: Batch, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        h = self.teacher(self.classnames)
        if batch.rows is None:
            x0 = self.clip.encode_pixels(batch.images)
        else:
            x0 = self.frozen[batch.rows, batch.views]
        zero_shot = self.logits(x0, h)
        s = self.config
        kl = F.kl_div(
            logits.log_softmax(-1), zero_shot.log_softmax(-1), reduction="sum", log_target=True
        )
        return (
            s.text_weight * F.l1_loss(text, h)
            + s.image_weight * F.l1_loss(image, x0)
            + s.logit_weight * kl / logits.numel()
        )

    def epoch_weights(self, epochs: int) -> Sequence[float]:
        if self.config.average:
            return super().epoch_weights(epochs)
        return averaging_weights(epochs, self.config.average_mean, self.config.average_std)


def averaging_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Gaussian density at 1..epochs, scaled to sum 1 (a softmax, which cannot underflow to 0)."""
    at = torch.arange(1, epochs + 1, dtype=torch.float64)
    weights: list[float] = (-((at - mean) ** 2) / (2 * std**2)).softmax(0).tolist()
    return weights


LEARNER = PromptSRC
