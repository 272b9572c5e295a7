"""Tensors, made of what a pickle says of their shapes and of the bytes of their storages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.layouts.common import Weights
from simprompt.clip.pickle_machine import Opaque, Refused, Storage, View

MAX_DIMENSIONS = 64
"""As torch has it."""
SHARED, SPARE_BYTES = 4, 1 << 20
"""Tensors may share and repeat the numbers of a storage: all together have at most so many times
the file's bytes, and so many bytes more."""


_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    # bytes, of a tensor that says its kind itself
    "UntypedStorage": torch.uint8,
    # quantised numbers: their tensors are refused, and past their bytes others are found
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}

_UNTYPED = (
    "uint16", "uint32", "uint64", "complex32", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
)  # fmt: skip
"""Kinds of numbers that have no storage of their own; an older torch lacks some."""


_UNREADABLE = {
    "_rebuild_sparse_tensor": "sparse: save it with .to_dense()",
    "_rebuild_qtensor": "quantised: save it with .dequantize()",
    "_rebuild_nested_tensor": "nested: save its parts",
    "_rebuild_meta_tensor_no_storage": "on the device meta, which keeps no numbers",
}
"""Tensors that are not read here, by what makes them, and what to do."""


def tensors_of(views: dict[str, View], content: Callable[[str], bytearray], size: int) -> Weights:
    """Views made tensors; each storage is read once.

    Args:
        content: all bytes of a storage, by its key.
        size: of the file.
    """
    storages: dict[str, Tensor] = {}
    budget = SHARED * size + SPARE_BYTES
    weights: Weights = {}
    for name, view in views.items():
        storage = view.storage
        if not isinstance(storage, Storage):
            maker = storage.name.rpartition(".")[2] if isinstance(storage, Opaque) else ""
            reason = _UNREADABLE.get(maker, f"of a kind that is not read here ({maker})")
            raise Refused(f"the tensor {name} is {reason}" if maker else f"{name} has no storage")
        kind = storage_dtype(storage.kind, name)
        dtype = kind if view.dtype is None else _named_dtype(view.dtype, name)
        _check(name, view)
        budget -= math.prod(view.shape) * dtype.itemsize
        if budget < 0:
            raise Refused(f"its tensors together are more than {SHARED} times as large as it")
        if storage.key not in storages:
            data = content(storage.key)
            storages[storage.key] = (
                torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
            )
        weights[name] = _tensor(name, view, kind, dtype, storages[storage.key])
    return weights


def _check(name: str, view: View) -> None:
    """Whether the numbers of a view are numbers, in the ranges of a tensor's."""
    storage, shape, stride = view.storage, view.shape, view.stride
    if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list):
        raise Refused(f"the tensor {name} has no shape")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise Refused(f"the tensor {name} has more dimensions than a tensor can have")
    sizes = (view.offset, storage.count, storage.start, *shape, *stride)
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in sizes):
        raise Refused(f"the tensor {name} has an impossible shape, stride or offset")
    if any(n >= 1 << 31 for n in shape):
        raise Refused(f"the tensor {name} is larger than any weight")


def _tensor(name: str, view: View, kind: torch.dtype, dtype: torch.dtype, stored: Tensor) -> Tensor:
    """A view of stored numbers that is inside them. Numbers may be in it more than once: it is
    expanded, or its rows overlap.

    Args:
        kind: what the storage counts in.
        dtype: of the tensor.
        stored: the bytes of the storage.
    """
    storage, shape, stride = view.storage, view.shape, view.stride
    start, end = (n * kind.itemsize for n in (storage.start, storage.start + storage.count))
    if end > len(stored):
        raise Refused(f"the storage of {name} says it is larger than it is")
    if start % dtype.itemsize:
        raise Refused(f"the tensor {name} begins in the middle of a number")
    if not math.prod(shape):
        return stored.new_empty(shape, dtype=dtype)
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if last >= (end - start) // dtype.itemsize:
        raise Refused(f"the tensor {name} reaches beyond its storage")
    numbers = stored[: len(stored) - len(stored) % dtype.itemsize].view(dtype)
    tensor = numbers.as_strided(shape, stride, start // dtype.itemsize + view.offset)
    # both are lazy in torch: the stored numbers are those before the operation
    flags = view.metadata if isinstance(view.metadata, dict) else {}
    if flags.get("conj") is True:
        tensor = tensor.conj().resolve_conj()
    if flags.get("neg") is True:
        tensor = tensor.neg()
    return tensor


def storage_dtype(kind: str, name: str) -> torch.dtype:
    """The kind of numbers of a storage, by the name of its class.

    Args:
        name: of the tensor or storage, for the message.

    Raises:
        Refused: it is of no kind that is read.
    """
    if kind not in _DTYPES:
        raise Refused(f"the tensor {name} has numbers of a kind that is not read here ({kind})")
    return _DTYPES[kind]


def _named_dtype(mark: Any, name: str) -> torch.dtype:
    """The kind of numbers of a mark such as `torch.uint16`."""
    kind = mark.name.removeprefix("torch.") if isinstance(mark, Opaque) else ""
    dtype = getattr(torch, kind, None) if kind in _UNTYPED else None
    if not isinstance(dtype, torch.dtype):
        raise Refused(
            f"the tensor {name} has numbers of a kind that is not read here ({kind or 'unknown'})"
        )
    return dtype
