"""VPT plus CoOp: tokens in every layer of the image tower, and a learned context for the text.

    image layer l sees [CLS][patches][p_l1] ... [p_lM];  prompt = [SOT][v_1] ... [v_N][name][.][EOT]

The smallest VPT whose text can move, so the one that SAR can be used with. Nobody's baseline:
the settings are those of the MaPLe repository's VPT, with the field's four context tokens.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.methods.base import PromptLearner, SharedPrompt
from simprompt.methods.parts import (
    ContextConfig,
    behind_sot,
    deep_tokens,
    vit,
    wording,
)


class VPTWithTextConfig(ContextConfig):
    """Depth is cut to the layers the image tower has."""

    n_tokens: int = Field(8, ge=1, description="image tokens a layer")
    depth: int = Field(12, ge=1, description="image layers with tokens of their own")


class VPTWithText(PromptLearner[VPTWithTextConfig]):
    """Tokens in the image tower and a context for the text."""

    schedule = Training(lr=2.5e-3, epochs=5, batch_size=4)
    summary = "M tokens a layer of the image tower, and context vectors of the text"
    source = "VPT (Jia et al., ECCV 2022) with CoOp's context (Zhou et al., IJCV 2022)"
    live_images = True
    image_tokens = True

    def build(self, clip: CLIP, config: VPTWithTextConfig, seed: int) -> None:
        depth = min(config.depth, vit(clip).layers)
        words = wording(clip, config, self.template, seed)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        self.tokens = deep_tokens(clip, "image", config.n_tokens, depth, seed)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), ()

    def unnormalized_images(self, images: Tensor) -> Tensor:
        features: Tensor = self.clip.visual(images, list(self.tokens))
        return features


LEARNER = VPTWithText
