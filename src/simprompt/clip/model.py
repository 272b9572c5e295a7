"""CLIP = image tower + text tower + tokenizer + preprocessing + logit scale, all frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from simprompt.clip.efficientnet import EfficientNet, EfficientNetConfig
from simprompt.clip.preprocess import RESAMPLING, Preprocess
from simprompt.clip.resnet import STRIDE, ModifiedResNet, ResNetConfig
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import TextConfig, TextTower
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.transformer import widen
from simprompt.clip.vision import VisionConfig, VisionTower
from simprompt.errors import check_count
from simprompt.utils.devices import one_thread_after_fork, to_device
from simprompt.utils.memory import OOMRetry, advice

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

ImageConfig = VisionConfig | ResNetConfig | EfficientNetConfig
ImageTower = VisionTower | ModifiedResNet | EfficientNet

LARGEST = 1 << 24
"""Of any size in a configuration."""
MOST_PIXELS = 1024
"""A side of the images of a model: published CLIPs have 224 to 448."""
MOST_PATCHES = 4096
"""Of an image: attention takes memory by their square. Published CLIPs have 49 to 1,024."""
MAY_BE_ZERO = ("mlp", "sot", "eot")


@dataclass(frozen=True)
class CLIPConfig:
    """Everything but the weights and the vocabulary.

    Raises:
        ValueError: a size that is none, or numbers that no pixels can be scaled by.
    """

    text: TextConfig
    vision: ImageConfig
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    logit_scale: float = math.log(1 / 0.07)  # the natural logarithm, as it is stored
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        for name, size in (*_sizes(self.text), *_sizes(self.vision)):
            least = 0 if name in MAY_BE_ZERO else 1
            if not isinstance(size, int) or not least <= size <= LARGEST:
                raise ValueError(f"its {name} is {size!r:.80}")
        patch, image = getattr(self.vision, "patch_size", 1), self.vision.image_size
        if patch > image:
            raise ValueError(f"its patches have {patch} pixels, its images {image}")
        for name in ("mean", "std"):
            colours = getattr(self, name)
            if len(colours) != 3 or not all(math.isfinite(value) for value in colours):
                raise ValueError(f"its {name} is {colours!r:.80}")
        if 0 in self.std or not math.isfinite(self.logit_scale):
            raise ValueError(f"its std is {self.std!r:.80}, its logit_scale {self.logit_scale!r}")
        step = patch if isinstance(self.vision, VisionConfig) else STRIDE
        if image > MOST_PIXELS or (image // step) ** 2 > MOST_PATCHES:
            raise ValueError(
                f"its images have {image:,} pixels a side in patches of {step}; at most "
                f"{MOST_PIXELS:,} pixels and {MOST_PATCHES:,} patches are computed"
            )
        mode, _, scaled = self.resize_mode.partition(":")
        fits = scaled.isdecimal() and image <= int(scaled[:9]) <= 2 * MOST_PIXELS
        if mode not in ("shortest", "squash") or (":" in self.resize_mode and not fits):
            raise ValueError(f"its resize_mode is {self.resize_mode!r:.80}")
        if self.interpolation not in RESAMPLING:
            raise ValueError(f"its interpolation is {self.interpolation!r:.80}")


def _sizes(tower: TextConfig | ImageConfig) -> Iterator[tuple[str, Any]]:
    """The fields of a tower that are whole numbers, by name."""
    for name, value in vars(tower).items():
        if name in ("stem", "stages"):
            yield from ((name, size) for row in value for size in row)
        elif isinstance(value, tuple):
            yield from ((name, size) for size in value)
        elif name != "activation":
            yield name, value


def _image_tower(config: ImageConfig) -> ImageTower:
    if isinstance(config, ResNetConfig):
        return ModifiedResNet(config)
    if isinstance(config, EfficientNetConfig):
        return EfficientNet(config)
    return VisionTower(config)


class CLIP(nn.Module):
    """A frozen CLIP; no parameter ever asks for a gradient.

    Attributes:
        name: what it is called in messages, results and the feature cache.
        source: arguments with which `load_clip` gives this model again.
        notes: what was put in or left out when it was loaded, one sentence each.
    """

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer, name: str = "clip") -> None:
        super().__init__()
        one_thread_after_fork()
        self.config, self.tokenizer, self.name = config, tokenizer, name
        self.source: dict[str, Any] = {"name": name}
        self.notes: tuple[str, ...] = ()
        self.text = TextTower(config.text)
        self.visual = _image_tower(config.vision)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))
        self.preprocess = Preprocess(
            config.vision.image_size,
            config.mean,
            config.std,
            config.interpolation,
            config.resize_mode,
        )
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where weights and features are."""
        return self.logit_scale.device

    @property
    def embed_dim(self) -> int:
        """Numbers in a feature, E."""
        return self.config.text.embed_dim

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before the softmax, exp(logit_scale)."""
        return float(self.logit_scale.exp())

    def scaled(self, x: Tensor) -> Tensor:
        """`scale` times `x`; the factor is not read from the device."""
        return self.logit_scale.exp() * x

    def suffixes(self, names: Sequence[str], ending: str = ".") -> Suffixes:
        """Token ids of `name` + `ending` + EOT: what stands behind a learnable context."""
        ids = [(*self.tokenizer.encode(name + ending), self.tokenizer.eot) for name in names]
        return Suffixes(tuple(names), tuple(ids))

    def embed_prefix(self, words: str = "") -> Tensor:
        """Embeddings [1 + n, W] of SOT and the tokens of `words`, without positions."""
        return self.embed([self.tokenizer.sot, *self.tokenizer.encode(words)])

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [N, W] of token ids, without positions.

        float32 at least, whatever the tower computes in: learned prompts start from them.
        """
        tokens = to_device(torch.tensor(ids, dtype=torch.long), self.device)
        return widen(self.text.token_embedding(tokens))

    @torch.no_grad()
    def encode_texts(
        self, texts: Sequence[str], chunk: int = 1024, unnormalized: bool = False
    ) -> Tensor:
        """L2-normalised text features [N, E] of whole sentences; `unnormalized`: not normalised.

        Raises:
            SimpromptError: `chunk` is not a whole number >= 1.
        """
        check_count(chunk, "chunk")
        whole = self.suffixes(texts, ending="")
        retry = OOMRetry("Encoding the class names", advice(self.device.type))
        features = retry(lambda: self.text.encode(self.embed_prefix(), whole, chunk=chunk))
        return features if unnormalized else F.normalize(features, dim=-1)

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, batch: int = 256, unnormalized: bool = False) -> Tensor:
        """L2-normalised image features [N, E] of preprocessed pixels [N, 3, S, S], which are moved
        to the model's device batch by batch; `unnormalized`: as they leave the tower.

        Raises:
            SimpromptError: `batch` is not a whole number >= 1.
        """
        check_count(batch, "batch")
        retry = OOMRetry("Encoding images", advice(self.device.type))

        def encode(part: Tensor) -> Tensor:
            features: Tensor = retry(lambda: self.visual(to_device(part, self.device)))
            return features

        parts = [encode(part) for part in pixels.split(batch)]
        features = torch.cat(parts) if parts else self.logit_scale.new_zeros(0, self.embed_dim)
        return features if unnormalized else F.normalize(features, dim=-1)

    def encode_images(self, images: Sequence[Image.Image], unnormalized: bool = False) -> Tensor:
        """L2-normalised image features [N, E] of Pillow images; `unnormalized`: not normalised."""
        if not images:
            return torch.zeros(0, self.embed_dim, device=self.device)
        pixels = torch.stack([self.preprocess(i) for i in images])
        return self.encode_pixels(pixels, unnormalized=unnormalized)
