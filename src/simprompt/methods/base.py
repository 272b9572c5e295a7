"""What every prompt method is: something that turns class names into text features.

A method knows nothing of SAR, of protocols or of files. The training loop asks it for the text
features of some classes and for its loss on a batch; SAR looks at the same text features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.text import Suffixes
from simprompt.config import Settings, Training


@dataclass(frozen=True)
class Batch:
    """One training step's images.

    `images` is [B, E] normalised features, or [B, 3, S, S] pixels for a learner whose image
    tower is live; `labels` [B] count base classes from 0.
    """

    images: Tensor
    labels: Tensor


class PromptLearner(nn.Module):
    """Learnable prompts over a frozen CLIP.

    Args:
        clip: the frozen model; never part of the state dict.
        classnames: the base classes, in label order.
        template: the hand-crafted prompt, such as "a photo of a {}.".
        config: the method's own settings, an instance of `Config`.
        seed: of random initialisations.
    """

    Config: ClassVar[type[Settings]]
    schedule: ClassVar[Training] = Training()  # the published training settings
    learned: ClassVar[str]  # for `methods list`: what is learned
    source: ClassVar[str]  # where the method was published
    text_moves: ClassVar[bool] = True  # False: SAR would have no gradient
    live_images: ClassVar[bool] = False  # True: the image tower is part of what is learned

    clip: CLIP

    def __init__(
        self, clip: CLIP, classnames: Sequence[str], template: str, config: Settings, seed: int = 0
    ) -> None:
        super().__init__()
        object.__setattr__(self, "clip", clip)  # kept out of parameters() and state_dict()
        self.classnames, self.template, self.config = tuple(classnames), template, config
        self.seed = seed

    def prompts(self, names: Sequence[str]) -> Suffixes:
        """What `text_features` needs to know of class names, tokenised once per run."""
        return self.clip.suffixes(names)

    def text_features(self, prompts: Suffixes) -> Tensor:
        """Normalised text features [C, E] of the classes, differentiable in what is learned."""
        raise NotImplementedError

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised image features [B, E]; cached features pass through unchanged."""
        return images

    def logits(self, images: Tensor, text: Tensor) -> Tensor:
        """scale * cos, [B, C]."""
        return self.clip.scale * self.image_features(images) @ text.T

    def loss(self, batch: Batch, text: Tensor) -> Tensor:
        """The method's training loss, given its text features of all base classes [C, E]."""
        return F.cross_entropy(self.logits(batch.images, text), batch.labels)

    @torch.no_grad()
    def predict(self, images: Tensor, names: Sequence[str], chunk: int = 1024) -> Tensor:
        """Probabilities [N, C] of images (as in `Batch`) over class names, encoded once."""
        text = self.text_features(self.prompts(names))
        parts = [self.logits(part, text).softmax(-1) for part in images.split(chunk)]
        return torch.cat(parts) if parts else torch.zeros(0, len(names))

    def parameter_count(self) -> int:
        """Learnable numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
