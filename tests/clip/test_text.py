"""The fast text path is exact: equal to the naive full-length one, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simprompt.clip import text as text_module
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import TextConfig, TextTower
from simprompt.errors import SimpromptError

CONTEXT, VOCAB, SOT, EOT = 32, 50, 48, 49


def tower(dtype: torch.dtype, activation: str = "quick_gelu", seed: int = 0) -> TextTower:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = TextTower(TextConfig(VOCAB, CONTEXT, 24, 3, 4, 20, SOT, EOT, activation))
        for parameter in made.parameters():  # away from zero biases and unit gains
            torch.nn.init.normal_(parameter, std=0.3)
    return made.to(dtype).requires_grad_(False)


def suffixes_of(lengths: list[int], seed: int) -> Suffixes:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, SOT, (n,), generator=generator).tolist() for n in lengths]
    return Suffixes(tuple(f"class {i}" for i in range(len(ids))), tuple((*i, EOT) for i in ids))


def naive(
    text: TextTower, prefix: torch.Tensor, suffixes: Suffixes, deep: tuple[torch.Tensor, ...] = ()
) -> torch.Tensor:
    """Every class on its own at full context length, padded with token 0, as published code does.

    Written out with torch's own modules' formulas, not with the block under test.
    """
    rows = []
    for ids in suffixes.ids:
        own = text.token_embedding(torch.tensor(ids))
        rest = CONTEXT - len(prefix) - len(own)
        padding = text.token_embedding(torch.zeros(rest, dtype=torch.long))
        rows.append(torch.cat([prefix, own, padding]))
    x = torch.stack(rows) + text.positional_embedding
    mask = torch.full((CONTEXT, CONTEXT), float("-inf"), dtype=x.dtype).triu(1)
    for layer, block in enumerate(text.blocks):
        if 0 < layer <= len(deep):
            new = deep[layer - 1].expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], new, x[:, 1 + new.shape[1] :]], dim=1)
        normed = torch.nn.functional.layer_norm(x, x.shape[-1:], block.ln_1.weight, block.ln_1.bias)
        mixed, _ = torch.nn.functional.multi_head_attention_forward(
            normed.transpose(0, 1), normed.transpose(0, 1), normed.transpose(0, 1),
            block.width, block.heads, block.qkv.weight, block.qkv.bias, None, None, False, 0.0,
            block.out.weight, block.out.bias, attn_mask=mask, need_weights=False,
        )  # fmt: skip
        x = x + mixed.transpose(0, 1)
        hidden = block.fc(
            torch.nn.functional.layer_norm(x, x.shape[-1:], block.ln_2.weight, block.ln_2.bias)
        )
        if text.config.activation == "gelu":
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        else:
            hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        x = x + block.proj(hidden)
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], text.ln_final.weight, text.ln_final.bias)
    eot = torch.tensor([len(prefix) + ids.index(EOT) for ids in suffixes.ids])
    return x[torch.arange(len(x)), eot] @ text.projection


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def compare(
    dtype: torch.dtype,
    n_ctx: int,
    lengths: list[int],
    seed: int,
    chunk: int | None,
    deep_layers: int = 0,
    activation: str = "quick_gelu",
) -> float:
    """Largest relative difference of outputs and of gradients between both paths."""
    text = tower(dtype, activation)
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    values = [leaf(1 + n_ctx, 24), *(leaf(n_ctx, 24) for _ in range(deep_layers))]
    suffixes = suffixes_of(lengths, seed)
    weights = leaf(len(lengths), 20)
    found = []
    for path in ("fast", "naive"):
        leaves = [v.clone().requires_grad_() for v in values]
        prefix, deep = leaves[0], tuple(leaves[1:])
        if path == "fast":
            out = text.encode(prefix, suffixes, deep, chunk)
        else:
            out = naive(text, prefix, suffixes, deep)
        grads = torch.autograd.grad((out * weights).sum(), leaves)
        found.append([out.detach(), *grads])
    return max(relative(a, b) for a, b in zip(*found, strict=True))


lengths_strategy = st.lists(st.integers(1, CONTEXT - 18), min_size=1, max_size=9)


@settings(max_examples=40)
@given(
    n_ctx=st.integers(1, 16),
    lengths=lengths_strategy,
    seed=st.integers(0, 10**6),
    chunk=st.one_of(st.none(), st.integers(1, 4)),
)
def test_equals_the_naive_path_in_float64(n_ctx, lengths, seed, chunk):
    assert compare(torch.float64, n_ctx, lengths, seed, chunk) < 1e-10


@settings(max_examples=20)
@given(
    n_ctx=st.integers(1, 16),
    lengths=lengths_strategy,
    seed=st.integers(0, 10**6),
    chunk=st.one_of(st.none(), st.integers(1, 4)),
)
def test_equals_the_naive_path_in_float32(n_ctx, lengths, seed, chunk):
    assert compare(torch.float32, n_ctx, lengths, seed, chunk) < 1e-5


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("deep_layers", [1, 2])
def test_deep_prompts_keep_the_shared_prefix_exact(deep_layers, activation, chunk):
    error = compare(torch.float64, 4, [3, 1, 2, 1], 7, chunk, deep_layers, activation)
    assert error < 1e-10


@settings(max_examples=15)
@given(lengths=lengths_strategy, order=st.randoms(use_true_random=False))
def test_order_of_classes_does_not_matter(lengths, order):
    text = tower(torch.float64)
    suffixes = suffixes_of(lengths, 3)
    prefix = torch.randn(4, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    index = list(range(len(lengths)))
    order.shuffle(index)
    straight = text.encode(prefix, suffixes)[index]
    assert relative(text.encode(prefix, suffixes.select(index)), straight) < 1e-12


def test_a_batch_of_prefixes_is_each_prefix_on_its_own():
    text = tower(torch.float64)
    suffixes = suffixes_of([2, 1, 3], 5)
    prefixes = torch.randn(
        4, 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    together = text.encode(prefixes, suffixes)
    alone = torch.stack([text.encode(p, suffixes) for p in prefixes])
    assert together.shape == (4, 3, 20)
    assert relative(together, alone) < 1e-12


def test_prefix_is_differentiated_once_whatever_the_chunks(monkeypatch):
    """The gradient of the prefix's keys and values arrives summed, in one backward pass."""
    text = tower(torch.float64)
    passes = []
    real = text.prefix_memory

    def counted(*args):
        memory = real(*args)
        memory[0].register_hook(lambda grad: passes.append(1))
        return memory

    monkeypatch.setattr(text, "prefix_memory", counted)
    prefix = torch.randn(3, 24, dtype=torch.float64).requires_grad_()
    text.encode(prefix, suffixes_of([1] * 6, 0), chunk=1).sum().backward()
    assert passes == [1]


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_every_class_lies_whole_in_one_row(lengths, seed):
    suffixes = suffixes_of(lengths, seed)
    packed = suffixes.packed
    rows, width = packed.tokens.shape
    flat = packed.tokens.flatten().tolist()
    taken = set()
    for ids, start, end in zip(
        suffixes.ids, packed.starts.tolist(), packed.ends.tolist(), strict=True
    ):
        assert tuple(flat[start : end + 1]) == ids
        assert start // width == end // width
        taken |= set(range(start, end + 1))
    assert len(taken) == sum(len(ids) for ids in suffixes.ids)
    assert int((packed.owners >= 0).sum()) == len(taken)
    assert rows * width - len(taken) < max(width, rows * max(map(len, suffixes.ids)))


