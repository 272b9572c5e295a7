"""OpenAI's image tower for RN50 ... RN50x64: a ResNet that ends in attention pooling.

Unlike the usual ResNet it begins with three 3x3 convolutions and an average pool, strides by
average pooling in front of a 1x1 convolution, and pools the last feature map with one step of
multi-head attention whose query is the map's mean (Radford et al. 2021, section 2.4). Parameter
names are OpenAI's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.transformer import widen
from simprompt.utils.memory import chunked

STRIDE = 32
"""Pixels of the image a position of the last feature map stands for."""


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ModifiedResNet: `layers` bottlenecks a stage, `width` channels in the first."""

    image_size: int
    layers: tuple[int, int, int, int]
    width: int
    heads: int
    embed_dim: int


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool where it strides, 1x1 to four times as many channels; residual."""

    def __init__(self, channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != 4 * planes:
            # OpenAI numbers these 0 and 1; the average pool in front has no weights
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, h, w] -> [B, 4P, h/s, w/s]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self._shrink(y)))
        if self.downsample is not None:
            x = self.downsample(self._shrink(x))
        return F.relu(x + y)

    def _shrink(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """One query, the mean of the map, attends to itself and to all positions."""

    def __init__(self, positions: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"its attention pool of width {width} has {heads} heads")
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(positions + 1, width) * width**-0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, W, h, w] -> [B, E]."""
        x = x.flatten(2).transpose(1, 2)  # [B, N, W]
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        b, _, w = x.shape

        def heads(t: Tensor) -> Tensor:
            return t.view(b, -1, self.heads, w // self.heads).transpose(1, 2)

        # the query of the mean alone: nobody reads what the other positions become
        q, k, v = heads(self.q_proj(x[:, :1])), heads(self.k_proj(x)), heads(self.v_proj(x))
        pooled = F.scaled_dot_product_attention(q, k, v)  # [B, heads, 1, W/heads]
        features: Tensor = self.c_proj(pooled.transpose(1, 2).reshape(b, w))
        return features


class ModifiedResNet(nn.Module):
    """Stem, four stages of bottlenecks, attention pool."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.conv1 = nn.Conv2d(3, w // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(w // 2)
        self.conv2 = nn.Conv2d(w // 2, w // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(w // 2)
        self.conv3 = nn.Conv2d(w // 2, w, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(w)
        channels = w
        for stage, blocks in enumerate(config.layers):
            planes, stride = w * 2**stage, 1 if stage == 0 else 2
            layer = []
            for block in range(blocks):
                layer.append(Bottleneck(channels, planes, stride if block == 0 else 1))
                channels = 4 * planes
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        side = config.image_size // STRIDE
        self.attnpool = AttentionPool(side * side, channels, config.heads, config.embed_dim)

    def forward(self, pixels: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
        """Features [B, E] (not normalised, float32 at least) of normalised pixels [B, 3, S, S].

        Raises:
            ValueError: extra tokens; a convolutional tower has no place for them.
        """
        if extra:
            raise ValueError("a ResNet image tower takes no visual prompts; choose a ViT model")
        return chunked(self.whole, pixels)

    def whole(self, pixels: Tensor) -> Tensor:
        """As `forward`, all images at once."""
        x = F.relu(self.bn1(self.conv1(pixels.to(self.conv1.weight.dtype))))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.avg_pool2d(x, 2)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return widen(self.attnpool(x))
