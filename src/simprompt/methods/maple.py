"""MaPLe: deep prompts of the image tower are made from those of the text (Khattak et al. 2023).

    text layer l sees  [SOT][v_l1] ... [v_lM][the rest of the words][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lM],   p_l = A_l v_l + b_l,  l < depth
    loss = CE(scale * cos)

Learned are v_l [M, W] and the coupling maps A_l, b_l. Of the initial words only the first M tokens
are learned; the rest ("of a" in "a photo of a" with M = 2) stays in the prompt as it is.
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
    like_model,
    seeded,
    vit,
    wording,
)


class MaPLeConfig(ContextConfig):
    """MaPLe's settings, as published; depth is cut to the layers the towers have."""

    n_ctx: int = Field(2, ge=1, le=64, description="M, tokens a layer")
    depth: int = Field(9, ge=1, description="J, layers with tokens of their own")


class MaPLe(PromptLearner[MaPLeConfig]):
    """Tokens in both towers, the image side made from the text side."""

    schedule = Training(lr=3.5e-3, epochs=5, batch_size=4)
    summary = "text tokens at the first J layers, and linear maps from them to image tokens"
    source = "Khattak et al., CVPR 2023"
    live_images = True
    image_tokens = True

    def build(self, clip: CLIP, config: MaPLeConfig, seed: int) -> None:
        text, vision = clip.config.text, vit(clip)
        depth = min(config.depth, text.layers, vision.layers)
        words = wording(clip, config, self.template, seed, keep_rest=True)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        self.deep = deep_tokens(clip, "text", config.n_ctx, depth - 1, seed)
        with seeded(seed, "coupling"):
            maps = nn.ModuleList(nn.Linear(text.width, vision.width) for _ in range(depth))
        self.coupling = like_model(clip, maps)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), list(self.deep)

    def unnormalized_images(self, images: Tensor) -> Tensor:
        assert isinstance(self.coupling, nn.ModuleList)
        layers = [self.ctx, *self.deep]
        tokens = [couple(v) for couple, v in zip(self.coupling, layers, strict=True)]
        features: Tensor = self.clip.visual(images, tokens)
        return features


LEARNER = MaPLe
