"""Weights that PyTorch pickled, read without running anything in the file.

What ``torch.save`` writes (a zip archive, or before PyTorch 1.6 a row of pickles with the numbers
behind them) and TorchScript archives hold a pickle, which is a program: loaded the usual way it
calls whatever it names. `_Machine` runs that program on plain containers alone. It imports
nothing, calls nothing, and puts an inert mark in the place of every object that is no name, whole
number, container or tensor: numpy scalars, a Namespace, an optimizer's or a model's class. So
weights are read past whatever a training program saved beside them.

A file may be made to harm. Reading is linear in the size of the file, in time and in memory, and
`_Budget` is what holds it to that: each instruction, each element that is copied out of a container
and each character that is joined to a name is paid from one budget for the file. Text and whole
numbers are the only values that are ever hashed, compared or written into a message, because a
nested tuple of 200 bytes can take forever to hash or to print.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from simprompt.clip.layouts.common import CheckpointError, Weights
from simprompt.utils.files.regular import WEIGHTS, open_regular

MAX_PICKLE = 1 << 26
"""Bytes of a pickle without its numbers; OpenAI's largest archive has less than 2 MB."""
MAX_STEPS = 1 << 21
"""Steps of a file: an instruction, or an element that is copied. A state dict has some 40
instructions per tensor, an optimizer twice as many."""
STEPS_PER_BYTE, SPARE_STEPS = 2, 1 << 12
"""A file may take so many steps for each of its bytes, and so many more."""
MAX_TENSORS = 100_000
MAX_DEPTH = 64
"""Of modules inside each other, and of dictionaries around a state dict."""
MAX_DIMENSIONS = 64
"""As torch has it."""
MAX_NAME = 1024
"""Characters; a longer text names no tensor."""
SHARED, SPARE_BYTES = 4, 1 << 20
"""Tensors may share and repeat the numbers of a storage: all together have at most so many times
the file's bytes, and so many bytes more."""

STATE_DICTS = ("state_dict", "model_state_dict", "model", "module", "weights", "net")
"""Under which names training programs keep the weights, in the order they are looked for."""

_MAGIC = 0x1950A86A20F9469CFC6C  # how a file of a row of pickles begins

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

_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")

_UNREADABLE = {
    "_rebuild_sparse_tensor": "sparse: save it with .to_dense()",
    "_rebuild_qtensor": "quantised: save it with .dequantize()",
    "_rebuild_nested_tensor": "nested: save its parts",
    "_rebuild_meta_tensor_no_storage": "on the device meta, which keeps no numbers",
}
"""Tensors that are not read here, by what makes them, and what to do."""


def read_pickled(path: Path) -> Weights:
    """The tensors of a file by their dotted names, on the CPU; of a training checkpoint, those of
    its state dict.

    Args:
        path: what ``torch.save`` wrote, in either form, or a TorchScript archive.

    Raises:
        CheckpointError: not such a file, damaged, made to harm, or without tensors by name. No
            other error leaves this function.
    """
    try:
        with open_regular(path, WEIGHTS) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            reader = _read_archive if zipped else _read_row
            return reader(file, size)
    except _Refused as error:
        reason = str(error)
    except KeyError as error:
        reason = f"it lacks a part of itself ({str(error)[:80]})"
    except Exception as error:  # damage shows in any way, a lack of memory too
        reason = f"{type(error).__name__}, {str(error).strip().partition(chr(10))[0][:200]}"
    raise CheckpointError(
        f"{path} is not a readable weights file: {reason}. It is damaged, or no file that PyTorch "
        "writes; convert it to safetensors where it can be opened."
    )


class _Refused(Exception):  # noqa: N818 - it never leaves this module
    """What is wrong with the file, in words."""


