"""MaPLe: deep prompts of the image tower are made from those of the text (Khattak et al. 2023).

    text layer l sees  [SOT][v_l1] ... [v_lM][the rest of the words][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lM],   p_l = A_l v_l + b_l,  l < depth
    loss = CE(scale * cos)

Learned are v_l [M, W] and the coupling maps A_l, b_l. Of the initial words only the first M tokens
are learned; the rest ("of a" in "a photo of a" with M = 2) stays in the prompt as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.methods.context_prompt import DeepContext
from simprompt.methods.parts import ContextConfig, like_model, seeded, vit


class MaPLeConfig(ContextConfig):
    """MaPLe's settings, as published; depth is cut to the layers the towers have."""

    n_ctx: int = Field(2, ge=1, le=64, description="M, tokens a layer")
    depth: int = Field(9, ge=1, description="J, layers with tokens of their own")


class MaPLe(DeepContext[MaPLeConfig]):
    """Tokens in both towers, the image side made from the text side."""

    schedule = Training(lr=3.5e-3, epochs=5, batch_size=4)
    summary = "text tokens at the first J layers, and linear maps from them to image tokens"
    source = "Khattak et al., CVPR 2023"
    image_input = "pixels"
    image_tokens = True

    def text_depth(self, config: MaPLeConfig) -> int:
        return min(config.depth, self.clip.config.text.layers, vit(self.clip).layers)

    def build(self, clip: CLIP, config: MaPLeConfig, seed: int) -> None:
        super().build(clip, config, seed)
        widths = clip.config.text.width, vit(clip).width
        with seeded(seed, "coupling"):
            maps = nn.ModuleList(nn.Linear(*widths) for _ in range(self.text_depth(config)))
        self.coupling = like_model(clip, maps)

    def visual_tokens(self) -> Sequence[Tensor]:
        assert isinstance(self.coupling, nn.ModuleList)
        layers = [self.ctx, *self.deep]
        return [couple(v) for couple, v in zip(self.coupling, layers, strict=True)]


LEARNER = MaPLe
