"""The text tower, and the one trick that makes prompt learning fast.

CLIP's text transformer is causal and its feature is read at the end-of-text token (EOT). For the
prompts ``[SOT][ctx 1..M][class name][.][EOT]`` of many classes this means, exactly:

* nothing after EOT matters, so it is never computed;
* ``[SOT][ctx]`` is the same for every class, so it runs once per layer, and every class attends
  to its keys and values (`PrefixMemory`);
* of the last layer only the EOT position is needed.

What differs between classes, the suffix ``[class name][.][EOT]``, is packed without padding
(`Suffixes.pack`): the linear layers see one long row of tokens, and attention runs once per
distinct suffix length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.transformer import Block, widen
from simprompt.errors import SimpromptError


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text tower; `eot` is the token id at which the feature is read.

    `mlp` is the width of the blocks' hidden layer; 0 means four times `width`.
    """

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    sot: int
    eot: int
    activation: str = "quick_gelu"
    mlp: int = 0


@dataclass(frozen=True)
class Suffixes:
    """What stands after the shared prefix, one row of token ids a class, each ending in EOT."""

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Sequence[int]) -> Suffixes:
        """The classes at `index`, in that order."""
        return Suffixes(
            tuple(self.names[i] for i in index), tuple(self.ids[i] for i in index)
        )

    def chunks(self, size: int) -> Iterator[Suffixes]:
        """Consecutive pieces of at most `size` classes."""
        for start in range(0, len(self), size):
            yield self.select(range(start, min(start + size, len(self))))

    def pack(self, device: torch.device) -> Packed:
        """Token ids in one row, classes ordered by length so that equal lengths are adjacent."""
        order = sorted(range(len(self)), key=lambda i: len(self.ids[i]))
        tokens, offsets, ends, groups = [], [], [], []
        for i in order:
            length = len(self.ids[i])
            if groups and groups[-1][1] == length:
                groups[-1][0] += 1
            else:
                groups.append([1, length])
            tokens.extend(self.ids[i])
            offsets.extend(range(length))
            ends.append(len(tokens) - 1)
        back = [0] * len(order)
        for rank, i in enumerate(order):
            back[i] = rank
        return Packed(
            torch.tensor(tokens, device=device),
            torch.tensor(offsets, device=device),
            torch.tensor(ends, device=device),
            torch.tensor(back, device=device),
            tuple((count, length) for count, length in groups),
        )


@dataclass(frozen=True)
class ClassTokens:
    """Tokens [C, M, W], one set a class, that take the context positions 1..M before `layer`."""

    tokens: Tensor
    layer: int  # counts from 0; at least 1, for positions are added in front of layer 0


@dataclass(frozen=True)
class Packed:
    """`Suffixes` as tensors: T tokens of C classes without padding."""

    tokens: Tensor  # [T] token ids
    offsets: Tensor  # [T] position within the suffix
    ends: Tensor  # [C] where each class's EOT stands, in packed order
    back: Tensor  # [C] packed rank of each class in the caller's order
    groups: tuple[tuple[int, int], ...]  # (classes, tokens per class), in packed order


# Keys and values of the shared prefix, one pair a layer, each [B, heads, P, W/heads].
PrefixMemory = list[tuple[Tensor, Tensor]]


