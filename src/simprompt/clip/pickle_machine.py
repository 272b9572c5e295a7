"""The program of a pickle, run on plain containers alone.

`run_program` imports nothing, calls nothing, and puts an inert mark in the place of every object
that is no name, number, bytes, container or tensor: numpy scalars, a Namespace, an optimizer's or a
model's class.

`Budget` holds reading to time and memory that are linear in the size of the file: each instruction,
each element that is copied out of a container and each character that is joined to a name is paid
from one budget for the file. Text and whole numbers are the only values that are ever hashed,
compared or written into a message, because a nested tuple of 200 bytes can take forever to hash or
to print.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

MAX_PICKLE = 1 << 26
"""Bytes of a pickle without its numbers; OpenAI's largest archive has less than 2 MB."""
MAX_STEPS = 1 << 21
"""Steps of a file: an instruction, or an element that is copied. A state dict has some 40
instructions per tensor, an optimizer twice as many."""
STEPS_PER_BYTE, SPARE_STEPS = 2, 1 << 12
"""A file may take so many steps for each of its bytes, and so many more."""
MAX_NAME = 1024
"""Characters; a longer text names no tensor."""

_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


class Refused(Exception):  # noqa: N818 - `read_pickled` catches it
    """What is wrong with the file, in words."""


class Budget:
    """The steps that reading one file may take.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.left = min(MAX_STEPS, STEPS_PER_BYTE * size + SPARE_STEPS)

    def spend(self, steps: int = 1) -> None:
        """Take so many steps.

        Raises:
            Refused: the budget is spent.
        """
        self.left -= steps
        if self.left < 0:
            raise Refused("it takes more steps to read than a weights file of its size has")

    def spend_text(self, characters: int) -> None:
        """Pay for text that is joined: memory is copied faster than instructions are run."""
        self.spend(1 + characters // 16)


class Opaque:
    """Stands for a class, a function, or an object made by one; does nothing.

    Attributes:
        name: of the class or function, with its module.
        state: of the object, where it is a dictionary.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str = "", state: dict[str, Any] | None = None) -> None:
        self.name, self.state = name, state

    def append(self, value: Any) -> None:
        """Items of what is no list here, such as a deque, are left out."""

    extend = append

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of what is no dictionary here are left out."""


NOTHING = Opaque()  # for all values that no tensor and no name is made of


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in the file: `count` elements from `start` on of what is kept as `key`."""

    key: str
    kind: str
    count: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class View:
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


