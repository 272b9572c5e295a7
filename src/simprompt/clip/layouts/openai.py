"""OpenAI's layout: a bare state dict, whose shapes tell which of the nine models it is.

open_clip writes the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from simprompt.clip.layouts.common import OPEN_CLIP_CONFIG, CheckpointError, Towers
from simprompt.clip.resnet import STRIDE

# OpenAI's and open_clip's names -> ours; tried in order, the first that matches wins.
_FROM_OPENAI = [
    (r"(visual\.)transformer\.resblocks\.(\d+)\.(.+)", r"\1blocks.\2.\3"),
    (r"(?:text\.)?transformer\.resblocks\.(\d+)\.(.+)", r"text.blocks.\1.\2"),
    (r"visual\.conv1\.weight", "visual.patch.weight"),
    (r"visual\.proj", "visual.projection"),
    (r"(?:text\.)?text_projection", "text.projection"),
    (r"(?:text\.)?(token_embedding\.weight|positional_embedding|ln_final\.\w+)", r"text.\1"),
]
_BLOCK_FROM_OPENAI = {
    "attn.in_proj_weight": "qkv.weight",
    "attn.in_proj_bias": "qkv.bias",
    "attn.out_proj": "out",
    "mlp.c_fc": "fc",
    "mlp.c_proj": "proj",
}


def from_openai(key: str, resnet: bool) -> str:
    """OpenAI's name of a tensor -> ours; a ResNet's image tower keeps its names."""
    if resnet and key.startswith("visual."):
        return key  # our ResNet bears OpenAI's names
    for pattern, ours in _FROM_OPENAI:
        match = re.fullmatch(pattern, key)
        if match:
            key = match.expand(ours)
            for theirs, mine in _BLOCK_FROM_OPENAI.items():
                key = key.replace(f".{theirs}", f".{mine}")
            return key
    return key


def to_openai(key: str, resnet: bool) -> str:
    """The inverse of `from_openai`."""
    for theirs, mine in _BLOCK_FROM_OPENAI.items():
        key = re.sub(rf"(blocks\.\d+)\.{re.escape(mine)}(?=\.|$)", rf"\1.{theirs}", key)
    key = key.replace("blocks.", "transformer.resblocks.")
    if not (resnet and key.startswith("visual.")):
        key = key.replace("visual.patch.", "visual.conv1.")
        key = key.replace("visual.projection", "visual.proj")
    key = key.replace("text.projection", "text_projection")
    return key.removeprefix("text.")


@dataclass(frozen=True)
class Shape:
    """What a bare state dict shows of an architecture."""

    embed_dim: int
    image_size: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    patch_size: int  # 0 for a ResNet
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int


OPENAI_MODELS = {
    Shape(1024, 224, (3, 4, 6, 3), 64, 0, 77, 49408, 512, 12): "RN50",
    Shape(512, 224, (3, 4, 23, 3), 64, 0, 77, 49408, 512, 12): "RN101",
    Shape(640, 288, (4, 6, 10, 6), 80, 0, 77, 49408, 640, 12): "RN50x4",
    Shape(768, 384, (6, 8, 18, 8), 96, 0, 77, 49408, 768, 12): "RN50x16",
    Shape(1024, 448, (3, 15, 36, 10), 128, 0, 77, 49408, 1024, 12): "RN50x64",
    Shape(512, 224, 12, 768, 32, 77, 49408, 512, 12): "ViT-B-32",
    Shape(512, 224, 12, 768, 16, 77, 49408, 512, 12): "ViT-B-16",
    Shape(768, 224, 24, 1024, 14, 77, 49408, 768, 12): "ViT-L-14",
    Shape(768, 336, 24, 1024, 14, 77, 49408, 768, 12): "ViT-L-14-336",
}
"""The nine models that OpenAI published, as a bare state dict shows them."""


def towers_of_shapes(weights: Mapping[str, Tensor], path: Path) -> Towers:
    """The architecture of a bare state dict, if it is one of OpenAI's.

    Shapes do not tell the activation, nor every number of heads; OpenAI's nine models are known
    to use QuickGELU and 64 channels a head, at whatever image size they were trained on. Anything
    else needs a configuration file.
    """
    try:
        shape = _shape_of(weights)
    except (KeyError, StopIteration, ValueError) as error:
        raise CheckpointError(f"{path} lacks the weights of a CLIP: {error}.") from error
    if not any(
        replace(shape, image_size=candidate.image_size) == candidate for candidate in OPENAI_MODELS
    ):
        raise CheckpointError(
            f"{path} has shapes of none of OpenAI's models ({shape}). Shapes do not say which "
            f"activation it uses nor how many heads: put its {OPEN_CLIP_CONFIG} or config.json "
            "beside it."
        )
    return openai_towers(shape)


def openai_towers(shape: Shape) -> Towers:
    """OpenAI's conventions: QuickGELU, 64 channels a head, its own mean and deviation."""
    text = {
        "vocab_size": shape.vocab_size,
        "context_length": shape.context_length,
        "width": shape.text_width,
        "layers": shape.text_layers,
        "heads": shape.text_width // 64,
    }
    vision: dict[str, Any] = {
        "image_size": shape.image_size,
        "layers": shape.vision_layers,
        "width": shape.vision_width,
    }
    if shape.patch_size:
        vision |= {"patch_size": shape.patch_size, "heads": shape.vision_width // 64}
    else:
        vision |= {"heads": shape.vision_width * 32 // 64}
    return Towers(shape.embed_dim, text, vision, {})


def _shape_of(weights: Mapping[str, Tensor]) -> Shape:
    context, text_width = weights["text.positional_embedding"].shape
    vocab, _ = weights["text.token_embedding.weight"].shape
    layers: int | tuple[int, ...]
    if "visual.patch.weight" in weights:
        width, _, patch, _ = weights["visual.patch.weight"].shape
        layers = _count(weights, r"visual\.blocks\.(\d+)\..*")
        side = round((len(weights["visual.positional_embedding"]) - 1) ** 0.5)
        size = side * patch
    else:
        patch, width = 0, len(weights["visual.conv3.weight"])
        layers = tuple(_count(weights, rf"visual\.layer{i}\.(\d+)\..*") for i in (1, 2, 3, 4))
        side = round((len(weights["visual.attnpool.positional_embedding"]) - 1) ** 0.5)
        size = side * STRIDE
    return Shape(
        embed_dim=weights["text.projection"].shape[1],
        image_size=size,
        vision_layers=layers,
        vision_width=width,
        patch_size=patch,
        context_length=context,
        vocab_size=vocab,
        text_width=text_width,
        text_layers=_count(weights, r"text\.blocks\.(\d+)\..*"),
    )


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(m[1]) for k in weights if (m := re.fullmatch(pattern, k))), default=-1)
