"""Zero-shot CLIP with the hand-crafted template (Radford et al. 2021); nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from simprompt.clip.text import Suffixes
from simprompt.config import Settings
from simprompt.methods.base import PromptLearner
from simprompt.methods.teacher import fill


class ZeroShotConfig(Settings):
    """Zero-shot has no settings; the template belongs to the run."""


class ZeroShot(PromptLearner):
    Config = ZeroShotConfig
    learned = "nothing"
    source = "Radford et al., ICML 2021"
    text_moves = False

    def prompts(self, names: Sequence[str]) -> Suffixes:
        whole = [fill(self.template, name) for name in names]
        return Suffixes(tuple(names), self.clip.suffixes(whole, ending="").ids)

    def text_features(self, prompts: Suffixes) -> Tensor:
        features = self.clip.text.encode(self.clip.embed_prefix(), prompts)
        return features / features.norm(dim=-1, keepdim=True)


LEARNER = ZeroShot