def test_classes_are_cut_into_chunks_when_memory_asks_for_it(monkeypatch):
    """As many at a time as the budget allows, with the same gradients."""
    text, suffixes = tower(torch.float64), suffixes_of([2, 5, 1, 3, 3, 4], 2)
    prefix = torch.randn(4, 24, dtype=torch.float64).requires_grad_()
    whole = torch.autograd.grad(text.encode(prefix, suffixes).pow(2).sum(), prefix)[0]
    sizes = []
    real = text.read
    monkeypatch.setattr(text_module, "ACTIVATIONS", 100_000)
    budget = text.affordable(suffixes)
    assert budget == 3
    monkeypatch.setattr(
        text, "read", lambda packed, *more: sizes.append(len(packed.starts)) or real(packed, *more)
    )
    cut = torch.autograd.grad(text.encode(prefix, suffixes).pow(2).sum(), prefix)[0]
    assert max(sizes) == budget
    assert sum(sizes) == 12  # forward and again in the backward pass
    assert relative(cut, whole) < 1e-12


def test_lists_of_classes_each_behind_its_own_prefix():
    text = tower(torch.float64)
    lists = [suffixes_of(lengths, i) for i, lengths in enumerate([[2, 1, 9], [3], [1] * 20])]
    prefixes = torch.randn(3, 5, 24, dtype=torch.float64)
    deep = torch.randn(3, 4, 24, dtype=torch.float64)
    together = text.encode_each(prefixes, lists, [deep])
    for i, own in enumerate(lists):
        assert relative(together[i], text.encode(prefixes[i], own, [deep[i]])) < 1e-12


def test_whole_prompts_are_read_at_the_first_eot():
    text = tower(torch.float64)
    ids = torch.tensor([[SOT, 3, 4, EOT, 7, EOT, 9]])
    assert relative(text(ids), text(ids[:, :4])) < 1e-12
    other = text(torch.tensor([[SOT, 3, 4, EOT, 8, 8, 8]]))
    assert torch.equal(text(ids), other)


def test_truncated_path_with_embeddings_equals_the_naive_one():
    text = tower(torch.float64)
    suffixes = suffixes_of([2, 2], 1)
    prefix = torch.randn(5, 24, dtype=torch.float64)
    rows = torch.stack(
        [torch.cat([prefix, text.token_embedding(torch.tensor(ids))]) for ids in suffixes.ids]
    )
    found = text.forward_embedded(rows, torch.tensor([7, 7]))
    assert relative(found, naive(text, prefix, suffixes)) < 1e-10


def test_a_name_past_the_context_is_an_error_that_names_it():
    text = tower(torch.float32)
    suffixes = Suffixes(("cat", "a very long name"), ((1, EOT), (*[2] * 30, EOT)))
    with pytest.raises(SimpromptError, match="'a very long name' takes 31 tokens"):
        text.encode(torch.zeros(5, 24), suffixes)


def test_frozen_suffix_tokens_ask_for_no_gradient():
    """Without a gradient in the prefix nothing is recorded: evaluation costs no memory."""
    text = tower(torch.float32)
    assert not text.encode(torch.zeros(5, 24), suffixes_of([2], 0)).requires_grad
