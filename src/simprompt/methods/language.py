"""Deep language prompting: context tokens at every text layer (Khattak et al., CVPR 2023).

    layer 0 sees [SOT][v_1] ... [v_M][the rest of the words][name][.][EOT]
    layer l < depth takes fresh tokens for the v's

The text half of IVLP by itself, an ablation of the MaPLe paper. The fresh tokens are the same for
all classes, so the prefix is still encoded once; loss = CE(scale * cos).
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.methods.base import PromptLearner, SharedPrompt
from simprompt.methods.parts import ContextConfig, behind_sot, deep_tokens, wording


class LanguageConfig(ContextConfig):
    """The MaPLe repository's settings; depth is cut to the layers the text tower has."""

    depth: int = Field(12, ge=1, description="text layers with tokens of their own; 1 is CoOp")


class Language(PromptLearner[LanguageConfig]):
    """Tokens at several layers of the text tower."""

    schedule = Training(lr=2.5e-3, epochs=5, batch_size=4)
    summary = "M context tokens at every text layer"
    source = "Khattak et al., CVPR 2023 (MaPLe), its ablation"

    def build(self, clip: CLIP, config: LanguageConfig, seed: int) -> None:
        sizes = clip.config.text
        depth = min(config.depth, sizes.layers)
        words = wording(clip, config, self.template, seed, keep_rest=True)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        self.deep = deep_tokens(clip, "text", config.n_ctx, depth - 1, seed)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), list(self.deep)


LEARNER = Language
