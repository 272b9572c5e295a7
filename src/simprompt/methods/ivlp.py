"""IVLP: independent deep prompts in both towers (Rasheed et al., CVPR 2023; MaPLe's baseline).

    text layer l sees  [SOT][v_l1] ... [v_lM][the rest of the words][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lN],        loss = CE(scale * cos)

Nothing couples the two; MaPLe makes the image tokens from the text tokens instead. Of the initial
words only the first M tokens are learned; the rest ("of a" in "a photo of a" with M = 2) stays, as
in the MaPLe repository's code.
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


class IVLPConfig(ContextConfig):
    """The MaPLe repository's settings; depths are cut to the layers the towers have."""

    n_ctx: int = Field(2, ge=1, le=64, description="M, text tokens a layer")
    n_tokens: int = Field(2, ge=1, description="N, image tokens a layer")
    text_depth: int = Field(12, ge=1, description="text layers with tokens of their own")
    depth: int = Field(12, ge=1, description="image layers with tokens of their own")


class IVLP(PromptLearner[IVLPConfig]):
    """Tokens in both towers, each by itself."""

    schedule = Training(lr=3.5e-3, epochs=5, batch_size=4)
    summary = "tokens at every layer of both towers, independently"
    source = "Rasheed et al., CVPR 2023; settings of the MaPLe repository"
    live_images = True
    image_tokens = True

    def build(self, clip: CLIP, config: IVLPConfig, seed: int) -> None:
        text = clip.config.text
        words = wording(clip, config, self.template, seed, keep_rest=True)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        fresh = min(config.text_depth, text.layers) - 1
        self.deep = deep_tokens(clip, "text", config.n_ctx, fresh, seed)
        layers = min(config.depth, vit(clip).layers)
        self.tokens = deep_tokens(clip, "image", config.n_tokens, layers, seed)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), list(self.deep)

    def unnormalized_images(self, images: Tensor) -> Tensor:
        features: Tensor = self.clip.visual(images, list(self.tokens))
        return features


LEARNER = IVLP
