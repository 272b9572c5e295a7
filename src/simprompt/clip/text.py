"""The text tower, and the one trick that makes prompt learning fast.

CLIP's text transformer is causal and its feature is read at the end-of-text token (EOT). For the
prompts ``[SOT][ctx 1..M][class name][.][EOT]`` of many classes this means, exactly:

* nothing after EOT matters, so it is never computed;
* ``[SOT][ctx]`` is the same for every class, so it runs once per layer, and every class attends
  to its keys and values;
* of the last layer only the EOT position is needed.

What differs between classes, the suffix ``[class name][.][EOT]``, is laid out without padding
(`suffixes.Packed`): whole classes stand side by side in rows of about 32 tokens, and a mask keeps
them apart. The linear layers see one tall matrix, the prefix on top and all rows below it;
attention sees one batch of equal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simprompt.clip.suffixes import Packed, Suffixes
from simprompt.clip.transformer import Block, widen
from simprompt.errors import SimpromptError
from simprompt.utils import memory

ACTIVATIONS = 2**31  # bytes kept for the backward pass before `encode` cuts classes into chunks


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
class ClassTokens:
    """Tokens [C, M, W], one set a class, that take the context positions 1..M before `layer`."""

    tokens: Tensor
    layer: int  # counts from 0; at least 1, for positions are added in front of layer 0


class TextTower(nn.Module):
    """Causal pre-norm transformer read at EOT, with a projection to the joint space."""

    blocks: Sequence[Block]  # a ModuleList, whose items mypy cannot know

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, w)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, w))
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
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
        # the first EOT: some tokenizers pad with more of them. argmax takes no booleans
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
        if not deep:
            return memory.chunked(self._read_embedded, x, eot)
        return self._read_embedded(x, eot, deep, first)

    def _read_embedded(
        self, x: Tensor, eot: Tensor, deep: Sequence[Tensor] = (), first: int = 1
    ) -> Tensor:
        x = x.to(self.dtype) + self.positional_embedding[: x.shape[1]]
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                x = replace_tokens(x, deep[layer - 1], first)
            x = block(x, causal=True)
        return self.project(x[torch.arange(x.shape[0], device=x.device), eot])

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
                backward pass, so that memory does not grow with C. None: as many as `affordable`
                says.
            switch: from its layer on, the tokens behind SOT differ from class to class: only SOT
                is still shared, the class's tokens stand in front of its suffix. Needs one prefix
                of 1 + M positions; the classes are not cut into chunks.

        Returns:
            [C, E], or [B, C, E]; not normalised.

        Raises:
            SimpromptError: a class whose prompt is longer than the context, named.
        """
        x = prefix if prefix.dim() == 3 else prefix[None]
        self.check_length(x.shape[1], suffixes)
        chunk = chunk or self.affordable(suffixes, len(x))
        if not switch:  # where memory ran out before, in as many pieces as then were needed
            chunk = min(chunk, -(-len(suffixes) // memory.pieces(len(suffixes))))
        if switch or len(suffixes) <= chunk:
            packed = Packed.stack([suffixes.packed] * len(x)) if len(x) > 1 else suffixes.packed
            later = packed.behind(switch.tokens.shape[1]).to(x.device) if switch else None
            features = self.read(packed.to(x.device), x, None, deep, switch, later)
            features = features.view(len(x), len(suffixes), -1)
        else:
            packs = [
                Packed.stack([chunk_of_names.packed] * len(x))
                for chunk_of_names in suffixes.chunks(chunk)
            ]
            shared = self.prefix_memory(x, deep)
            reader: Callable[..., Tensor] = _ChunkedRead.apply
            features = reader(self, [p.to(x.device) for p in packs], *shared)
        return features if prefix.dim() == 3 else features[0]

    def encode_each(
        self, prefixes: Tensor, suffixes: Sequence[Suffixes], deep: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Features [C_b, E] of B lists of classes at once, each list behind a prefix of its own.

        Args:
            prefixes: [B, P, W]; deep: tokens [B, M, W] for the layers 1, 2, ...
        """
        for group in suffixes:
            self.check_length(prefixes.shape[1], group)
        width = max(group.packed.tokens.shape[1] for group in suffixes)
        packed = Packed.stack([group.pack(width) for group in suffixes])
        features = self.read(packed.to(prefixes.device), prefixes, None, deep)
        return list(features.split([len(group) for group in suffixes]))

    def affordable(self, suffixes: Suffixes, prefixes: int = 1) -> int:
        """Classes at a time whose activations stay within `ACTIVATIONS` bytes."""
        w, hidden = self.config.width, self.config.mlp or 4 * self.config.width
        size = self.positional_embedding.element_size()
        saved_bytes = (
            self.config.layers * (10 * w + hidden) * size
        )  # a token, for the backward pass
        tokens = sum(len(ids) for ids in suffixes.ids) * prefixes / len(suffixes)  # a class
        return max(1, int(ACTIVATIONS / (saved_bytes * tokens)))

    def check_length(self, prefix_length: int, suffixes: Suffixes) -> None:
        """Raise SimpromptError for a class name that has no room behind a prefix."""
        room = self.config.context_length - prefix_length
        for name, ids in zip(suffixes.names, suffixes.ids, strict=True):
            if len(ids) > room:
                raise SimpromptError(
                    f"The class name {name!r} takes {len(ids)} tokens with its full stop and end "
                    f"mark, but this model's context of {self.config.context_length} tokens leaves "
                    f"{room} behind a prefix of {prefix_length}. Shorten the name or use fewer "
                    "context tokens."
                )

    def read(
        self,
        packed: Packed,
        prefix: Tensor | None,
        memory: Sequence[Tensor] | None = None,
        deep: Sequence[Tensor] = (),
        switch: ClassTokens | None = None,
        later: Packed | None = None,
    ) -> Tensor:
        """Features [C, E] of packed suffixes that attend to their prefix and to themselves.

        Either the prefixes [B, P, W] come along and are computed in the same matrices, or their
        keys and values are known: `memory`, [B, P, 2W] for every layer. With `switch` goes `later`,
        the rows with room for its tokens (`Packed.behind`).
        """
        w, final = self.config.width, len(self.blocks) - 1
        above = prefix if memory is None else memory[0]
        assert above is not None
        b, p = above.shape[:2]
        below = self.token_embedding(packed.tokens) + self.positional_embedding[packed.offsets + p]
        mask = packed.mask(p, below.dtype)
        x, top = below.flatten(0, 1), 0  # [R*L, W]
        if prefix is not None:
            above = prefix.to(self.dtype) + self.positional_embedding[:p]
            x, top = torch.cat([above.flatten(0, 1), x]), b * p  # [B*P + R*L, W]
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                above = replace_tokens(x[:top].view(b, p, w), deep[layer - 1], 1)
                x = torch.cat([above.flatten(0, 1), x[top:]])
            if switch and layer == switch.layer:
                assert later is not None
                own_states, packed = switch.tokens.to(x.dtype), later
                rows = torch.cat([x[top:], own_states.flatten(0, 1)])[packed.tokens.flatten()]
                x, top, p = torch.cat([x[:1], rows]), 1, 1  # SOT is the prefix from here on
                mask = packed.mask(1, x.dtype)
            q, kv = block.queries_and_keys(x, packed.ends + top if layer == final else None)
            shared = kv[:top].view(b, p, 2 * w) if memory is None else memory[layer]
            own_states = kv[top:].view(*packed.tokens.shape, 2 * w)
            all_states = torch.cat(
                [shared.index_select(0, packed.prefix), own_states], dim=1
            )  # [R, P+L, 2W]
            mixed = block.attend(q[top:].view(*packed.tokens.shape, w), all_states, mask).flatten(
                0, 1
            )
            if layer == final:  # of which only EOT is read
                x, mixed = x[packed.ends + top], mixed[packed.ends]  # [C, W]
            elif top:
                above = block.attend(q[:top].view(b, p, w), shared, causal=True)
                mixed = torch.cat([above.flatten(0, 1), mixed])
            x = block.mlp(x + block.out(mixed))
        return self.project(x)

    def prefix_memory(self, prefix: Tensor, deep: Sequence[Tensor] = ()) -> list[Tensor]:
        """Keys and values [B, P, 2W] of the prefixes [B, P, W] at every layer, by themselves."""
        x = prefix.to(self.dtype) + self.positional_embedding[: prefix.shape[1]]
        memory = []
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                x = replace_tokens(x, deep[layer - 1], 1)
            q, kv = block.queries_and_keys(x)
            memory.append(kv)
            if layer < len(self.blocks) - 1:  # nobody reads the prefix's own output of the last
                x = block.mlp(x + block.out(block.attend(q, kv, causal=True)))
        return memory

    def project(self, x: Tensor) -> Tensor:
        """Last hidden states [..., W] -> text features [..., E], float32 at least."""
        return widen(self.ln_final(x) @ self.projection)


def replace_tokens(x: Tensor, tokens: Tensor, first: int) -> Tensor:
    """x [B, L, W] with positions first .. first+M-1 replaced by tokens [M, W] or [B, M, W]."""
    m = tokens.shape[-2]
    middle = tokens.to(x.dtype).expand(x.shape[0], m, x.shape[2])
    return torch.cat([x[:, :first], middle, x[:, first + m :]], dim=1)


class _ChunkedRead(torch.autograd.Function):
    """`TextTower.read` chunk by chunk, keeping no activations between chunks.

    The backward pass recomputes each chunk, adds up the gradients of the prefix's keys and values
    over the chunks, and hands them back once, so the prefix itself is differentiated once.
    """

    @staticmethod
    def forward(ctx, tower: TextTower, chunks: list[Packed], *memory: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.tower, ctx.chunks = tower, chunks
        ctx.save_for_backward(*memory)
        # autograd records nothing in here, so each chunk's activations are freed after it
        outputs = [tower.read(packed, None, memory) for packed in chunks]
        return torch.cat([output.unflatten(0, (len(memory[0]), -1)) for output in outputs], dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        memory = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        total = [torch.zeros_like(t) for t in memory]
        start = 0
        for packed in ctx.chunks:
            stop = start + len(packed.starts) // len(memory[0])
            with torch.enable_grad():
                features = ctx.tower.read(packed, None, memory)
            own_grad = grad[:, start:stop].flatten(0, 1)
            for t, g in zip(total, torch.autograd.grad(features, memory, own_grad), strict=True):
                t.add_(g)
            start = stop
        return None, None, *total
