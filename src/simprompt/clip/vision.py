"""The ViT image tower; it takes extra learnable tokens per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.transformer import Block, widen
from simprompt.utils.memory import chunked


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a ViT.

    `stem` replaces the patch projection by 3x3 convolutions, each (channels, stride): GELU after
    all but the last, residual where shapes agree. The product of the strides is the patch size.
    `mlp` is the width of the blocks' hidden layer; 0 means four times `width`.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"
    stem: tuple[tuple[int, int], ...] = ()
    mlp: int = 0

    @property
    def patches(self) -> int:
        """Of an image."""
        return (self.image_size // self.patch_size) ** 2


class ConvStem(nn.Module):
    """Images [B, 3, S, S] -> a feature map [B, W, S/p, S/p]."""

    def __init__(self, stem: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        channels = [3] + [c for c, _ in stem]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], c, 3, stride, 1) for i, (c, stride) in enumerate(stem)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Each convolution that keeps the size is added to what it sees; GELU but at the end."""
        final = len(self.convs) - 1
        for i, conv in enumerate(self.convs):
            y = conv(x)
            if i < final:
                y = F.gelu(y)
            x = x + y if y.shape == x.shape else y
        return x


class VisionTower(nn.Module):
    """Class token, pre-norm, transformer, post-norm of the class token, projection."""

    blocks: Sequence[Block]  # a ModuleList, whose items mypy cannot know

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.patch: nn.Module
        if config.stem:
            self.patch = ConvStem(config.stem)
        else:
            self.patch = nn.Conv2d(3, w, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(w) * w**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(config.patches + 1, w) * w**-0.5)
        self.ln_pre = nn.LayerNorm(w)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(w, config.heads, config.activation, config.mlp) for _ in range(config.layers)
        )
        self.ln_post = nn.LayerNorm(w)
        self.projection = nn.Parameter(torch.randn(w, config.embed_dim) * w**-0.5)

    def embed(self, pixels: Tensor) -> Tensor:
        """Class token and patches with their positions, [B, 1 + N, W], of pixels [B, 3, S, S]."""
        x = self.patch(pixels.to(self.class_embedding.dtype)).flatten(2).transpose(1, 2)
        cls = self.class_embedding.expand(x.shape[0], 1, -1)
        return torch.cat([cls, x], dim=1) + self.positional_embedding

    def forward(self, pixels: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
        """Features [B, E] (not normalised) of normalised pixels [B, 3, S, S].

        `extra[0]` [M, W] is appended after the patch tokens, without positional embedding; before
        layer i the tokens `extra[i]` replace those M tokens (visual prompt tuning, deep). Extra
        tokens may be float32 in a tower of half precision; features are float32 at least.
        """
        return chunked(lambda part: self.whole(part, extra), pixels)

    def whole(self, pixels: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
        """As `forward`, all images at once."""
        dtype = self.class_embedding.dtype
        x = self.embed(pixels)
        plain = x.shape[1]
        if extra:
            x = torch.cat([x, extra[0].to(dtype).expand(x.shape[0], -1, -1)], dim=1)
        x = self.ln_pre(x)
        final = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if 0 < layer < len(extra):
                tokens = extra[layer].to(dtype).expand(x.shape[0], -1, -1)
                x = torch.cat([x[:, :plain], tokens], dim=1)
            x = block(x) if layer < final else block.first(x)  # of the last, only the class token
        return widen(self.ln_post(x) @ self.projection)
