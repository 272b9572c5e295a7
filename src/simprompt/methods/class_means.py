"""Class means: an image belongs to the class whose images' mean feature is nearest.

    logits = scale * x m^T,   m_c = normalised mean of class c's normalised image features

The nearest class mean of Mensink et al. (TPAMI 2013), prototypes in Snell et al. (NeurIPS 2017).
Nothing is fitted, so a handful of images is enough. It says nothing of any other class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.config import Settings, Training
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch, PromptLearner
from simprompt.methods.parts import own_columns
from simprompt.utils.devices import to_device
from simprompt.utils.optimizers import SGD


class ClassMeansConfig(Settings):
    """Class means have no settings."""


class ClassMeans(PromptLearner[ClassMeansConfig]):
    """The nearest mean of the base classes' images; answers for no other name."""

    schedule = Training(epochs=1, batch_size=256)
    summary = "the mean feature of each base class's images"
    source = "Mensink et al., TPAMI 2013; Snell et al., NeurIPS 2017"
    text_moves = False
    new_classes = False

    def build(self, clip: CLIP, config: ClassMeansConfig, seed: int) -> None:
        self.means = nn.Parameter(clip.logit_scale.new_zeros(len(self.classnames), clip.embed_dim))

    @torch.no_grad()
    def prepare(self, images: Images, labels: Tensor) -> None:
        assert isinstance(images, Tensor)
        features = F.normalize(images, dim=-1).mean(1)  # of an image's views
        members = F.one_hot(labels, len(self.classnames)).to(features.device, features.dtype)
        means = F.normalize(members.T @ features, dim=-1)
        self.means.copy_(to_device(means, self.means.device))

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        """For the curve only; its gradient is zero."""
        logits = self.clip.scaled(batch.images) @ self.means.detach().T
        return self.cross_entropy(logits, batch.labels) + 0 * self.means.sum()

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        columns = own_columns(names, self.classnames, "Class means know", "they were")
        return self.clip.scaled(F.normalize(unnormalized, dim=-1)) @ self.means[columns].T

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        """Without decay, so that the means stay what they are once the images were seen."""
        return SGD(self.parameters(), lr=settings.lr)


LEARNER = ClassMeans
