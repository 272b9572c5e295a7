"""Deep language prompting: context tokens at every text layer (Khattak et al., CVPR 2023).

    layer 0 sees [SOT][v_1] ... [v_M][the rest of the words][name][.][EOT]
    layer l < depth takes fresh tokens for the v's

The text half of IVLP by itself, an ablation of the MaPLe paper. The fresh tokens are the same for
all classes, so the prefix is still encoded once; loss = CE(scale * cos).
"""

from __future__ import annotations

from pydantic import Field

from simprompt.config import Training
from simprompt.methods.context_prompt import DeepContext
from simprompt.methods.parts import ContextConfig


class LanguageConfig(ContextConfig):
    """The MaPLe repository's settings; depth is cut to the layers the text tower has."""

    depth: int = Field(12, ge=1, description="text layers with tokens of their own; 1 is CoOp")


class Language(DeepContext[LanguageConfig]):
    """Tokens at several layers of the text tower."""

    schedule = Training(lr=2.5e-3, epochs=5, batch_size=4)
    summary = "M context tokens at every text layer"
    source = "Khattak et al., CVPR 2023 (MaPLe), its ablation"

    def text_depth(self, config: LanguageConfig) -> int:
        return min(config.depth, self.clip.config.text.layers)


LEARNER = Language
