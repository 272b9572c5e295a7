"""Positional embeddings at another image size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.layouts.common import (
    CheckpointError,
    Weights,
)
from simprompt.clip.model import MOST_PATCHES, MOST_PIXELS, CLIPConfig
from simprompt.clip.resnet import STRIDE, ResNetConfig
from simprompt.clip.vision import VisionConfig


def _at_size(config: CLIPConfig, size: int, path: Path) -> CLIPConfig:
    """The same model for images of another size."""
    vision = config.vision
    step = vision.patch_size if isinstance(vision, VisionConfig) else STRIDE
    if size < step or size % step:
        near = max(1, round(size / step)) * step
        raise CheckpointError(
            f"An image of {size} pixels cannot be cut into the {step}-pixel patches of {path}: "
            f"give a multiple of {step} to --image-size, such as {near}."
        )
    if size > MOST_PIXELS or (size // step) ** 2 > MOST_PATCHES:
        raise CheckpointError(
            f"Images of {size:,} pixels a side are too large for {path}: a model computes at most "
            f"{MOST_PIXELS:,} pixels a side and {MOST_PATCHES:,} patches, which is far above the "
            "size of every published CLIP. Give a smaller --image-size; a prompt's card has it as "
            "image_size."
        )
    mode, colon, scaled = config.resize_mode.partition(":")
    if colon:  # the margin that is cut off grows with the image
        mode = f"{mode}:{max(size, round(int(scaled) * size / vision.image_size))}"
    return replace(config, vision=replace(vision, image_size=size), resize_mode=mode)


def _positions(config: CLIPConfig) -> tuple[str, int]:
    """The name of the image tower's positional embedding, and how many positions a side it has; no
    name where it has none."""
    vision = config.vision
    if isinstance(vision, EfficientNetConfig):
        return "", 0
    if isinstance(vision, ResNetConfig):
        return "visual.attnpool.positional_embedding", vision.image_size // STRIDE
    return "visual.positional_embedding", vision.image_size // vision.patch_size


def _side(positions: Tensor) -> int:
    """Of the square that all positions but the first are; 0 where they are none."""
    side = math.isqrt(max(0, len(positions) - 1)) if positions.dim() == 2 else 0
    return side if side * side + 1 == len(positions) else 0


def _interpolate(weights: Weights, config: CLIPConfig, name: str) -> list[str]:
    """Fit the positional embedding in `weights` to the size in `config`; a note if it changed."""
    key, side = _positions(config)
    before = _side(weights[key]) if key in weights else 0
    if not before or before == side:
        return []
    weights[key] = interpolated(weights[key], side)
    return [
        f"{name} was trained on {before} x {before} patches; its positional embedding is "
        f"interpolated to the {side} x {side} of an image of {config.vision.image_size} pixels."
    ]


def interpolated(positions: Tensor, side: int, antialias: bool = True) -> Tensor:
    """Positional embeddings of another grid: [1 + n * n, W] -> [1 + side * side, W].

    The first, of the class token (or a ResNet's mean), stays; the others are an image of n x n
    pixels with W channels that is scaled bicubically, corners not aligned, with antialiasing, as
    open_clip's `resize_pos_embed` does it. (`transformers` does it without antialiasing, whose
    cubic is another one, too: a = -0.75 instead of -0.5.)
    """
    n = math.isqrt(len(positions) - 1)
    grid = positions[1:].float().T.reshape(1, -1, n, n)
    grid = F.interpolate(
        grid, (side, side), mode="bicubic", antialias=antialias, align_corners=False
    )
    return torch.cat([positions[:1].float(), grid.flatten(2)[0].T])
