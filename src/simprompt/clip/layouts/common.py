"""What all layouts share: what a configuration says, and checks of weights and files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.model import CLIPConfig
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.vision import VisionConfig
from simprompt.errors import SimpromptError
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

Weights = dict[str, Tensor]

NOT_WEIGHTS = re.compile(
    r"input_resolution|context_length|vocab_size|(text\.)?attn_mask|.*\.position_ids"
    r"|.*\.num_batches_tracked|visual\.attn_mask"
)


class CheckpointError(SimpromptError):
    """A checkpoint that cannot be read as CLIP."""


@dataclass(frozen=True)
class Towers:
    """What a configuration file says, before the tokenizer adds its two marks."""

    embed_dim: int
    text: dict[str, Any]  # arguments of TextConfig
    vision: dict[str, Any]  # arguments of VisionConfig or ResNetConfig
    preprocess: dict[str, Any]  # fields of CLIPConfig

    def config(self, tokenizer: Tokenizer, path: str | Path = "the model") -> CLIPConfig:
        """With the tokenizer's two marks.

        Args:
            path: of the checkpoint, for messages.

        Raises:
            CheckpointError: a size that is none, or another value that no CLIP has.
        """
        text = TextConfig(
            **self.text, embed_dim=self.embed_dim, sot=tokenizer.sot, eot=tokenizer.eot
        )
        kind: Callable[..., Any] = VisionConfig if "patch_size" in self.vision else ResNetConfig
        vision = kind(**self.vision, embed_dim=self.embed_dim)
        try:
            return CLIPConfig(text, vision, **self.preprocess)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"The configuration of {path} is not one of a CLIP: {error}. Download it again."
            ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: it cannot be read, or is no object.
    """
    try:
        values = json_value(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} is not a JSON object, as a model's configuration is. Download it again."
        )
    return values


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of a tensor that holds NaN or infinity; empty where all are finite."""
    for name, values in tensors.items():
        if not values.is_floating_point() and not values.is_complex():
            continue
        if values.dtype == torch.complex32:  # of these and of floats of 8 bits torch has no sum
            values = torch.view_as_real(values)
        if values.dtype.itemsize < 2:
            values = values.float()
        # a finite sum proves finite terms; finite terms may have an infinite sum
        if not values.sum().isfinite() and not values.isfinite().all():
            return name
    return ""


def hidden_width(width: int, hidden: int) -> int:
    """0 (the default) where the hidden layer is four times as wide, else its width."""
    return 0 if hidden == 4 * width else hidden
