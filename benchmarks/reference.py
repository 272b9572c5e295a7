"""The published way to train a prompt, written plainly: what ours is compared with.

Every class is encoded at the full context length of 77 tokens at every step, through
`nn.MultiheadAttention` with a causal mask and activations [L, N, W], and autograd keeps whatever
it keeps. Weights are copies of ours, so both compute the same numbers (`tests/test_bench.py`).
Image features are given on both sides; the published code also runs a frozen image tower each
step, which is left out here in its favour.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.methods.base import PromptLearner


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int, mask: Tensor, activation: str) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", nn.GELU() if activation == "gelu" else QuickGELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class FullLength(nn.Module):
    """The text tower of `clip` at full length, and CoOp's prompts on it."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        c = clip.config.text
        self.eot, self.length = c.eot, c.context_length
        mask = torch.full((self.length, self.length), float("-inf"), device=clip.device).triu(1)
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(c.width, c.heads, mask, c.activation) for _ in range(c.layers)
        ).to(clip.device)
        for theirs, ours in zip(self.blocks, clip.text.blocks, strict=True):
            theirs.attn.in_proj_weight.data = ours.qkv.weight
            theirs.attn.in_proj_bias.data = ours.qkv.bias
            theirs.attn.out_proj.load_state_dict(ours.out.state_dict())
            theirs.ln_1.load_state_dict(ours.ln_1.state_dict())
            theirs.ln_2.load_state_dict(ours.ln_2.state_dict())
            theirs.mlp.c_fc.load_state_dict(ours.fc.state_dict())
            theirs.mlp.c_proj.load_state_dict(ours.proj.state_dict())
        self.tower = clip.text
        self.requires_grad_(False)

    def forward(self, prefix: Tensor, tokens: Tensor, deep: Tensor | None = None) -> Tensor:
        """Normalised features [C, E] of token ids [C, 77] whose first P embeddings are `prefix`."""
        p = len(prefix)
        suffix = self.tower.token_embedding(tokens[:, p:])
        x = torch.cat([prefix.expand(len(tokens), -1, -1), suffix], dim=1)
        x = (x + self.tower.positional_embedding).permute(1, 0, 2)  # [77, C, W]
        for layer, block in enumerate(self.blocks):
            if deep is not None and 0 < layer <= len(deep):
                fresh = deep[layer - 1][:, None].expand(-1, x.shape[1], -1)
                x = torch.cat([x[:1], fresh, x[1 + len(fresh) :]])
            x = block(x)
        x = self.tower.ln_final(x.permute(1, 0, 2))
        eot = (tokens == self.eot).int().argmax(dim=-1)
        x = x[torch.arange(len(x), device=x.device), eot] @ self.tower.projection
        return F.normalize(x, dim=-1)

    def tokens(self, suffixes: Suffixes, prefix_length: int) -> Tensor:
        """Token ids [C, 77]: zeros where the prefix stands and behind EOT."""
        rows = torch.zeros(len(suffixes), self.length, dtype=torch.long)
        for row, ids in zip(rows, suffixes.ids, strict=True):
            row[prefix_length : prefix_length + len(ids)] = torch.tensor(ids)
        return rows.to(self.tower.positional_embedding.device)


def published_loss(
    tower: FullLength,
    learner: PromptLearner,
    tokens: Tensor,
    images: Tensor,
    labels: Tensor,
    teacher: Tensor | None = None,
) -> Tensor:
    """A method's published loss on features [B, E] and labels [B], from what `learner` learns.

    CoOp; KgCoOp, if its hand-crafted `teacher` [C, E] is given; deep text prompts, if the learner
    has them (MaPLe's text side); CoCoOp, with a pass over all classes for every image.
    """
    sot, scale = learner.clip.embed_prefix(), learner.clip.scale
    if learner.conditional:
        shifted = learner.ctx + learner.meta_net(images)[:, None]  # [B, M, W]
        logits = [
            scale * tower(torch.cat([sot, ctx]), tokens) @ image
            for image, ctx in zip(images, shifted, strict=True)
        ]
        return F.cross_entropy(torch.stack(logits), labels)
    text = tower(torch.cat([sot, learner.ctx]), tokens, getattr(learner, "deep", None))
    ce = F.cross_entropy(scale * images @ text.T, labels)
    if teacher is None:
        return ce
    return ce + learner.config.weight * (1 - (text * teacher).sum(-1).mean())
