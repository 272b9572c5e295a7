"""Files of PyTorch made by a grammar: right ones, which torch reads too, and hostile programs.

`right` makes what training programs save: tensors of all kinds of numbers and of all ways to be
arranged in a storage, inside dictionaries with whatever else is saved beside them. `hostile` makes
pickles of random instructions, each with an argument that fits, which share, nest and repeat.
"""

from __future__ import annotations

import argparse
import collections
import io
import pickletools
import random
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hostile import REBUILD, archive, number, row, storage_of, text, view

DTYPES = [
    dtype
    for name in (
        "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8",
        "bool", "complex64", "complex128", "complex32", "uint16", "uint32", "uint64",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    )
    if isinstance(dtype := getattr(torch, name, None), torch.dtype)
]  # fmt: skip
TYPED = DTYPES[: DTYPES.index(torch.complex128) + 1]
"""Those with a storage of their own kind."""


def tensor(rng: random.Random) -> Tensor:
    """Any bits, as any kind of number, arranged in any way."""
    dtype = rng.choice(DTYPES)
    count = rng.choice((1, 2, 6, 24, 60))
    bits = bytearray(rng.randbytes(count * dtype.itemsize))
    if dtype == torch.bool:
        bits = bytearray(bit & 1 for bit in bits)
    made = torch.frombuffer(bits, dtype=torch.uint8).view(dtype)
    for _ in range(rng.randrange(4)):
        made = arranged(made, rng)
    if rng.random() < 0.2 and (made.is_floating_point() or made.is_complex()):
        grad = made.dtype in TYPED and rng.random() < 0.5  # torch cannot read the others again
        parameter = nn.Parameter(made, requires_grad=grad)
        if rng.random() < 0.3:
            parameter.colour = "red"  # type: ignore[attr-defined]
        return parameter
    return made


def arranged(made: Tensor, rng: random.Random) -> Tensor:
    """The same numbers, or some of them, in another order, shape or part of their storage."""
    count = made.numel()
    ways = ["reshape", "transpose", "part", "every other", "expand", "overlap", "scalar", "empty"]
    if made.is_complex() and made.dtype != torch.complex32:
        ways += ["conj", "imag", "conj imag"] * 2
    way = rng.choice(ways)
    if way == "reshape" and count % 2 == 0 and made.is_contiguous():
        return made.view(2, -1)
    if way == "transpose" and made.ndim:
        return made.permute(*rng.sample(range(made.ndim), made.ndim))
    if way == "part" and made.ndim and made.shape[0] > 1:
        return made[rng.randrange(made.shape[0]) :]
    if way == "every other" and made.ndim:
        return made[:: rng.choice((1, 2, 3))]
    if way == "expand" and made.ndim < 6:
        return made.unsqueeze(0).expand(rng.choice((1, 3)), *made.shape)
    if way == "overlap" and made.ndim == 1 and made.stride() == (1,) and count > 2:
        return made.unfold(0, 2, 1)
    if way == "scalar" and count:
        return made[(0,) * made.ndim]
    if way == "empty" and made.ndim:
        return made[:0]
    if way == "conj":
        return made.conj()
    if way == "imag":
        return made.imag
    if way == "conj imag":  # torch keeps its sign as a mark, not in the numbers
        return made.conj().imag
    return made


def state_dict(rng: random.Random) -> dict[str, Tensor]:
    """Tensors by dotted names; some share a storage."""
    made: dict[str, Tensor] = collections.OrderedDict() if rng.random() < 0.5 else {}
    for number_ in range(rng.randint(1, 6)):
        name = ".".join(rng.choices(("visual", "text", "weight", "é", "0", "ln"), k=3))
        one = tensor(rng)
        made[f"{name}{number_}"] = one
        tied = arranged(one.detach(), rng)
        if rng.random() < 0.3 and tied.dtype == one.dtype:  # torch saves no other
            made[f"{name}{number_}.tied"] = tied
    return made


def beside(rng: random.Random) -> dict[Any, Any]:
    """What a training program saves with its weights."""
    every: list[tuple[Any, Any]] = [
        ("epoch", 3), ("best", np.float64(81.2)), ("curve", np.arange(5)), ("names", {"a", "b"}),
        ("args", argparse.Namespace(lr=0.1, out="a")), ((1, 2), "a key of two numbers"),
        (7, [1.5, None, True, b"bytes", bytearray(b"more"), frozenset([1])]), ("big", 1 << 200),
        ("kind", nn.Linear), ("long", "x" * 3000), ("dtype", torch.float16), ("path", Path("a")),
        ("random", torch.get_rng_state()), ("sparse", torch.eye(2).to_sparse()),
        ("counts", collections.Counter("aab")), ("size", torch.Size([1, 2])), ("j", 1j),
        ("optimizer", {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]}),
    ]  # fmt: skip
    return dict(rng.sample(every, rng.randrange(6)))


