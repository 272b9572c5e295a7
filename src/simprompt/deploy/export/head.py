"""Class embeddings, and a linear layer for normalised image features of open_clip or transformers.

    logits = scale * t_i . x + b_i,   x the image feature of length 1, scale CLIP's by temperature

The layer's weight holds scale * t_i, so that softmax of its output is what the prompt answers; b
is zero for everything but a linear probe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from simprompt.clip import catalogue
from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.model import CLIP
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.vision import VisionConfig
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner

LIBRARIES = ("open_clip", "transformers")


@dataclass(frozen=True)
class Head:
    """A linear classifier of image features of length 1.

    Attributes:
        linear: E inputs, C outputs, without gradients.
        embeddings: normalised text features [C, E]; None for a classifier that has none.
        scale: what the cosines are multiplied by, CLIP's scale over the prompt's temperature.
    """

    names: tuple[str, ...]
    linear: nn.Linear
    embeddings: Tensor | None
    scale: float


@torch.no_grad()
def head(learner: PromptLearner[Any], names: Sequence[str]) -> Head:
    """The learner's classifier over `names`.

    Raises:
        SimpromptError: it is no linear function of the features of the frozen image tower, and why.
    """
    if reason := learner.no_linear_head(names):
        raise SimpromptError(f"This prompt is no linear head: {reason}. Take --to onnx.")
    text = learner.text_features(learner.prompts(names))
    e = learner.clip.embed_dim

    def logits(features: Tensor) -> Tensor:
        images = learner.unnormalized_images(features)  # which a method may map
        return learner.class_logits(images, text, names) / learner.temperature

    bias = logits(text.new_zeros(1, e))[0]
    weight = (logits(torch.eye(e, device=text.device)) - bias).T.contiguous()  # [C, E]
    # linear in the direction alone: in any, and in those that the learner holds
    probe = torch.randn(64, e, generator=torch.Generator().manual_seed(0)).to(text.device)
    rows_like = [p.reshape(-1, e) for p in learner.parameters() if p.dim() and p.shape[-1] == e]
    probe = torch.cat([probe, text, *rows_like])
    expected = F.linear(F.normalize(probe, dim=-1), weight, bias)
    if (logits(3 * probe) - expected).abs().max() > 1e-5 * max(1.0, learner.clip.scale):
        raise SimpromptError(
            "This prompt is no linear head: its classifier is not a linear function of normalised "
            "image features. Take --to onnx."
        )
    linear = nn.Linear(e, len(names)).requires_grad_(False)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    scale = learner.clip.scale / learner.temperature
    plain = torch.allclose(weight, scale * text, atol=1e-5 * scale) and not bias.any()
    return Head(tuple(names), linear, text.cpu() if plain else None, scale)


@torch.no_grad()
def fingerprint(clip: CLIP) -> Tensor:
    """The feature [E], of length 1, of pixels that rise evenly from -1 to 1; tells whether another
    library's tower is the same model."""
    size = clip.config.vision.image_size
    pixels = torch.linspace(-1, 1, 3 * size * size, device=clip.device).view(1, 3, size, size)
    return clip.encode_pixels(pixels)[0].cpu()


def write(made: Head, clip: CLIP, folder: Path) -> None:
    """Write `head.safetensors` (weight, bias), `classes.txt`, `classes.npz` and its twin."""
    layer = {key: value.contiguous().cpu() for key, value in made.linear.state_dict().items()}
    notes = {"classes": json.dumps(made.names, ensure_ascii=False), "format": "pt"}
    # `save_file` makes private files; these are as readable as the folder
    (folder / "head.safetensors").write_bytes(save(layer, notes))
    (folder / "classes.txt").write_text("".join(f"{n}\n" for n in made.names), encoding="utf-8")
    arrays = {"fingerprint": fingerprint(clip), "logit_scale": torch.tensor(made.scale)}
    if made.embeddings is not None:
        arrays["embeddings"] = made.embeddings.contiguous()
    (folder / "classes.safetensors").write_bytes(save(arrays))
    plain: dict[str, Any] = {key: value.numpy() for key, value in arrays.items()}
    np.savez(folder / "classes.npz", names=np.array(made.names), **plain)


def library_name(clip: CLIP, library: str) -> str | None:
    """What that library calls this model; None where only the user can know.

    Raises:
        SimpromptError: the library has no such image tower.
    """
    vision = clip.config.vision
    if isinstance(vision, VisionConfig) and vision.stem:
        raise SimpromptError(
            f"{library} has no image tower like that of {clip.name}, which begins with "
            "convolutions. Take --to onnx, or --to linear for the bare class embeddings."
        )
    if isinstance(vision, EfficientNetConfig):
        raise SimpromptError(
            f"{library} has no image tower like that of {clip.name}, an EfficientNet. Take --to "
            "onnx, or --to linear for the bare class embeddings."
        )
    if library == "transformers" and isinstance(vision, ResNetConfig):
        raise SimpromptError(
            f"The image tower of {clip.name} is a ResNet, which transformers' CLIP does not have. "
            "Take --to open_clip, --to onnx or --to linear."
        )
    name = clip.source["name"]
    entry, path = catalogue.find(name), Path(name)
    layout = {"open_clip": "open_clip", "transformers": "hugging_face"}[library]
    repository = entry.repo if entry and entry.layout == layout else None
    if name.startswith("hub:"):
        repository = name.removeprefix("hub:").partition("@")[0]
    if library == "open_clip":
        if repository:
            return f"hf-hub:{repository}"
        return f"local-dir:{path}" if (path / "open_clip_config.json").is_file() else None
    if repository:
        return repository
    return str(path) if path.is_dir() and (path / "config.json").is_file() else None
