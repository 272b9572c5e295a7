"""The image side of an export: pixels -> probabilities over fixed names, and image features.

Any method is a function of pixels once its names are fixed: frozen tower and fixed text, a tower
with learned tokens inside, a second head, a text of its own for every image (CoCoOp). The graph is
what `PromptLearner.classifier` computes, temperature and softmax included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import TextTower
from simprompt.methods.base import PromptLearner


class ImageSide(nn.Module):
    """Pixels [B, 3, S, S] -> (probabilities [B, C] over the names, features [B, E] of length 1).

    Raises:
        SimpromptError: a name that the learner cannot answer for.
    """

    text: Tensor | None

    def __init__(self, learner: PromptLearner[Any], names: Sequence[str]) -> None:
        super().__init__()
        self.learner, self.names = learner, tuple(names)
        self.prompts = learner.prompts(names)
        self.visual = learner.clip.visual
        if learner.conditional:
            self.tower = learner.clip.text  # registered, so that the exporter knows its weights
            self.text = None
        else:
            with torch.no_grad():
                self.register_buffer("text", learner.text_features(self.prompts))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and features of these pixels."""
        learner, inputs = self.learner, pixels
        if learner.image_input != "pixels":
            inputs = self.visual(pixels)
        if learner.image_input == "features":
            inputs = F.normalize(inputs, dim=-1)
        unnormalized = learner.unnormalized_images(inputs)
        unit = F.normalize(unnormalized, dim=-1)
        text = learner.conditional_text(self.prompts, unit) if self.text is None else self.text
        logits = learner.class_logits(unnormalized, text, self.names) / learner.temperature
        return logits.softmax(-1), unit


@contextmanager
def traceable(clip: CLIP) -> Iterator[None]:
    """While this lasts, PyTorch's exporter can follow the model, whose numbers stay the same.

    Its scale is a plain number, as the exporter does not know the tensor, and the text tower
    takes the plain path, whose sizes may depend on the batch.
    """
    kind = type(clip)
    scale = clip.scale
    clip.__class__ = type(kind.__name__, (kind,), {"scaled": lambda _, x: scale * x})
    clip.text.encode = partial(encode_plainly, clip.text)  # type: ignore[method-assign]
    try:
        yield
    finally:
        clip.__class__ = kind
        del clip.text.encode


def encode_plainly(
    tower: TextTower, prefix: Tensor, suffixes: Suffixes, deep: Sequence[Tensor] = ()
) -> Tensor:
    """`TextTower.encode` with every prompt written out: [C, E], or [B, C, E] of B prefixes."""
    x = prefix if prefix.dim() == 3 else prefix[None]  # [B, P, W]
    tower.check_length(x.shape[1], suffixes)
    b, p, w = x.shape
    ids = pad_sequence([torch.tensor(row) for row in suffixes.ids], batch_first=True)
    c, length = ids.shape
    end = torch.tensor([p + len(row) - 1 for row in suffixes.ids])
    names = tower.token_embedding(ids)[None].expand(b, c, length, w)
    rows = torch.cat([x[:, None].expand(b, c, p, w), names], dim=2)
    features = tower.forward_embedded(rows.reshape(b * c, p + length, w), end.repeat(b), deep)
    features = features.view(b, c, -1)
    return features if prefix.dim() == 3 else features[0]