class _Budget:
    """The steps that reading one file may take.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.left = min(MAX_STEPS, STEPS_PER_BYTE * size + SPARE_STEPS)

    def spend(self, steps: int = 1) -> None:
        """Take so many steps.

        Raises:
            _Refused: the budget is spent.
        """
        self.left -= steps
        if self.left < 0:
            raise _Refused("it takes more steps to read than a weights file of its size has")

    def spend_text(self, characters: int) -> None:
        """Pay for text that is joined: memory is copied faster than instructions are run."""
        self.spend(1 + characters // 16)


# ------------------------------------------------------------------------------- the values


class _Opaque:
    """Stands for a class, a function, or an object made by one; does nothing.

    Attributes:
        name: of the class or function, with its module.
        state: of the object, where it is a dictionary.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str = "", state: dict[str, Any] | None = None) -> None:
        self.name, self.state = name, state


_NOTHING = _Opaque()  # for all values that no tensor and no name is made of


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers in the file: `count` elements from `start` on of what is kept as `key`."""

    key: str
    kind: str
    count: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: how its numbers are arranged in a storage. Checked only where it is a weight.

    Attributes:
        dtype: where the storage does not say it; a mark with its name.
        metadata: what is still to be done with the numbers, such as {"neg": True}.
    """

    storage: Any
    offset: Any
    shape: Any
    stride: Any
    dtype: Any = None
    metadata: Any = None


# ------------------------------------------------------------------------------- the machine


