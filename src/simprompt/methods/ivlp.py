"""IVLP: independent deep prompts in both towers (Rasheed et al., CVPR 2023; MaPLe's baseline).

    text layer l sees  [SOT][v_l1] ... [v_lM][the rest of the words][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lN],        loss = CE(scale * cos)

Nothing couples the two; MaPLe makes the image tokens from the text tokens instead. Of the initial
words only the first M tokens are learned; the rest ("of a" in "a photo of a" with M = 2) stays, as
in the MaPLe repository's code.
"""

from __future__ import annotations

from pydantic import Field

from simprompt.config import Training
from simprompt.methods.context_prompt import TwoTowerConfig, TwoTowerPrompt


class IVLPConfig(TwoTowerConfig):
    """The MaPLe repository's settings; depths are cut to the layers the towers have."""

    n_ctx: int = Field(2, ge=1, le=64, description="M, text tokens a layer")
    n_tokens: int = Field(2, ge=1, description="N, image tokens a layer")
    text_depth: int = Field(12, ge=1, description="text layers with tokens of their own")
    depth: int = Field(12, ge=1, description="image layers with tokens of their own")


class IVLP(TwoTowerPrompt[IVLPConfig]):
    """Tokens in both towers, each by itself."""

    schedule = Training(lr=3.5e-3, epochs=5, batch_size=4)
    summary = "tokens at every layer of both towers, independently"
    source = "Rasheed et al., CVPR 2023; settings of the MaPLe repository"


LEARNER = IVLP
