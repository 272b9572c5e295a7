"""VPT: learn extra tokens of the image tower, leave the text alone (Jia et al., ECCV 2022).

    layer l sees [CLS][patches][p_l1] ... [p_lM],   loss = CE(scale * cos)

Deep: fresh tokens take the place of the former layer's at each of the first `depth` layers;
shallow: depth 1. As the baseline of the MaPLe paper: the tokens stand behind the patches, and the
text features are those of "a photo of a {}." on every dataset, fixed. SAR therefore has nothing
to move here; `vpt+text` learns a context as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.config import Settings, Training
from simprompt.methods.base import PromptLearner
from simprompt.methods.parts import deep_tokens, vit
from simprompt.methods.teacher import Teacher


class VPTConfig(Settings):
    """The MaPLe repository's VPT; depth is cut to the layers the image tower has."""

    n_tokens: int = Field(8, ge=1, description="M, tokens a layer")
    depth: int = Field(12, ge=1, description="layers with tokens of their own; 1 is shallow")
    text: str | None = Field("a photo of a {}.", description="the prompt; None: the run's template")


class VPT(PromptLearner[VPTConfig]):
    """Tokens in the image tower; the text stays hand-crafted."""

    schedule = Training(lr=2.5e-3, epochs=5, batch_size=4)
    summary = "M tokens a layer of the image tower"
    source = "Jia et al., ECCV 2022; as the baseline of the MaPLe paper"
    text_moves = False
    image_input = "pixels"
    image_tokens = True

    def build(self, clip: CLIP, config: VPTConfig, seed: int) -> None:
        depth = min(config.depth, vit(clip).layers)
        self.tokens = deep_tokens(clip, "image", config.n_tokens, depth, seed)
        self.fixed = Teacher(clip, [config.text or self.template], names=self.classnames)

    @property
    def fixed_text(self) -> Teacher:
        return self.fixed

    def visual_tokens(self) -> Sequence[Tensor]:
        return list(self.tokens)


LEARNER = VPT