class _Machine:
    """Runs the program of one pickle; reads its file no further.

    Args:
        size: bytes of the file.
        budget: of the whole file, which may hold several pickles.

    The instructions are those of `pickle` (their list is in `pickletools`). Values are str, int,
    bool, None, tuple, list, dict with str as keys, `_Opaque`, `_Storage` and `_View`.
    """

    def __init__(self, file: IO[bytes], size: int, budget: _Budget) -> None:
        self.file, self.left = file, min(MAX_PICKLE, size)
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        while True:
            self.budget.spend()
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            if code not in _STEPS:
                raise _Refused("its pickle is damaged")
            _STEPS[code](self)

    # what the program is read with

    def take(self, count: int) -> bytes:
        self.left -= count
        if self.left < 0:
            raise _Refused(f"it ends in the middle, or its pickle has over {MAX_PICKLE:,} bytes")
        data = self.file.read(count)
        if len(data) < count:
            raise _Refused("it ends in the middle")
        return data

    def number(self, form: str) -> int:
        """A number as `struct` has it in `form`, little end first."""
        value: int = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]
        return value

    def line(self) -> str:
        data = self.file.readline(MAX_NAME)
        self.left -= len(data)
        if not data.endswith(b"\n"):
            raise _Refused("it ends in the middle, or has a name that is too long")
        return data[:-1].decode("utf-8", "replace")

    def text(self, length: int) -> None:
        data = self.take(length)
        self.push(data.decode("utf-8", "surrogatepass") if length <= MAX_NAME else _NOTHING)

    def skip(self, length: int) -> None:
        """Bytes of a value that no weight needs."""
        self.take(length)
        self.push(_NOTHING)

    def skip_line(self) -> None:
        self.line()
        self.push(_NOTHING)

    def integer(self, length: int) -> None:
        data = self.take(length)
        self.push(int.from_bytes(data, "little", signed=True) if length <= 16 else _NOTHING)

    # what it computes with

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _Refused("its pickle is damaged")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def skip_to_mark(self) -> None:
        self.to_mark()
        self.push(_NOTHING)

    def put(self, index: int) -> None:
        self.budget.spend()  # it takes as much memory as two other instructions
        self.memo[index] = self.stack[-1]

    def put_dict(self, items: list[Any], into: Any = None) -> None:
        """Items of a dictionary: on top of the stack, or in the given new one."""
        target = self.stack[-1] if into is None else into
        if isinstance(target, dict):
            # a hash of other keys may take longer than there is time; none is a weight's name
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, str))

    def put_list(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def new_dict(self, items: list[Any]) -> None:
        mapping: dict[str, Any] = {}
        self.put_dict(items, mapping)
        self.push(mapping)

    def global_(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Refused("its pickle names a class by something that is not text")
        self.budget.spend_text(len(module) + len(name))
        self.push(_Opaque(f"{module}.{name}"))

    def call(self, what: Any, arguments: Any) -> None:
        """Push what `what` would make: a tensor, a dictionary or, in place of all else, a mark."""
        name = what.name if isinstance(what, _Opaque) else ""
        if name == "torch._tensor._rebuild_from_type_v2":  # (function, type, arguments, state)
            what, _, arguments, _ = arguments
            name = what.name if isinstance(what, _Opaque) else ""
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            # (storage, offset, shape, stride, requires_grad, hooks, metadata)
            storage, offset, shape, stride = _few(arguments)[:4]
            self.push(_View(storage, offset, shape, stride, metadata=_item(arguments, 6)))
        elif name == "torch._utils._rebuild_tensor_v3":  # with its dtype before the metadata
            storage, offset, shape, stride, _, _, dtype = _few(arguments)[:7]
            self.push(_View(storage, offset, shape, stride, dtype, _item(arguments, 7)))
        elif name.startswith("torch._utils._rebuild_") and name not in _PARAMETERS:
            self.push(_View(_Opaque(name), 0, (), ()))
        elif name in _PARAMETERS:
            self.push(arguments[0])
        elif name == "collections.defaultdict":
            self.push({})
        elif name in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
            pairs = arguments[0] if arguments else []
            if not isinstance(pairs, list | tuple | dict):
                raise _Refused("its pickle is damaged")
            # they may be in the memo, and so be asked for again and again
            self.budget.spend(len(pairs))
            items = pairs.items() if isinstance(pairs, dict) else pairs
            self.new_dict([component for key, value in items for component in (key, value)])
        else:
            self.push(_Opaque(name))

    def call_top(self) -> None:
        self.call(*self.pop(2))

    def make(self, count: int) -> None:
        """An object of a class: `count` values are the class and what it is made with."""
        function = self.pop(count)[0]
        self.push(_Opaque(function.name if isinstance(function, _Opaque) else ""))

    def make_from_mark(self) -> None:
        function = self.to_mark()[0]
        self.push(_Opaque(function.name if isinstance(function, _Opaque) else ""))

    def instance(self) -> None:
        self.to_mark()
        self.global_(self.line(), self.line())

    def build(self) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if isinstance(target, _Opaque) and target is not _NOTHING and isinstance(state, dict):
            target.state = state

    def persistent(self) -> None:
        (value,) = self.pop(1)
        if not isinstance(value, tuple) or value[0] != "storage":  # a class with its source
            self.push(value[1] if isinstance(value, tuple) and len(value) > 1 else _NOTHING)
            return
        _, kind, key, _, count, *view = _few(value)
        if not isinstance(key, str):
            raise _Refused("a storage's key in it is not text")
        name = kind.name if isinstance(kind, _Opaque) else ""
        start = 0
        if view and view[0] is not None:
            _, start, count = view[0]
        self.budget.spend_text(len(name))
        storage = _Storage(key, name.rpartition(".")[2], count, start)
        self.storages[storage.key] = storage
        self.push(storage)


def _few(values: Any) -> tuple[Any, ...]:
    """The arguments of a tensor or a storage; a long tuple would be copied again and again."""
    if not isinstance(values, tuple) or len(values) > 16:
        raise _Refused("its pickle is damaged")
    return values


def _item(values: Any, index: int) -> Any:
    """An argument that need not be there."""
    return values[index] if len(values) > index else None


def _text_number(machine: _Machine) -> None:
    text = machine.line().rstrip("L")
    if text in ("00", "01"):
        machine.push(text == "01")
    else:
        machine.push(int(text) if len(text) < 24 else _NOTHING)


_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    # numbers, truth
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("i")),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("H")),
    b"I": _text_number,
    b"L": _text_number,
    b"\x8a": lambda m: m.integer(m.number("B")),
    b"\x8b": lambda m: m.integer(m.number("I")),
    b"F": _Machine.skip_line,
    b"G": lambda m: m.skip(8),
    # text, bytes; a Python 2 pickle has its names as bytes
    b"V": lambda m: m.push(m.line()),
    b"X": lambda m: m.text(m.number("I")),
    b"\x8c": lambda m: m.text(m.number("B")),
    b"\x8d": lambda m: m.text(m.number("Q")),
    b"S": lambda m: m.push(m.line().strip("'\"")),
    b"T": lambda m: m.text(m.number("I")),
    b"U": lambda m: m.text(m.number("B")),
    b"B": lambda m: m.skip(m.number("I")),
    b"C": lambda m: m.skip(m.number("B")),
    b"\x8e": lambda m: m.skip(m.number("Q")),
    b"\x96": lambda m: m.skip(m.number("Q")),
    b"\x97": lambda m: m.push(_NOTHING),
    b"\x98": lambda m: None,
    # containers
    b"(": _Machine.mark,
    b"0": lambda m: m.pop(1) if m.stack else m.to_mark(),
    b"1": _Machine.to_mark,
    b"2": lambda m: m.push(m.stack[-1]),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.to_mark())),
    b"\x85": lambda m: m.push(tuple(m.pop(1))),
    b"\x86": lambda m: m.push(tuple(m.pop(2))),
    b"\x87": lambda m: m.push(tuple(m.pop(3))),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.to_mark()),
    b"a": lambda m: m.put_list(m.pop(1)),
    b"e": lambda m: m.put_list(m.to_mark()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.new_dict(m.to_mark()),
    b"s": lambda m: m.put_dict(m.pop(2)),
    b"u": lambda m: m.put_dict(m.to_mark()),
    b"\x8f": lambda m: m.push(_NOTHING),
    b"\x90": _Machine.to_mark,
    b"\x91": _Machine.skip_to_mark,
    # what was met before
    b"p": lambda m: m.put(int(m.line()[:20])),
    b"q": lambda m: m.put(m.number("B")),
    b"r": lambda m: m.put(m.number("I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.line()[:20])]),
    b"h": lambda m: m.push(m.memo[m.number("B")]),
    b"j": lambda m: m.push(m.memo[m.number("I")]),
    # classes, functions, objects
    b"c": lambda m: m.global_(m.line(), m.line()),
    b"\x93": lambda m: m.global_(*m.pop(2)),
    b"\x82": lambda m: m.skip(1),
    b"\x83": lambda m: m.skip(2),
    b"\x84": lambda m: m.skip(4),
    b"R": _Machine.call_top,
    b"\x81": lambda m: m.make(2),
    b"\x92": lambda m: m.make(3),
    b"o": _Machine.make_from_mark,
    b"i": _Machine.instance,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
    # about the pickle itself
    b"\x80": lambda m: m.take(1),
    b"\x95": lambda m: m.take(8),
}


# ------------------------------------------------------------------------------- the two forms


def _read_archive(file: IO[bytes], size: int) -> Weights:
    """A zip archive: `NAME/data.pkl` and a file `NAME/data/KEY` for each storage."""
    with zipfile.ZipFile(file) as archive:
        roots = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(roots) != 1:
            raise _Refused("it is a zip archive, but not one of PyTorch's with a data.pkl")
        folder = roots[0].removesuffix("data.pkl")
        unread_bytes = size

        def entry(name: str) -> bytearray:
            """All of a file of the archive; all that are read are no larger than the archive."""
            nonlocal unread_bytes
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise _Refused(f"{name} in it is compressed, which PyTorch never does")
            unread_bytes -= info.file_size
            if unread_bytes < 0 or info.header_offset + info.file_size > size:
                raise _Refused(f"{name} in it says it is larger than the file")
            with archive.open(info) as stream:
                return _read(stream, info.file_size)

        if f"{folder}byteorder" in archive.NameToInfo and entry(f"{folder}byteorder") == b"big":
            raise _Refused("it was written on a machine with the big end first")
        budget = _Budget(size)
        program = entry(roots[0])
        views = _weights(_Machine(io.BytesIO(program), len(program), budget).run(), budget)
        return _tensors(views, lambda key: entry(f"{folder}data/{key}"), size)


def _read_row(file: IO[bytes], size: int) -> Weights:
    """Pickles in a row: a magic number, a version, the machine, the tree, the storages' keys; then
    of each storage how many elements it has, and these."""
    budget = _Budget(size)
    magic, _, machine = (_Machine(file, size, budget).run() for _ in range(3))
    if magic != _MAGIC:
        raise _Refused("it does not begin like a file of PyTorch")
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise _Refused("it was written on a machine with the big end first")
    tree = _Machine(file, size, budget)
    views = _weights(tree.run(), budget)
    keys = _Machine(file, size, budget).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _Refused("its list of storages is damaged")
    locations: dict[str, tuple[int, int]] = {}
    for key in keys:
        dtype = _dtype(tree.storages[key].kind, f"of the storage {key}")
        (count,) = struct.unpack("<q", file.read(8))
        length, place = count * dtype.itemsize, file.tell()
        if count < 0 or place + length > size:
            raise _Refused(f"the storage {key} says it is larger than the file")
        locations[key] = place, length
        file.seek(length, io.SEEK_CUR)

    def content(key: str) -> bytearray:
        offset, length = locations[key]
        file.seek(offset)
        return _read(file, length)

    return _tensors(views, content, size)


def _read(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes, once in memory."""
    data = bytearray()
    while len(data) < size:
        block = stream.read(min(size - len(data), 1 << 20))
        if not block:
            raise _Refused("it ends in the middle")
        data += block
    return data


# ------------------------------------------------------------------------------- the weights


def _weights(tree: Any, budget: _Budget) -> dict[str, _View]:
    """The tensors of a state dict or a module, wherever in the dictionaries it is."""
    for _ in range(MAX_DEPTH):
        if not isinstance(tree, dict):
            break
        inner = next((tree[n] for n in STATE_DICTS if _holds(tree.get(n))), None)
        if inner is None:
            break
        tree = inner
    if isinstance(tree, _Opaque):
        views = _of_modules(tree, budget)
    elif isinstance(tree, dict):
        views = {k: v for k, v in tree.items() if isinstance(v, _View)}
    else:
        raise _Refused(f"it holds a {type(tree).__name__.lstrip('_').lower()}, not a state dict")
    if not views:
        names = ", ".join(list(tree)[:4]) if isinstance(tree, dict) else tree.name
        raise _Refused(f"it holds no tensors by name (but {names or 'nothing'})")
    if len(views) > MAX_TENSORS:
        raise _Refused(f"it has more than {MAX_TENSORS:,} tensors")
    return views


def _holds(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, _Opaque) and value.state is not None)


def _of_modules(root: _Opaque, budget: _Budget) -> dict[str, _View]:
    """Parameters and buffers of a pickled module by their dotted names, each module once.

    A TorchScript module's attributes are its state; a Python module's are in three dictionaries.
    """
    views: dict[str, _View] = {}
    visited: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        prefix, node, depth = waiting.pop()
        if isinstance(node, _View):
            views[prefix] = node
            continue
        values = node.state if isinstance(node, _Opaque) else node
        if not isinstance(values, dict) or id(values) in visited:
            continue
        visited.add(id(values))
        if depth > MAX_DEPTH:
            raise _Refused(f"its modules are more than {MAX_DEPTH} deep in each other")
        if "_parameters" in values and "_modules" in values:
            children = (values.get(n) for n in ("_modules", "_buffers", "_parameters"))
            groups = [group for group in children if isinstance(group, dict)]
            # many modules may say that one large dictionary is theirs
            budget.spend(sum(map(len, groups)))
            values = {name: value for group in groups for name, value in group.items()}
        for name, value in values.items():
            if not isinstance(value, _View | _Opaque | dict):
                continue
            path = f"{prefix}.{name}" if prefix else name
            budget.spend_text(len(path))
            if len(path) > MAX_NAME:
                raise _Refused(f"a name in it has more than {MAX_NAME:,} characters")
            waiting.append((path, value, depth + 1))
    return views


def _tensors(views: dict[str, _View], content: Callable[[str], bytearray], size: int) -> Weights:
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
        if not isinstance(storage, _Storage):
            maker = storage.name.rpartition(".")[2] if isinstance(storage, _Opaque) else ""
            reason = _UNREADABLE.get(maker, f"of a kind that is not read here ({maker})")
            raise _Refused(f"the tensor {name} is {reason}" if maker else f"{name} has no storage")
        kind = _dtype(storage.kind, name)
        dtype = kind if view.dtype is None else _named_dtype(view.dtype, name)
        _check(name, view)
        budget -= math.prod(view.shape) * dtype.itemsize
        if budget < 0:
            raise _Refused(f"its tensors together are more than {SHARED} times as large as it")
        if storage.key not in storages:
            data = content(storage.key)
            storages[storage.key] = (
                torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
            )
        weights[name] = _tensor(name, view, kind, dtype, storages[storage.key])
    return weights


def _check(name: str, view: _View) -> None:
    """Whether the numbers of a view are numbers, in the ranges of a tensor's."""
    storage, shape, stride = view.storage, view.shape, view.stride
    if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list):
        raise _Refused(f"the tensor {name} has no shape")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise _Refused(f"the tensor {name} has more dimensions than a tensor can have")
    sizes = (view.offset, storage.count, storage.start, *shape, *stride)
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in sizes):
        raise _Refused(f"the tensor {name} has an impossible shape, stride or offset")
    if any(n >= 1 << 31 for n in shape):
        raise _Refused(f"the tensor {name} is larger than any weight")


def _tensor(
    name: str, view: _View, kind: torch.dtype, dtype: torch.dtype, stored: Tensor
) -> Tensor:
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
        raise _Refused(f"the storage of {name} says it is larger than it is")
    if start % dtype.itemsize:
        raise _Refused(f"the tensor {name} begins in the middle of a number")
    if not math.prod(shape):
        return stored.new_empty(shape, dtype=dtype)
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if last >= (end - start) // dtype.itemsize:
        raise _Refused(f"the tensor {name} reaches beyond its storage")
    numbers = stored[: len(stored) - len(stored) % dtype.itemsize].view(dtype)
    tensor = numbers.as_strided(shape, stride, start // dtype.itemsize + view.offset)
    # both are lazy in torch: the stored numbers are those before the operation
    flags = view.metadata if isinstance(view.metadata, dict) else {}
    if flags.get("conj") is True:
        tensor = tensor.conj().resolve_conj()
    if flags.get("neg") is True:
        tensor = tensor.neg()
    return tensor


def _dtype(kind: str, name: str) -> torch.dtype:
    if kind not in _DTYPES:
        raise _Refused(f"the tensor {name} has numbers of a kind that is not read here ({kind})")
    return _DTYPES[kind]


def _named_dtype(mark: Any, name: str) -> torch.dtype:
    """The kind of numbers of a mark such as `torch.uint16`."""
    kind = mark.name.removeprefix("torch.") if isinstance(mark, _Opaque) else ""
    dtype = getattr(torch, kind, None) if kind in _UNTYPED else None
    if not isinstance(dtype, torch.dtype):
        raise _Refused(
            f"the tensor {name} has numbers of a kind that is not read here ({kind or 'unknown'})"
        )
    return dtype
