"""CoCoOp: every image shifts the context a little (Zhou et al., CVPR 2022).

    v_m(x) = v_m + pi(x),   pi = Linear(E, E/16), ReLU, Linear(E/16, W),   loss = CE(scale * cos)

x is the normalised image feature, so each image of a batch has its own text features of every
class. The images of a batch run through the text tower together, each with its own shared prefix;
the class names behind them are embedded once.

Only the text features without pi, those of the context alone, exist without an image. SAR looks at
those (`regularised: context`) or at the features under the batch's mean shift (`batch-mean`).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.config import Training
from simprompt.methods.base import Batch
from simprompt.methods.context_prompt import ContextPrompt
from simprompt.methods.parts import ContextConfig, behind_sot, like_model, seeded


class CoCoOpConfig(ContextConfig):
    """CoCoOp's settings; the published `init` is "a photo of a" (recipe cocoop@paper)."""

    regularised: Literal["context", "batch-mean"] = Field(
        "context", description="the text features SAR sees: without pi, or under the mean of pi"
    )


class CoCoOp(ContextPrompt[CoCoOpConfig]):
    """A context that every image shifts; `regularised` says what SAR looks at."""

    schedule = Training(lr=2e-3, epochs=10, batch_size=1)
    summary = "M context vectors, and a two-layer net that shifts them for every image"
    source = "Zhou et al., CVPR 2022"
    conditional = True

    def build(self, clip: CLIP, config: CoCoOpConfig, seed: int) -> None:
        super().build(clip, config, seed)
        e, w = clip.embed_dim, clip.config.text.width
        hidden = max(1, e // 16)
        with seeded(seed, "net"):
            net = nn.Sequential(nn.Linear(e, hidden), nn.ReLU(), nn.Linear(hidden, w))
        self.meta_net = like_model(clip, net)
        self.batch_mean = config.regularised == "batch-mean"
        if not self.batch_mean:
            self.sar_note = (
                "SAR sees CoCoOp's context without the shift of any image, so the net that makes "
                "the shift is not regularised; options.regularised=batch-mean includes its mean."
            )

    def unnormalized_text(self, prompts: Suffixes) -> Tensor:
        return self.encode(self.ctx, prompts)

    def unnormalized_conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        return self.encode(self.ctx + self.meta_net(image)[:, None], prompts)  # ctx [B, M, W]

    def regularised_text(self, prompts: Suffixes, batch: Batch) -> Tensor:
        if not self.batch_mean:
            return self.text_features(prompts)
        text = self.encode(self.ctx + self.meta_net(batch.images).mean(0), prompts)
        return F.normalize(text, dim=-1)

    def encode(self, ctx: Tensor, prompts: Suffixes) -> Tensor:
        """Text features of the classes behind each of B contexts."""
        return self.clip.text.encode(behind_sot(self.clip, ctx, self.rest), prompts)


LEARNER = CoCoOp
