"""Class means for the classes with images, a prompt for the names without: one set of answers.

    logit of a class with images = a x m_c        m_c: its mean feature, as in `class-means`
    logit of any other name      = b x t_n + c    t_n: its text feature behind the learned context

The context is CoOp's. a, b and c make the two kinds of cosine comparable. They are fitted on the
training images before anything is learned: halves of the base classes play the new ones, known by
their hand-crafted prompt alone, and the cross-entropy over all base classes is made least. An
image's own part is taken out of its class's mean for that. After Chao et al. (ECCV 2016), who
calibrate seen against unseen classes by one constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names
from simprompt.config import Training
from simprompt.features.pixels import Images
from simprompt.methods.closed_form import class_means, drawn_halves, fitted
from simprompt.methods.context_prompt import SharedContext
from simprompt.methods.parts import ContextConfig
from simprompt.utils.devices import to_device


class MeansWithTextConfig(ContextConfig):
    """CoOp's settings of the context."""


class MeansWithText(SharedContext[MeansWithTextConfig]):
    """The nearest mean for base classes, CoOp's prompt for all others, calibrated."""

    schedule = Training(lr=2e-3, epochs=200, batch_size=32)
    summary = "M context vectors for names without images; means of the classes with images"
    source = "CoOp's context; calibrated as in Chao et al., ECCV 2016; ours"

    means: Tensor
    blend: Tensor

    def build(self, clip: CLIP, config: MeansWithTextConfig, seed: int) -> None:
        super().build(clip, config, seed)
        reference = clip.logit_scale
        self.register_buffer("means", reference.new_zeros(len(self.classnames), clip.embed_dim))
        scale = reference.detach().exp()
        self.register_buffer("blend", torch.stack([scale, scale, torch.zeros_like(scale)]))

    def no_text_graph(self) -> str:
        return (
            "beside the similarity of image and text it has a classifier of the classes it was "
            "learned on, their mean features, so other names would be judged by another rule."
        )

    @torch.no_grad()
    def prepare(self, images: Images, labels: Tensor) -> None:
        assert isinstance(images, Tensor)
        if images.device.type == "meta":  # only the sizes are asked for
            return
        features = F.normalize(F.normalize(images.double(), dim=-1).mean(1), dim=-1)  # of an image
        means, by_means = class_means(features, labels, len(self.classnames))
        text = self.teacher(self.classnames).to(features)
        plays_new = drawn_halves(by_means, self.seed)
        found = fitted(by_means, features @ text.T, labels, plays_new, self.clip.scale)
        self.means.copy_(to_device(means.to(self.means.dtype), self.means.device))
        self.blend.copy_(to_device(found.to(self.blend.dtype), self.blend.device))

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        image = F.normalize(unnormalized, dim=-1)
        scale, text_scale, offset = self.blend
        logits: Tensor = text_scale * image @ text.T + offset
        rows = match_names(names, self.classnames)
        columns = [i for i, row in enumerate(rows) if row is not None]
        if columns:
            by_means = image @ self.means[[row for row in rows if row is not None]].T
            logits = logits.index_copy(
                1, torch.tensor(columns, device=logits.device), (scale * by_means).to(logits.dtype)
            )
        return logits


LEARNER = MeansWithText
