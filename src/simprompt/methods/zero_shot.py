"""Zero-shot CLIP with the hand-crafted template (Radford et al. 2021); nothing is learned."""

from __future__ import annotations

from simprompt.config import Settings
from simprompt.methods.base import PromptLearner


class ZeroShotConfig(Settings):
    """Zero-shot has no settings; the template belongs to the run."""


class ZeroShot(PromptLearner[ZeroShotConfig]):
    """The hand-crafted prompt as it is."""

    summary = "nothing"
    source = "Radford et al., ICML 2021"
    text_moves = False


LEARNER = ZeroShot