class TextTower(nn.Module):
    """Causal pre-norm transformer read at EOT, with a projection to the joint space."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, w)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, w))
        self.blocks = nn.ModuleList(
            Block(w, config.heads, config.activation, config.mlp) for _ in range(config.layers)
        )
        self.ln_final = nn.LayerNorm(w)
        self.projection = nn.Parameter(torch.empty(w, config.embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.projection, std=w**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in; prompts come in float32 and features leave in it."""
        return self.positional_embedding.dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Features [C, E] of whole prompts `ids` [C, L], L <= context length; read at first EOT."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]  # [C, L, W]
        for block in self.blocks:
            x = block(x, causal=True)
        eot = (ids == self.config.eot).int().argmax(dim=1)
        return self.project(x[torch.arange(len(ids), device=ids.device), eot])

    def forward_embedded(
        self, x: Tensor, eot: Tensor, deep: Sequence[Tensor] = (), first: int = 1
    ) -> Tensor:
        """Features [C, E] of embedded prompts x [C, L, W] (no positions yet), read at `eot` [C].

        The plain path, for prompts that share no prefix (class-specific contexts, contexts in the
        middle). Before layer i+1 the tokens deep[i] ([M, W] or [C, M, W]) replace the positions
        first .. first+M-1.
        """
        x = x.to(self.dtype) + self.positional_embedding[: x.shape[1]]
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                x = replace_tokens(x, deep[layer - 1], first)
            x = block(x, causal=True)
        return self.project(x[torch.arange(len(x), device=x.device), eot])

    def encode(
        self,
        prefix: Tensor,
        suffixes: Suffixes,
        deep: Sequence[Tensor] = (),
        chunk: int | None = None,
        switch: ClassTokens | None = None,
    ) -> Tensor:
        """Text features of every class behind a shared prefix; exact, differentiable in `prefix`.

        Args:
            prefix: embeddings of [SOT][ctx], without positions: [P, W], or [B, P, W] for B
                prefixes (one an image in CoCoOp).
            suffixes: the C classes.
            deep: tokens [M, W] that replace the positions 1..M before layers 1, 2, ...
            chunk: encode at most this many classes at a time and recompute each chunk in the
                backward pass, so that memory does not grow with C.
            switch: from its layer on, the tokens behind SOT differ from class to class: only SOT
                is still shared, the class's tokens stand in front of its suffix. Needs a prefix
                of 1 + M positions and no `chunk`.

        Returns:
            [C, E], or [B, C, E]; not normalised.

        Raises:
            SimpromptError: a class whose prompt is longer than the context, named.
        """
        batched = prefix.dim() == 3
        x = prefix if batched else prefix[None]
        self.check_length(x.shape[1], suffixes)
        memory = self.prefix_memory(x, deep, switch.layer if switch else None)
        if switch or chunk is None or len(suffixes) <= chunk:
            features = self.read(memory, suffixes.pack(prefix.device), switch)
        else:
            packed = [part.pack(prefix.device) for part in suffixes.chunks(chunk)]
            flat = [t for pair in memory for t in pair]
            features = _ChunkedRead.apply(self, packed, *flat)
        return features if batched else features[0]

    def check_length(self, prefix_length: int, suffixes: Suffixes) -> None:
        room = self.config.context_length - prefix_length
        for name, ids in zip(suffixes.names, suffixes.ids, strict=True):
            if len(ids) > room:
                raise SimpromptError(
                    f"The class name {name!r} takes {len(ids)} tokens with its full stop and end "
                    f"mark, but this model's context of {self.config.context_length} tokens leaves "
                    f"{room} behind a prefix of {prefix_length}. Shorten the name or use fewer "
                    "context tokens."
                )

    def prefix_memory(
        self, prefix: Tensor, deep: Sequence[Tensor] = (), only_sot_from: int | None = None
    ) -> PrefixMemory:
        """Keys and values of the prefix [B, P, W] at every layer (of SOT alone from a layer on)."""
        x = prefix.to(self.dtype) + self.positional_embedding[: prefix.shape[1]]
        memory: PrefixMemory = []
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                x = replace_tokens(x, deep[layer - 1], 1)
            if layer == only_sot_from:
                x = x[:, :1]
            q, k, v = block.qkv_of(x)
            memory.append((k, v))
            if layer < last:  # nobody reads the prefix's own output of the last layer
                attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = block.mlp(x + block.out(block.merge(attended)))
        return memory

    def read(
        self, memory: PrefixMemory, packed: Packed, switch: ClassTokens | None = None
    ) -> Tensor:
        """Features [B, C, E] of packed suffixes that attend to the prefix and to themselves."""
        prefix_length = memory[0][0].shape[2]
        x = self.token_embedding(packed.tokens)
        x = (x + self.positional_embedding[prefix_length + packed.offsets])[None]  # [1, T, W]
        last = len(self.blocks) - 1
        for layer, (block, (k, v)) in enumerate(zip(self.blocks, memory, strict=True)):
            if switch and layer == switch.layer:
                x, packed = put_in_front(x, packed, switch.tokens.to(x.dtype))
            attended = _attend(block, x, k, v, packed, only_eot=layer == last)
            if layer == last:
                x = x[:, packed.ends]
            x = block.mlp(x + block.out(block.merge(attended)))
        return self.project(x[:, packed.back])

    def project(self, x: Tensor) -> Tensor:
        return widen(self.ln_final(x) @ self.projection)


