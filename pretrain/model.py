"""The model while it is trained: the package's two towers, batch norm in the stem, a teacher head.

Batch norm makes a short convolutional run stable; at export it is folded into the convolutions,
so the shipped tower has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.text import TextConfig, TextTower
from simprompt.clip.transformer import Block
from simprompt.clip.vision import VisionConfig, VisionTower

TEACHER_DIM = 384  # all-MiniLM-L6-v2
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Sizes:
    """What the run may vary; everything else follows."""

    embed_dim: int = 256
    text_width: int = 192
    text_layers: int = 4
    vision_width: int = 192
    vision_layers: int = 3
    heads: int = 3
    context_length: int = 24
    stem: tuple[tuple[int, int], ...] = ((32, 2), (64, 2), (64, 1), (64, 1), (192, 2), (192, 1))


class NormedStem(nn.Module):
    """`simprompt.clip.vision.ConvStem` with batch norm after every convolution."""

    def __init__(self, stem: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        channels = [3] + [c for c, _ in stem]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], c, 3, stride, 1, bias=False)
            for i, (c, stride) in enumerate(stem)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c, _ in stem)

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(x))
            if i < last:
                y = F.gelu(y)
            x = x + y if y.shape == x.shape else y
        return x

    def folded(self) -> dict[str, Tensor]:
        """State of the equal `ConvStem`: norm(conv(x)) as one convolution with a bias."""
        state = {}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            state[f"convs.{i}.weight"] = (conv.weight * gain[:, None, None, None]).detach()
            state[f"convs.{i}.bias"] = (norm.bias - norm.running_mean * gain).detach()
        return state


class TrainingBlock(Block):
    """`Block` with attention written out: on CPUs the backward pass of the fused one in bfloat16
    took eight times as long at these sizes, a quarter of a training step."""

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        q, k, v = self.qkv_of(x)
        scores = (q * self.scale) @ k.transpose(-1, -2)
        if causal:
            future = torch.full(scores.shape[-2:], float("-inf"), dtype=scores.dtype).triu(1)
            scores = scores + future
        return self.mlp(x + self.out(self.merge(scores.softmax(-1).to(v.dtype) @ v)))


@torch.no_grad()
def start_tokens(weight: Tensor, teacher: Tensor) -> None:
    """Start whole-word token embeddings from the teacher's: their principal components.

    Args:
        weight: [V, width], changed in place.
        teacher: float32 [V, 384], a row of zeros where a token is no whole word.
    """
    known = teacher.abs().sum(1) > 0
    centred = teacher[known] - teacher[known].mean(0)
    width = weight.shape[1]
    _, _, basis = torch.linalg.svd(centred, full_matrices=False)
    reduced = centred @ basis[:width].T
    # A random turn spreads the components, so that every head sees some of each.
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))
    weight[known] = reduced @ turn * (0.03 / reduced.std())


def start_residuals(blocks: Iterable[nn.Module]) -> None:
    """Residual branches start small, as in GPT-2."""
    blocks = list(blocks)
    for block in blocks:
        assert isinstance(block, Block)
        for linear in (block.out, block.proj):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * len(blocks)))
            nn.init.zeros_(linear.bias)


class Pretraining(nn.Module):
    """Both towers, the logit scale, and a linear head from the joint space to the teacher's."""

    def __init__(self, sizes: Sizes, vocabulary: int, sot: int, eot: int) -> None:
        super().__init__()
        self.text = TextTower(
            TextConfig(
                vocabulary, sizes.context_length, sizes.text_width, sizes.text_layers, sizes.heads,
                sizes.embed_dim, sot, eot, "gelu",
            )
        )  # fmt: skip
        self.visual = VisionTower(
            VisionConfig(
                48, 8, sizes.vision_width, sizes.vision_layers, sizes.heads, sizes.embed_dim,
                "gelu", sizes.stem,
            )
        )  # fmt: skip
        self.visual.patch = NormedStem(sizes.stem).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.logit_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.teacher_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.head = nn.Linear(sizes.embed_dim, TEACHER_DIM, bias=False)
        nn.init.normal_(self.head.weight, std=sizes.embed_dim**-0.5)
        for tower in (self.text, self.visual):
            for block in tower.blocks:
                assert isinstance(block, Block)
                block.__class__ = TrainingBlock
            start_residuals(tower.blocks)

    def encode_image(self, pictures: Tensor) -> Tensor:
        """Unit features [B, E] of pictures [B, 3, 48, 48] in 0..1."""
        pixels = ((pictures - 0.5) / 0.5).to(memory_format=torch.channels_last)
        return F.normalize(self.visual(pixels).float(), dim=-1)

    def encode_text(self, rows: Sequence[Sequence[int]], buckets: int = 3) -> Tensor:
        """Unit features [T, E] of token rows (with start and end marks), padded by length."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        size = -(-len(rows) // buckets)
        parts = []
        for start in range(0, len(rows), size):
            index = order[start : start + size]
            longest = len(rows[index[-1]])
            eot = self.text.config.eot
            ids = [list(rows[i]) + [eot] * (longest - len(rows[i])) for i in index]
            parts.append(self.text(torch.tensor(ids)))
        back = torch.empty(len(rows), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(rows))
        return F.normalize(torch.cat(parts).float()[back], dim=-1)

    def to_teacher(self, features: Tensor) -> Tensor:
        """Unit vectors [N, 384] in the teacher's space."""
        return F.normalize(self.head(features), dim=-1)
