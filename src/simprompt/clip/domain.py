"""Whether images are of the kind that an embedded CLIP was made for.

A small CLIP answers for any image, and means nothing where it has never been. Its last features
have learned not to see style; those of its second block still do. Their mean and standard deviation
over all positions, [2W], are compared with those of the icon tasks' training drawings: the squared
Mahalanobis distance, over the number of dimensions. The threshold is the 99th percentile of those
drawings; `python -m pretrain.domain` makes the file, and measures it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from simprompt.errors import install

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP

FILE = Path(__file__).parent / "embedded" / "icons" / "domain.safetensors"
ICONS, PHOTOS = "icons", "photos"
"""The embedded models; `learn` and `PromptClassifier` choose between them where none is named."""
BLOCK = 1  # the second
MANY = 0.25
"""Part of a set of images beyond the threshold that is worth a warning."""


@dataclass(frozen=True)
class Domain:
    """What training drawings look like.

    Args:
        mean: [D] of their statistics.
        whitening: [D, D], which makes their covariance the identity.
        threshold: their distance that one in a hundred exceeds.
    """

    mean: Tensor
    whitening: Tensor
    threshold: float

    def distance(self, values: Tensor) -> Tensor:
        """Squared Mahalanobis distance over D, [N], of statistics [N, D]."""
        return ((values.double() - self.mean) @ self.whitening.T).pow(2).mean(-1)

    def far(self, clip: CLIP, pixels: Tensor) -> float:
        """Part of the images [N, 3, S, S] that are beyond the threshold; 0 if there are none."""
        if not len(pixels):
            return 0.0
        return (self.distance(statistics(clip, pixels)) > self.threshold).double().mean().item()


def unlike_share(clip: CLIP, split: Any, most: int = 100) -> float:
    """Share of images, in [0, 1], that are beyond what the icon CLIP was made for; 0 for another
    model.

    Args:
        split: a `data.dataset.Split`; of more than `most` images, as many drawn at random.
    """
    if clip.source["name"] != ICONS or not len(split):
        return 0.0
    # always the same images, so that the same data gives the same warning
    rows = random.Random(0).sample(range(len(split)), min(most, len(split)))
    return of_icons().far(clip, torch.stack([clip.preprocess(split.load(row)) for row in rows]))


def unlike_warning(clip: CLIP, share: float) -> str | None:
    """The warning about images that the icon CLIP was not made for; None where they are few."""
    if share <= MANY:
        return None
    return (
        f"{100 * share:.0f} % of these images are unlike the drawings that the model {clip.name} "
        "was made of: it knows icons and not photographs, and what it learns of these is worth "
        f"little. For photographs take the model photos ({install('photos')}) or "
        "ViT-B-16/openai."
    )


@torch.no_grad()
def statistics(clip: CLIP, pixels: Tensor) -> Tensor:
    """Mean and standard deviation over positions of the second block's output, [N, 2W] float32."""
    outputs: list[Tensor] = []
    # a hook, for the tower itself returns its last features alone
    handle = clip.visual.get_submodule(f"blocks.{BLOCK}").register_forward_hook(
        lambda module, given, made: outputs.append(made.float())
    )
    try:
        for chunk in pixels.split(64):
            clip.visual(chunk.to(clip.device))
    finally:
        handle.remove()
    x = torch.cat(outputs)
    return torch.cat([x.mean(1), x.std(1)], -1).cpu()


@cache
def of_icons() -> Domain:
    """The embedded icon CLIP's."""
    values = load_file(FILE)
    return Domain(values["mean"].double(), values["whitening"].double(), float(values["threshold"]))