def replace_tokens(x: Tensor, tokens: Tensor, first: int) -> Tensor:
    """x [B, L, W] with positions first .. first+M-1 replaced by tokens [M, W] or [B, M, W]."""
    m = tokens.shape[-2]
    middle = tokens.to(x.dtype).expand(x.shape[0], m, x.shape[2])
    return torch.cat([x[:, :first], middle, x[:, first + m :]], dim=1)


def put_in_front(x: Tensor, packed: Packed, tokens: Tensor) -> tuple[Tensor, Packed]:
    """Packed suffixes x [B, T, W] with each class's own tokens [C, M, W] before its suffix."""
    c, m, w = tokens.shape
    ordered = tokens[packed.back.argsort()]  # packed order
    parts = []
    token = row = 0
    for count, length in packed.groups:
        own = x[:, token : token + count * length].reshape(len(x), count, length, w)
        front = ordered[row : row + count].expand(len(x), -1, -1, -1)
        parts.append(torch.cat([front, own], dim=2).flatten(1, 2))
        token += count * length
        row += count
    longer = replace(  # offsets stay as they were: positions were added at the embedding
        packed,
        ends=packed.ends + m * torch.arange(1, c + 1, device=x.device),
        groups=tuple((count, length + m) for count, length in packed.groups),
    )
    return torch.cat(parts, dim=1), longer


def _attend(
    block: Block, x: Tensor, prefix_k: Tensor, prefix_v: Tensor, packed: Packed, only_eot: bool
) -> Tensor:
    """Attention of suffix tokens x [B or 1, T, W] -> [B, heads, T, d] (T -> C if only_eot).

    Scores against the prefix are one matrix product for all classes: its keys are never copied
    per class. The softmax runs over [prefix | own earlier tokens] of each length group.
    """
    q, k, v = block.qkv_of(x)  # each [b, H, T, d]
    if only_eot:
        q = q[:, :, packed.ends]
    q = q * block.scale
    to_prefix = q @ prefix_k.transpose(-1, -2)  # [B, H, T, P]
    batch, heads, _, p = to_prefix.shape
    d = q.shape[-1]
    on_prefix, own = [], []
    token = row = 0
    for count, length in packed.groups:
        rows = 1 if only_eot else length  # queries per class

        def grouped(t: Tensor, start: int, n: int, count: int = count) -> Tensor:
            part = t[:, :, start : start + count * n]
            return part.reshape(t.shape[0], heads, count, n, t.shape[-1])

        scores = grouped(q, row, rows) @ grouped(k, token, length).transpose(-1, -2)
        if rows > 1:  # [b, H, c, n, n]; a token sees itself and what stands before it
            future = torch.ones(rows, length, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        scores = scores.expand(batch, -1, -1, -1, -1)
        weights = torch.cat([grouped(to_prefix, row, rows), scores], dim=-1).softmax(dim=-1)
        on_prefix.append(weights[..., :p].reshape(batch, heads, count * rows, p))
        mixed = weights[..., p:] @ grouped(v, token, length)
        own.append(mixed.reshape(batch, heads, count * rows, d))
        token += count * length
        row += count * rows
    return torch.cat(on_prefix, dim=2) @ prefix_v + torch.cat(own, dim=2)


class _ChunkedRead(torch.autograd.Function):
    """`TextTower.read` chunk by chunk, keeping no activations between chunks.

    The backward pass recomputes each chunk, adds up the gradients of the prefix's keys and values
    over the chunks, and hands them back once, so the prefix itself is differentiated once.
    """

    @staticmethod
    def forward(ctx, tower: TextTower, chunks: list[Packed], *flat: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.tower, ctx.chunks = tower, chunks
        ctx.save_for_backward(*flat)
        memory = list(zip(flat[0::2], flat[1::2], strict=True))
        return torch.cat([tower.read(memory, packed) for packed in chunks], dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        flat = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        memory = list(zip(flat[0::2], flat[1::2], strict=True))
        total = [torch.zeros_like(t) for t in flat]
        start = 0
        for packed in ctx.chunks:
            stop = start + len(packed.ends)
            with torch.enable_grad():
                features = ctx.tower.read(memory, packed)
            grads = torch.autograd.grad(features, flat, grad[:, start:stop])
            for t, g in zip(total, grads, strict=True):
                t.add_(g)
            start = stop
        return None, None, *total