def right(rng: random.Random) -> tuple[bytes, dict[str, Tensor]]:
    """A file of PyTorch, and its state dict as torch reads it: with `weights_only` where it can."""
    made, path = state_dict(rng), ""
    content: Any = made
    if rng.random() < 0.6:
        path = rng.choice(("state_dict", "model_state_dict", "weights", "net"))
        content = {**beside(rng), path: made}
    protocol = rng.choice((2, 2, 3, 4, 5))
    # torch writes these in the older form and cannot read them again
    untyped = any(one.dtype not in TYPED for one in made.values())
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse tensors, and of the older form
        torch.save(
            content, out, pickle_protocol=protocol,
            _use_new_zipfile_serialization=untyped or rng.random() < 0.6,
        )  # fmt: skip
        out.seek(0)
        read = torch.load(out, weights_only=protocol == 2 and not path)
    return out.getvalue(), read[path] if path else read


def same_bits(given: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors have the same kind, shape and bits."""
    if given.dtype != wanted.dtype or given.shape != wanted.shape:
        return False

    def bits(one: Tensor) -> Tensor:
        if one.dtype == torch.complex32:  # torch has few functions for it
            one = torch.view_as_real(one.detach().resolve_conj())
        one = one.detach().resolve_conj().resolve_neg()
        return one.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)

    return torch.equal(bits(given), bits(wanted))


# ------------------------------------------------------------------------------- programs

_GLOBALS = (
    REBUILD, b"ctorch._utils\n_rebuild_tensor_v3\n", b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_sparse_tensor\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nuint16\n",
    b"cos\nsystem\n", b"c__torch__\nM\n", b"cbuiltins\ndict\n", b"ccollections\ndefaultdict\n",
)  # fmt: skip
_WORDS = ("", "a", "visual.w", "storage", "0", "state_dict", "_modules", "_parameters", "n" * 1000)
_MEMO = 6


def _value(rng: random.Random) -> bytes:
    kind = rng.randrange(14)
    if kind < 3:
        return text(rng.choice(_WORDS))
    if kind < 5:
        return number(rng.choice((0, 1, 4, -1, 1 << 31, 1 << 62, 1 << 63)))
    if kind < 7:
        return b"h" + bytes([rng.randrange(_MEMO)])
    if kind == 7:
        return rng.choice(_GLOBALS)
    if kind == 8:
        key = text("0") if rng.random() < 0.7 else _value(rng)
        return storage_of(key)
    if kind == 9:
        shape = [rng.choice((0, 1, 2, 4, 1 << 30)) for _ in range(rng.randrange(4))]
        stride = [rng.choice((0, 1, 2, 1 << 40)) for _ in shape]
        return view(shape, stride, rng.choice((0, 0, 3, -1)))
    return rng.choice((b"N", b"\x88", b")", b"]", b"}", b"(", b"G" + bytes(8)))


def _instruction(rng: random.Random) -> bytes:
    """An instruction of `pickletools`, with an argument that it can have."""
    op = rng.choice(pickletools.opcodes)
    code = op.code.encode("latin-1")
    if op.arg is None:
        return code
    if op.arg.name in ("uint1", "int4", "uint4", "uint2", "uint8", "float8"):
        size = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8}[op.arg.name]
        small = rng.random() < 0.9
        return code + (bytes([rng.randrange(_MEMO)]).ljust(size, b"\0") if small
                       else rng.randbytes(size))  # fmt: skip
    if (op.arg.n < 0 and "nl" in op.arg.name) or op.arg.n == pickletools.UP_TO_NEWLINE:
        lines = 2 if "pair" in op.arg.name else 1
        return code + b"".join(
            rng.choice((b"1", b"00", b"0x", b"abc", b"9" * 30, b"'a'", b"os", b"2L")) + b"\n"
            for _ in range(lines)
        )
    data = rng.choice((b"", b"a", b"abc", b"\xff" * 20, b"\xed\xa0\x80"))
    size = {"1": "<B", "4": "<I", "8": "<Q"}[op.arg.name[-1]]
    length = len(data) if rng.random() < 0.9 else rng.choice((200, 100))
    return code + struct.pack(size, length) + data


def program(rng: random.Random) -> bytes:
    """Random instructions; some are repeated, so that what they share or nest grows."""
    parts = [b"\x80" + bytes([rng.choice((2, 4, 5))])]
    for index in range(_MEMO):  # something to share
        parts.append(_value(rng) + b"q" + bytes([index]))
    for _ in range(rng.randint(1, 40)):
        block = b"".join(
            _value(rng) if rng.random() < 0.6 else _instruction(rng)
            for _ in range(rng.randint(1, 6))
        )
        block += rng.choice((b"", b"2\x86", b"R", b"\x93", b"Q", b"b", b"s", b"a", b"t", b"u", b"d",
                             b"q" + bytes([rng.randrange(_MEMO)])))  # fmt: skip
        parts.append(block * rng.choice((1, 1, 1, 2, 60, 2000)))
    return b"".join(parts)[: 1 << 19] + b"."


def hostile(rng: random.Random) -> bytes:
    """A file with such a program, in either form."""
    made = program(rng)
    if rng.random() < 0.6:
        return archive(made)
    listed = program(rng) if rng.random() < 0.3 else None
    return row(made, ["0"], rng.choice((4, 4, 0, -1, 1 << 60)), listed)
