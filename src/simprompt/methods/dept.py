"""DePT: a second, linear head beside a host's similarity head (Zhang et al., CVPR 2024).

    text: a_t * t + b_t,  image: a_x * x + b_x          a, b [E], one scale and bias a channel
    loss = (1 - l) CE(scale * cos) + l CE(W [scaled t of the labels; scaled x] + b) + host's terms

The host (any prompt method) supplies t, x and its own extra terms, and keeps new classes, for the
linear head knows the base classes only: base classes are told by (1 - l) similarity + l linear
logits, other names by similarity alone. SAR acts on the host's t, before the scaling.

t and x are scaled at the length the towers give them, about ten in CLIP and not the same from
one image or name to the next; the similarity head and the host's terms normalise them. In the
warm-up epoch head and scales learn at the warm-up rate like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names
from simprompt.clip.suffixes import Suffixes
from simprompt.config import Settings, Training
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch, ImageInput, PromptLearner
from simprompt.methods.hosted import HostedLearner
from simprompt.methods.parts import like_model, seeded

# What DePT's runs changed of its hosts.
HOSTS: dict[str, dict[str, Any]] = {
    "coop": {"n_ctx": 16, "init": "random"},
    "kgcoop": {"weight": 2.0},
}


class DePTConfig(Settings):
    """DePT's settings, as published."""

    host: str = Field("coop", description="the prompt method inside")
    host_options: dict[str, Any] | None = Field(
        None, description="its settings; None: those of DePT's runs"
    )
    weight: float = Field(0.7, ge=0, le=1, description="l, of the linear head")
    former: ClassVar[Mapping[str, str]] = {"times": "head_lr_scale"}

    head_lr_scale: float = Field(6.5, gt=0, description="learning rate of the head over the host's")


class DePT(HostedLearner[DePTConfig]):
    """A host method with a linear head for its base classes."""

    schedule = Training(lr=3.5e-3, epochs=10, batch_size=4)
    summary = "a host's prompt, a linear head on base classes, a scale and bias a channel"
    source = "Zhang et al., CVPR 2024"
    image_input: ImageInput = "unnormalized"
    joint_answers = False

    def build(self, clip: CLIP, config: DePTConfig, seed: int) -> None:
        kind = methods.find(config.host)
        if kind.loss is not PromptLearner.loss or not kind.new_classes:
            raise SimpromptError(
                f"DePT cannot have {config.host!r} as its host: that method's loss is not a "
                "cross-entropy plus terms. Hosts are coop, cocoop, kgcoop, maple and their like."
            )
        options = config.host_options
        options = HOSTS.get(config.host, {}) if options is None else options
        self.take_host(kind, options, f"Settings of DePT's host {config.host}")
        e = clip.embed_dim
        with seeded(seed, "head"):
            self.head = like_model(clip, nn.Linear(e, len(self.classnames)))
        one = torch.ones(e, device=clip.device, dtype=clip.logit_scale.dtype)
        self.text_scale, self.text_bias = nn.Parameter(one.clone()), nn.Parameter(0 * one)
        self.image_scale, self.image_bias = nn.Parameter(one.clone()), nn.Parameter(0 * one)

    def unnormalized_images(self, images: Tensor) -> Tensor:
        return self.host.unnormalized_images(images)

    def unnormalized_conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        return self.host.unnormalized_conditional_text(prompts, image)

    def regularised_text(self, prompts: Suffixes, batch: Batch) -> Tensor:
        if self.conditional:  # a regulariser looks at it, the loss does not
            return self.host.regularised_text(prompts, self.of_host(batch))
        return self.host.unnormalized_text(prompts)

    def of_host(self, batch: Batch) -> Batch:
        """The batch as the host takes it: normalised features, or pixels."""
        if self.image_input == "pixels":
            return batch
        return replace(batch, images=F.normalize(batch.images, dim=-1))

    def prepare(self, images: Images, labels: Tensor) -> None:
        if isinstance(images, Tensor) and self.image_input != "pixels":
            images = F.normalize(images, dim=-1)
        super().prepare(images, labels)

    def linear(self, unnormalized: Tensor) -> Tensor:
        """Logits [B, C] of the linear head for image features from `unnormalized_images`."""
        logits: Tensor = self.head(self.image_scale * unnormalized + self.image_bias)
        return logits

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        labels, unnormalized = batch.labels, self.unnormalized_images(batch.images)
        image = F.normalize(unnormalized, dim=-1)
        if self.conditional:
            text = self.unnormalized_conditional_text(self.base, image)
        elif text is None:
            text = self.unnormalized_text(self.base)
        unit = F.normalize(text, dim=-1)
        logits = self.logits(image, unit)
        label_text = (
            text[labels]
            if text.dim() == 2
            else text[torch.arange(len(labels), device=text.device), labels]
        )
        text_logits = self.head(self.text_scale * label_text + self.text_bias)
        linear = self.cross_entropy(
            torch.cat([text_logits, self.linear(unnormalized)]), labels.repeat(2)
        )
        similarity = self.cross_entropy(logits, labels)
        weight = self.config.weight
        terms = self.host.extra_loss(self.of_host(batch), image, unit, logits)
        return (1 - weight) * similarity + weight * linear + terms

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        similarity = super().class_logits(unnormalized, text, names)
        columns = match_names(names, self.classnames)
        if None in columns:
            return similarity
        weight = self.config.weight
        return (1 - weight) * similarity + weight * self.linear(unnormalized)[:, columns]

    def no_text_graph(self) -> str:
        return (
            "beside the similarity of image and text it has a classifier of the classes it was "
            "learned on, a linear head, so other names would be judged by another rule."
        )

    def no_linear_head(self, names: Sequence[str]) -> str | None:
        if reason := super().no_linear_head(names):
            return reason
        if not self.config.weight or None in match_names(names, self.classnames):
            return None
        return (
            "its classifier of the classes it was learned on sees the length of an image feature, "
            "so it is not a linear function of normalised ones"
        )

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        optimiser = self.host.optimiser(settings)
        own_parameters = [p for name, p in self.named_parameters() if not name.startswith("host.")]
        optimiser.add_param_group(
            {"params": own_parameters, "lr_multiplier": self.config.head_lr_scale}
        )
        return optimiser


LEARNER = DePT
