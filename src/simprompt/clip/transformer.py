"""The pre-norm transformer block that both CLIP towers are built from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = ("gelu", "quick_gelu")


def activate(x: Tensor, kind: str) -> Tensor:
    """GELU, or OpenAI's QuickGELU x * sigmoid(1.702 x)."""
    return F.gelu(x) if kind == "gelu" else x * torch.sigmoid(1.702 * x)


def widen(x: Tensor) -> Tensor:
    """Half-precision values as float32; wider ones as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def overflow(tower: str, dtype: torch.dtype) -> str:
    """What a message on numbers that are not finite adds, if the tower that made them computes in
    float16; empty for other types, whose range is that of float32."""
    if dtype != torch.float16:
        return ""
    return f": {tower} overflows in float16, which ends at 65,504; take dtype bfloat16 or float32"


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); the MLP is `mlp` wide, by default 4W.

    Queries, keys and values come from one fused projection of shape [3W, W].
    """

    def __init__(
        self, width: int, heads: int, activation: str = "quick_gelu", mlp: int = 0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.width, self.heads, self.activation = width, heads, activation
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, mlp or 4 * width)
        self.proj = nn.Linear(mlp or 4 * width, width)

    @property
    def scale(self) -> float:
        """Attention logits are q . k times this."""
        return float((self.width // self.heads) ** -0.5)

    def split(self, x: Tensor) -> Tensor:
        """[B, L, n*W] -> [n, B, heads, L, W/heads], n = 1..3 of query, key, value."""
        b, length, wide = x.shape
        n = wide // self.width
        return x.view(b, length, n, self.heads, self.width // self.heads).permute(2, 0, 3, 1, 4)

    def merge(self, x: Tensor) -> Tensor:
        """[B, heads, L, W/heads] -> [B, L, W]."""
        b, _, length, _ = x.shape
        return x.transpose(1, 2).reshape(b, length, self.width)

    def qkv_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values of x [B, L, W], each [B, heads, L, W/heads]."""
        q, k, v = self.split(self.qkv(self.ln_1(x)))
        return q, k, v

    def queries_and_keys(self, x: Tensor, only: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Queries [..., W], keys and values together [..., 2W], of x [..., W].

        With `only`, rows of x [N, W]: queries of those rows, zeros for all others.
        """
        w, h = self.width, self.ln_1(x)
        if only is None:
            q, kv = self.qkv(h).split([w, 2 * w], dim=-1)
            return q, kv
        q = F.linear(h[only], self.qkv.weight[:w], self.qkv.bias[:w])
        kv = F.linear(h, self.qkv.weight[w:], self.qkv.bias[w:])
        return torch.zeros_like(h).index_copy(0, only, q), kv

    def attend(
        self, q: Tensor, kv: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attention of q [B, L, W] over keys and values [B, S, 2W] -> [B, L, W]."""
        (q,), (k, v) = self.split(q), self.split(kv)
        if q.device.type != "cpu" or q.dtype not in (torch.bfloat16, torch.float16):
            return self.merge(F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal))
        # on CPUs the fused attention's backward pass in half precision takes four times as long
        scores = (q * self.scale) @ k.transpose(-1, -2)
        if causal:
            mask = torch.full_like(scores[0, 0], float("-inf")).triu(1)
        return self.merge((scores if mask is None else scores + mask).softmax(-1) @ v)

    def mlp(self, x: Tensor) -> Tensor:
        """x + MLP(LN(x)) of x [..., W]."""
        h = self.ln_2(x)
        if self.activation == "gelu":
            output: Tensor = self.proj(F.gelu(self.fc(h)))
            return x + output
        # QuickGELU(u) = silu(1.702 u) / 1.702 is one pass over the widest tensor; its two factors
        # are applied where tensors are narrow
        u = F.linear(1.702 * h, self.fc.weight, 1.702 * self.fc.bias)
        return torch.add(x + self.proj.bias, F.linear(F.silu(u), self.proj.weight), alpha=1 / 1.702)

    def first(self, x: Tensor) -> Tensor:
        """`forward` at position 0 alone, [B, L, W] -> [B, W]: a class token's last layer.

        All positions give keys and values, but nobody reads what the others become.
        """
        w, y = self.width, self.ln_1(x)
        k, v = self.split(F.linear(y, self.qkv.weight[w:], self.qkv.bias[w:]))
        q = self.split(F.linear(y[:, :1], self.qkv.weight[:w], self.qkv.bias[:w]))[0]
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.mlp(x[:, :1] + self.out(self.merge(attended)))[:, 0]

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """x [B, L, W] -> [B, L, W]."""
        q, k, v = self.qkv_of(x)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.mlp(x + self.out(self.merge(attended)))
