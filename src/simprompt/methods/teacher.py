"""Text features of the hand-crafted prompt, computed once; SAR and others pull towards them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP


def fill(template: str, name: str) -> str:
    """The template with the class name in it, underscores as spaces."""
    return template.format(name.replace("_", " "))


def teacher_features(clip: CLIP, templates: Sequence[str], names: Sequence[str]) -> Tensor:
    """Normalised features [N, E] of the names: the mean over templates, normalised again."""
    mean = sum(clip.encode_texts([fill(t, n) for n in names]) for t in templates)
    assert isinstance(mean, Tensor)
    return F.normalize(mean, dim=-1)
