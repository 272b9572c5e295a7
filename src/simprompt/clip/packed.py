"""A ViT image tower for many images on a CPU: the same function, its weights laid out anew.

oneDNN multiplies faster when a layer's weights already lie in its blocked layout, and can apply
the activation function while a result is still in the cache. PyTorch reaches both through the
operators that its own compiler uses; they are inference only, and where a build lacks them the
plain tower does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.transformer import Block, widen
from simprompt.clip.vision import VisionTower
from simprompt.utils.memory import chunked

if TYPE_CHECKING:
    from simprompt.clip.model import ImageTower

MOST = 2**31
"""Bytes of weights up to which a second copy of them is made."""


def packed(tower: ImageTower) -> Callable[[Tensor], Tensor]:
    """What encodes pixels [B, 3, S, S] as features [B, E] like `tower`, without gradients.

    The tower itself where packing does not apply: a GPU, half precision, a convolutional tower,
    another kind of processor. Equal to the tower up to the order of floating-point sums; later
    changes of the tower's weights are not seen.
    """
    return PackedTower(tower) if isinstance(tower, VisionTower) and _applies(tower) else tower


def _applies(tower: VisionTower) -> bool:
    class_token = tower.class_embedding
    size = sum(p.numel() * p.element_size() for p in tower.parameters())
    return (
        class_token.device.type == "cpu"
        and class_token.dtype == torch.float32
        and size <= MOST
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and _works()
    )


@cache
def _works() -> bool:
    """Whether this build of PyTorch has the operators, and they do what they did when we looked:
    nobody promises them."""
    g = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(n, 16, generator=g) for n in (16, 1, 8))
    try:
        output = PackedLinear(weight, bias[0], "gelu")(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(output, F.gelu(F.linear(x, weight, bias[0])), atol=1e-4)


class PackedLinear:
    """x [..., I] -> activation(weight x + bias) [..., O]."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "none") -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias, self.activation = bias.detach(), activation

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, [], "none"
        )
        return output


class PackedBlock:
    """`Block` for inference; QuickGELU(u) = swish(1.702 u) / 1.702, factors in the weights."""

    def __init__(self, block: Block) -> None:
        self.block = block
        quick = block.activation == "quick_gelu"
        factor = 1.702 if quick else 1.0
        self.qkv = PackedLinear(block.qkv.weight, block.qkv.bias)
        self.out = PackedLinear(block.out.weight, block.out.bias)
        self.fc = PackedLinear(
            block.fc.weight * factor, block.fc.bias * factor, "swish" if quick else "gelu"
        )
        self.proj = PackedLinear(block.proj.weight / factor, block.proj.bias)

    def __call__(self, x: Tensor) -> Tensor:
        block = self.block
        q, k, v = block.split(self.qkv(block.ln_1(x)))
        # added in place: no gradient is wanted, and the sums need no memory of their own
        x = self.out(block.merge(F.scaled_dot_product_attention(q, k, v))).add_(x)
        return self.proj(self.fc(block.ln_2(x))).add_(x)


class PackedTower:
    """A `VisionTower` with packed blocks; of the last block little is computed, it stays plain."""

    def __init__(self, tower: VisionTower) -> None:
        self.tower = tower
        *earlier, self.last = tower.blocks
        self.blocks = [PackedBlock(block) for block in earlier]

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        return chunked(self.whole, pixels)

    def whole(self, pixels: Tensor) -> Tensor:
        """As a call, all images at once."""
        x = self.tower.ln_pre(self.tower.embed(pixels))
        for block in self.blocks:
            x = block(x)
        return widen(self.tower.ln_post(self.last.first(x)) @ self.tower.projection)
