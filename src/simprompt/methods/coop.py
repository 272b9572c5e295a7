"""CoOp: learn the context vectors of the prompt (Zhou et al., IJCV 2022).

    prompt of class i = [SOT][v_1] ... [v_M][name of i][.][EOT],   loss = CE(scale * cos)

What is learned is v [M, W], shared by all classes, started from the first words of the
hand-crafted template.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.text import Suffixes
from simprompt.config import Settings, Training
from simprompt.methods.base import PromptLearner

DEFAULT_WORDS = "a photo of a"  # the field's start where a template has no words in front


class CoOpConfig(Settings):
    """CoOp's settings; the defaults are those of CoOp's base-to-new runs in the CoCoOp paper."""

    n_ctx: int = Field(4, ge=1, le=64, description="M, context tokens")
    init: str = Field(
        "template", description="'template': its first words; 'random': N(0, 0.02); else the words"
    )


def initial_context(clip: CLIP, n_ctx: int, init: str, template: str, seed: int) -> Tensor:
    """Context vectors [M, W]: embeddings of the first M tokens of some words.

    Words with fewer than M tokens are filled up in front with N(0, 0.02) vectors, so that the
    words stand next to the class name.
    """
    width = clip.config.text.width
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_ctx, width, generator=generator) * 0.02
    if init == "random":
        return noise
    words = (template.split("{}")[0].strip() or DEFAULT_WORDS) if init == "template" else init
    words = words.replace("_", " ")
    tokens = clip.embed_prefix(words)[1 : 1 + n_ctx].detach().float().cpu()
    return torch.cat([noise[: n_ctx - len(tokens)], tokens])


class CoOp(PromptLearner):
    Config = CoOpConfig
    schedule = Training(lr=2e-3, epochs=200, batch_size=32)
    learned = "M context vectors, shared by all classes"
    source = "Zhou et al., IJCV 2022; base-to-new settings of the CoCoOp paper (CVPR 2022)"

    def __init__(
        self, clip: CLIP, classnames: Sequence[str], template: str, config: Settings, seed: int = 0
    ) -> None:
        super().__init__(clip, classnames, template, config, seed)
        assert isinstance(config, CoOpConfig)
        context = initial_context(clip, config.n_ctx, config.init, template, seed)
        self.ctx = nn.Parameter(context.to(clip.device))

    def text_features(self, prompts: Suffixes) -> Tensor:
        prefix = torch.cat([self.clip.embed_prefix(), self.ctx])  # [1 + M, W]
        return F.normalize(self.clip.text.encode(prefix, prompts), dim=-1)


LEARNER = CoOp
