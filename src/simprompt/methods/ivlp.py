"""IVLP: independent deep prompts in both towers (Rasheed et al., CVPR 2023; MaPLe's baseline).

    text layer l sees  [SOT][v_l1] ... [v_lM][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lN],        loss = CE(scale * cos)

Nothing couples the two; MaPLe makes the image tokens from the text tokens instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Settings, Training
from simprompt.methods.base import PromptLearner, SharedPrompt
from simprompt.methods.parts import (
    ContextConfig,
    behind_sot,
    deep_tokens,
    image_layers,
    initial_context,
    prompted_images,
)


class IVLPConfig(ContextConfig):
    """The MaPLe repository's settings; depths are cut to the layers the towers have."""

    n_ctx: int = Field(2, ge=1, le=64, description="M, text tokens a layer")
    n_tokens: int = Field(2, ge=1, description="N, image tokens a layer")
    text_depth: int = Field(12, ge=1, description="text layers with tokens of their own")
    depth: int = Field(12, ge=1, description="image layers with tokens of their own")


class IVLP(PromptLearner):
    Config = IVLPConfig
    schedule = Training(lr=3.5e-3, epochs=5, batch_size=4)
    learned = "tokens at every layer of both towers, independently"
    source = "Rasheed et al., CVPR 2023; settings of the MaPLe repository"
    live_images = True

    def __init__(
        self, clip: CLIP, classnames: Sequence[str], template: str, config: Settings, seed: int = 0
    ) -> None:
        super().__init__(clip, classnames, template, config, seed)
        assert isinstance(config, IVLPConfig)
        text, vision = clip.config.text, clip.config.vision
        context = initial_context(clip, config.n_ctx, config.init, template, seed)
        self.ctx = nn.Parameter(context.to(clip.device))
        fresh = min(config.text_depth, text.layers) - 1
        self.deep = deep_tokens(clip, text.width, config.n_ctx, fresh, seed + 1000)
        layers = min(config.depth, image_layers(clip))
        self.tokens = deep_tokens(clip, vision.width, config.n_tokens, layers, seed + 2000)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx), list(self.deep)

    def image_features(self, images: Tensor) -> Tensor:
        return prompted_images(self.clip, images, list(self.tokens))


LEARNER = IVLP
