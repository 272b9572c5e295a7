"""Image map: image features are moved towards the text of their classes, in closed form (ours).

    z -> z + (z - m) W                                              z: unit image feature
    W = argmin (|X + X W - s (T - t_mean)|^2 + mu |X W B|^2) / N + l c |W|^2

The rows of X are x_i - m, with x_i the unit features of the base classes' images and m their mean;
the rows of T are the unit text features of their labels, and t_mean is the mean over the base
classes. s = mean |x_i - m| / mean |t_y - t_mean| brings text to the images' scale, and
c = mean |x_i - m|^2 makes l a number without a unit. B'B is the covariance of the text of novel
names over its largest eigenvalue: with mu > 0 the map moves images little along the directions in
which names without images differ. In the eigenvectors of X'X / N and of B'B the solution is
elementwise:

    W = U [(U' R V) / (a_i (1 + mu e_j) + l c)] V',   R = X' (s (T - t_mean) - X) / N

The text comes from a host: a prompt method, trained as it would be alone, or zero-shot, which needs
no training (training.epochs=1). SAR acts on the host.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import new_names
from simprompt.config import Settings, Training
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch, PromptLearner
from simprompt.methods.closed_form import mean_of_views, solve
from simprompt.methods.hosted import HostedLearner, text_host
from simprompt.novel.nouns import noun_list
from simprompt.utils.devices import to_device
from simprompt.utils.optimizers import SGD


class ImageMapConfig(Settings):
    """The map's settings."""

    host: str = Field("coop", description="the method whose text the map moves images to")
    host_options: dict[str, Any] | None = Field(None, description="the host's settings")
    ridge: float = Field(0.1, gt=0, description="l: how strongly the map is held to the identity")
    hold: float = Field(0.0, ge=0, description="mu: how strongly novel names hold the map")
    hold_names: int = Field(180, ge=2, description="nouns drawn at random as these novel names")


class ImageMap(HostedLearner[ImageMapConfig]):
    """A host's text with an affine map of the image features in front of the comparison."""

    schedule = Training()
    summary = "an affine map of image features, in closed form, beside what its host learns"
    source = "ours: ridge regression from image features to the text of their classes"

    mean: Tensor
    weight: Tensor

    def build(self, clip: CLIP, config: ImageMapConfig, seed: int) -> None:
        kind = text_host("image-map", config.host)
        options = config.host_options or {}
        self.take_host(kind, options, f"Settings of the host {config.host}")
        reference = clip.logit_scale
        self.register_buffer("mean", reference.new_zeros(clip.embed_dim))
        self.weight = nn.Parameter(reference.new_zeros(clip.embed_dim, clip.embed_dim))
        self._images, self._labels = torch.empty(0), torch.empty(0, dtype=torch.long)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        """The host's; the map has no gradient."""
        return self.host.loss(batch, text) + 0 * self.weight.sum()

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        if self.host.parameter_count():
            return self.host.optimiser(settings)
        return SGD([self.weight], lr=settings.lr)  # its gradient is zero

    def prepare(self, images: Images, labels: Tensor) -> None:
        assert isinstance(images, Tensor)
        super().prepare(images, labels)
        if images.device.type == "meta":  # only the sizes are asked for
            return
        self._images = mean_of_views(images)
        self._labels = labels

    def after_training(self) -> None:
        super().after_training()
        self.fit()

    @torch.no_grad()
    def fit(self) -> None:
        """Compute the map from the training images and the host's text of this moment."""
        text = self.host.text_features(self.base).cpu().double()
        novel_text = None
        if self.config.hold:
            nouns = drawn_nouns(self.host, self.config.hold_names)
            novel_text = self.host.text_features(self.host.prompts(nouns)).cpu().double()
        mean, weight = solve(
            self._images, self._labels, text, self.config.ridge, self.config.hold, novel_text
        )
        for tensor, value in ((self.mean, mean), (self.weight, weight)):
            tensor.copy_(to_device(value.to(tensor.dtype), tensor.device))

    def unnormalized_images(self, images: Tensor) -> Tensor:
        image = F.normalize(images, dim=-1)
        return image + (image - self.mean) @ self.weight

    def no_linear_head(self, names: Sequence[str]) -> str:
        return "images are normalised again after its map, which is not a linear function of them"


def drawn_nouns(learner: PromptLearner[Any], count: int) -> list[str]:
    """At most `count` common nouns, drawn by the learner's seed, that are no text of a base class
    and fit its prompt."""
    nouns = noun_list(minimum_count=1)
    shuffled = random.Random(learner.seed).sample(nouns, len(nouns))
    fitting = (name for name in new_names(shuffled, learner.classnames) if learner.fits(name))
    return [name for name, _ in zip(fitting, range(count), strict=False)]


LEARNER = ImageMap
