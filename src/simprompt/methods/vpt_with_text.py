"""VPT plus CoOp: tokens in every layer of the image tower, and a learned context for the text.

    image layer l sees [CLS][patches][p_l1] ... [p_lM];  prompt = [SOT][v_1] ... [v_N][name][.][EOT]

The smallest VPT whose text can move, so the one that SAR can be used with. Nobody's baseline:
the settings are those of the MaPLe repository's VPT, with the field's four context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.methods.context_prompt import SharedContext
from simprompt.methods.parts import ContextConfig, deep_tokens, vit


class VPTWithTextConfig(ContextConfig):
    """Depth is cut to the layers the image tower has."""

    n_tokens: int = Field(8, ge=1, description="image tokens a layer")
    depth: int = Field(12, ge=1, description="image layers with tokens of their own")


class VPTWithText(SharedContext[VPTWithTextConfig]):
    """Tokens in the image tower and a context for the text."""

    schedule = Training(lr=2.5e-3, epochs=5, batch_size=4)
    summary = "M tokens a layer of the image tower, and context vectors of the text"
    source = "VPT (Jia et al., ECCV 2022) with CoOp's context (Zhou et al., IJCV 2022)"
    image_input = "pixels"
    image_tokens = True

    def build(self, clip: CLIP, config: VPTWithTextConfig, seed: int) -> None:
        super().build(clip, config, seed)
        depth = min(config.depth, vit(clip).layers)
        self.tokens = deep_tokens(clip, "image", config.n_tokens, depth, seed)

    def visual_tokens(self) -> Sequence[Tensor]:
        return list(self.tokens)


LEARNER = VPTWithText