class _Limited:
    """A pickle's bytes, no more than there are; reads no further than asked.

    Args:
        size: bytes of the file.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, min(MAX_PICKLE, size)

    def read(self, count: int) -> bytes:
        self.left -= count
        if self.left < 0:
            raise Refused(f"it ends in the middle, or its pickle has over {MAX_PICKLE:,} bytes")
        data = self.file.read(count)
        if len(data) < count:
            raise Refused("it ends in the middle")
        return data

    def readline(self) -> bytes:
        data = self.file.readline(MAX_NAME)
        self.left -= len(data)
        if not data.endswith(b"\n"):
            raise Refused("it ends in the middle, or has a name that is too long")
        return data


class _Names(dict[str, Any]):
    """A dictionary of the file: its items under names, and no others.

    A hash of other keys may take longer than there is time; none is a weight's name.
    """

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str):
            super().__setitem__(key, value)


class _Machine(pickle._Unpickler):
    """Runs the program of one pickle; reads its file no further.

    The pure-Python unpickler of the standard library: the one in C reserves memory by whatever
    index a file says. Overridden are the instructions that call, hash, set attributes or
    allocate. Values are str, int, float, bytes, bool, None, tuple, list, `_Names`, `Opaque`,
    `Storage` and `View`.

    Args:
        size: bytes of the file.
        budget: of the whole file, which may hold several pickles.
    """

    # of the base class, which sets them in `load`
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes], size: int, budget: Budget) -> None:
        super().__init__(_Limited(file, size), encoding="utf-8", errors="surrogatepass")
        self.budget = budget
        self.dispatch = _PaidInstructions(budget)  # type: ignore[misc, assignment]
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        self.budget.spend_text(len(module) + len(name))
        return Opaque(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        self.append(NOTHING)

    def persistent_load(self, value: Any) -> Any:
        if not isinstance(value, tuple) or value[0] != "storage":  # a class with its source
            return value[1] if isinstance(value, tuple) and len(value) > 1 else NOTHING
        _, kind, key, _, count, *view = _few(value)
        if not isinstance(key, str):
            raise Refused("a storage's key in it is not text")
        name = kind.name if isinstance(kind, Opaque) else ""
        start = 0
        if view and view[0] is not None:
            _, start, count = view[0]
        self.budget.spend_text(len(name))
        storage = Storage(key, name.rpartition(".")[2], count, start)
        self.storages[storage.key] = storage
        return storage

    def call(self, what: Any, arguments: Any) -> Any:
        """What `what` would make: a tensor, a dictionary or, in place of all else, a mark."""
        name = what.name if isinstance(what, Opaque) else ""
        if name == "torch._tensor._rebuild_from_type_v2":  # (function, type, arguments, state)
            what, _, arguments, _ = arguments
            name = what.name if isinstance(what, Opaque) else ""
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            # (storage, offset, shape, stride, requires_grad, hooks, metadata)
            storage, offset, shape, stride = _few(arguments)[:4]
            return View(storage, offset, shape, stride, metadata=_item(arguments, 6))
        if name == "torch._utils._rebuild_tensor_v3":  # with its dtype before the metadata
            storage, offset, shape, stride, _, _, dtype = _few(arguments)[:7]
            return View(storage, offset, shape, stride, dtype, _item(arguments, 7))
        if name in _PARAMETERS:
            return arguments[0]
        if name.startswith("torch._utils._rebuild_"):
            return View(Opaque(name), 0, (), ())
        mapping = _Names()
        if name == "collections.defaultdict":
            return mapping
        if name in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
            pairs = arguments[0] if arguments else []
            if not isinstance(pairs, list | tuple | dict):
                raise Refused("its pickle is damaged")
            # they may be in the memo, and so be asked for again and again
            self.budget.spend(len(pairs))
            for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
                mapping[key] = value
            return mapping
        return Opaque(name)

    # instructions

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def _instantiate(self, what: Any, arguments: Any) -> None:
        self.append(Opaque(what.name if isinstance(what, Opaque) else ""))

    def load_newobj(self) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        self._instantiate(what, arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Opaque) and target is not NOTHING and isinstance(state, dict):
            target.state = state

    def load_text(self, length_format: str) -> None:
        (length,) = struct.unpack(length_format, self.read(struct.calcsize(length_format)))
        data = self.read(length)
        # decoded, a long text may take four times its bytes
        self.append(data.decode("utf-8", "surrogatepass") if length <= MAX_NAME else NOTHING)

    def load_empty_dictionary(self) -> None:
        self.append(_Names())

    def load_dict(self) -> None:
        items, mapping = self.pop_mark(), _Names()
        for key, value in zip(items[::2], items[1::2], strict=True):
            mapping[key] = value
        self.append(mapping)

    def load_empty_set(self) -> None:
        self.append(NOTHING)

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(NOTHING)

    def load_frame(self) -> None:
        self.read(8)  # a frame would be read past the limits


def _few(values: Any) -> tuple[Any, ...]:
    """The arguments of a tensor or a storage; a long tuple would be copied again and again."""
    if not isinstance(values, tuple) or len(values) > 16:
        raise Refused("its pickle is damaged")
    return values


def _item(values: Any, index: int) -> Any:
    """An argument that need not be there."""
    return values[index] if len(values) > index else None


_AS_IN_PYTHON = (
    b"N\x88\x89JKMIL\x8a\x8bFG"  # None, truth, numbers
    b"VSBC\x8e"  # lines of text, bytes
    b"(012)t\x85\x86\x87]laesu"  # the stack, tuples, lists, items of dictionaries
    b"pqr\x94ghj"  # the memo
    b"c\x93\x82\x83\x84oiQ\x80."  # classes, their objects, storages; the protocol, the end
)
"""Instructions that the standard library carries out; any that it learns later are refused."""

_INSTRUCTIONS: dict[int, Callable[[Any], None]] = {
    **{code: pickle._Unpickler.dispatch[code] for code in _AS_IN_PYTHON},
    pickle.REDUCE[0]: _Machine.load_reduce,
    pickle.NEWOBJ[0]: _Machine.load_newobj,
    pickle.NEWOBJ_EX[0]: _Machine.load_newobj_ex,
    pickle.BUILD[0]: _Machine.load_build,
    pickle.EMPTY_DICT[0]: _Machine.load_empty_dictionary,
    pickle.DICT[0]: _Machine.load_dict,
    pickle.EMPTY_SET[0]: _Machine.load_empty_set,
    pickle.FROZENSET[0]: _Machine.load_frozenset,
    pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.POP_MARK[0]],
    pickle.FRAME[0]: _Machine.load_frame,
    # the library's own would allocate as many bytes as the file says before they are read
    pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    pickle.SHORT_BINUNICODE[0]: lambda machine: machine.load_text("<B"),
    pickle.BINUNICODE[0]: lambda machine: machine.load_text("<I"),
    pickle.BINUNICODE8[0]: lambda machine: machine.load_text("<Q"),
    # Python 2 has its names as bytes
    pickle.SHORT_BINSTRING[0]: lambda machine: machine.load_text("<B"),
    pickle.BINSTRING[0]: lambda machine: machine.load_text("<I"),
}

_MEMOIZING = b"pqr\x94"


class _PaidInstructions:
    """What each instruction does, paid from a budget when it is looked up."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        # what is put into the memo takes as much memory as two other instructions
        self.budget.spend(2 if code in _MEMOIZING else 1)
        if code not in _INSTRUCTIONS:
            raise Refused("its pickle is damaged")
        return _INSTRUCTIONS[code]


def run_program(file: IO[bytes], size: int, budget: Budget) -> tuple[Any, dict[str, Storage]]:
    """The value that a pickle makes, and the storages that it names, by their keys.

    Args:
        file: at the beginning of the pickle; it is read to the pickle's end and no further.
        size: bytes of the file.
        budget: of the whole file, which may hold several pickles.

    Raises:
        Refused: it is damaged, or takes more steps than the budget has. Damage shows as other
            errors, too.
    """
    machine = _Machine(file, size, budget)
    return machine.load(), machine.storages
