"""The tensors of a TorchScript archive, read without running anything in it.

OpenAI published CLIP as TorchScript. Loading such a file the usual way compiles and may run the
code that it holds, and ``torch.load(weights_only=True)`` refuses it. What is wanted are the
tensors alone: the archive is a zip file whose ``data.pkl`` describes the module tree and points to
raw storages. This reader walks the pickle with every class but a tensor's replaced by an inert
record, and looks at nothing else in the archive.
"""

from __future__ import annotations

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simprompt.errors import SimpromptError

MAX_PICKLE = 1 << 26
"""Bytes that ``data.pkl`` may have; OpenAI's largest has less than 2 MB."""

_STORAGES = {
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
}


class _Record:
    """Stands for an object of any class in the pickle; holds its state, does nothing."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Storage:
    """Names the element type of a storage."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(n.count("/") == 1 and n.endswith("/constants.pkl") for n in names)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of an archived module by their dotted names, on the CPU.

    Raises:
        SimpromptError: the archive holds something else than a module of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            if archive.getinfo(root).file_size > MAX_PICKLE:
                raise SimpromptError(f"{path}: its description of {root} is too large to be one.")
            with archive.open(root) as file:
                tree = _Reader(file, archive, root.removesuffix("data.pkl")).load()
    except SimpromptError:
        raise
    except Exception as error:  # a pickle can be wrong in any way
        raise SimpromptError(f"{path} is not a TorchScript archive of tensors: {error}.") from error
    tensors: dict[str, Tensor] = {}
    _collect(tree, "", tensors)
    return tensors


def _collect(node: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    if isinstance(node, Tensor):
        tensors[prefix] = node
    elif isinstance(node, _Record):
        _collect(node.state, prefix, tensors)
    elif isinstance(node, dict):
        for key, value in node.items():
            _collect(value, f"{prefix}.{key}" if prefix else str(key), tensors)


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module.startswith("__torch__"):
            return _Record
        if module == "torch.jit._pickle":  # builders of typed lists; their content is not weights
            return lambda *_: None
        raise SimpromptError(
            f"{self.archive.filename} asks for {module}.{name}, which no checkpoint needs. It was "
            "not loaded; do not trust this file."
        )

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a flat tensor."""
        _, kind, key, _, _ = pid
        if key not in self.storages:
            info = self.archive.getinfo(f"{self.folder}data/{key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("compressed storage")
            buffer = bytearray(self.archive.read(info))
            self.storages[key] = torch.frombuffer(buffer, dtype=kind.dtype)
        return self.storages[key]


def _rebuild(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """A view of a storage; sizes that reach beyond it are refused."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and not (offset >= 0 and min((0, *stride)) >= 0 and last < len(storage)):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset)
