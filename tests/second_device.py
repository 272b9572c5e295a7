"""A second device for machines that have none: tensors that say "meta" and hold numbers.

Inside `SecondDevice`, whatever is moved to ``torch.device("meta")`` or made there becomes an
`Elsewhere`: its device, for everybody who asks, is "meta", and its numbers lie on the CPU where
nobody but the mode can reach them. Operations give the numbers that they give on the CPU, so a
training there can be compared with one here. What CUDA refuses is refused:

- tensors of both devices in one operation, but for CPU tensors of no dimension beside others in an
  operation on elements, and CPU tensors as indices;
- drawing there with the CPU's generator, and `numpy()`.

What makes the host wait for a GPU is counted (`SecondDevice.waits`): reading a number, copying to
the CPU, copying from it without `non_blocking` (which CPU indices are as well), and shapes that
depend on numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
ops = torch.ops.aten

NUMBER = {ops._local_scalar_dense.default, ops.equal.default}
COPY = {ops._to_copy.default, ops.copy_.default}
INDEX = {ops.index.Tensor, ops._unsafe_index.Tensor, ops.index_put.default,
         ops.index_put_.default, ops._unsafe_index_put.default}  # fmt: skip
SHAPE = {ops.nonzero.default, ops.masked_select.default, ops._unique2.default,
         ops.unique_dim.default, ops.bincount.default, ops.repeat_interleave.Tensor}  # fmt: skip
JOIN = {ops.cat.default, ops.stack.default}  # of which each part has to be there


class Elsewhere(Tensor):
    """A tensor of the second device."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, device=DEVICE,
        )  # fmt: skip
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{f} outside of SecondDevice")


class TwoDevicesError(RuntimeError):
    """What CUDA would refuse, and the line of the package that asked for it."""


class SecondDevice(TorchDispatchMode):
    """While it is entered there is a second device, `DEVICE`.

    Attributes:
        waits: what the host would have waited for, each "what at module.py:line".
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._calls = _Calls(self)

    def __enter__(self) -> SecondDevice:
        super().__enter__()
        self._calls.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._calls.__exit__(*error)
        super().__exit__(*error)

    def wait(self, what: str) -> None:
        self.waits.append(f"{what} at {_line()}")

    def refuse(self, what: str) -> None:
        raise TwoDevicesError(f"{what} at {_line()}")

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat = list(_tensors((args, kwargs)))
        there = [a for a in flat if isinstance(a, Elsewhere)]
        here = [a for a in flat if not isinstance(a, Elsewhere)]
        asked = kwargs.get("device")
        to_there = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
        if f in COPY:
            to_there = isinstance(args[0], Elsewhere) if f is ops.copy_.default else to_there
            self._copied(f, args, kwargs, to_there)
        elif f in INDEX:
            self._indexed(f, args)
        elif there and (any(a.dim() for a in here) or (here and f in JOIN)):
            self.refuse(f"{f} of two devices")
        if there and (f in SHAPE):
            self.wait(f"the shape of {f}")
        if there and f in NUMBER:
            self.wait("a number read")
            to_there = False
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
            if to_there and kwargs.get("generator") is not None:
                self.refuse(f"{f} with the CPU's generator")
        made = f(*_mapped(_numbers, args), **_mapped(_numbers, kwargs))
        if not to_there:
            return made
        given = {id(a.numbers): a for a in there}  # what is changed in place stays the same object
        return _mapped(lambda x: _there(x, given), made)

    def _copied(self, f: Any, args: Any, kwargs: Any, to_there: bool) -> None:
        source = args[1] if f is ops.copy_.default else args[0]
        from_there = isinstance(source, Elsewhere)
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if from_there and not to_there:
            self.wait("a copy to the CPU")
        elif to_there and not from_there and waits:
            self.wait("a copy from the CPU")

    def _indexed(self, f: Any, args: Any) -> None:
        indexed, indices, *values = args[:3]
        if isinstance(indexed, Elsewhere):
            for index in indices:
                if index is not None and not isinstance(index, Elsewhere):
                    self.wait("a copy from the CPU, of an index")
        elif any(isinstance(index, Elsewhere) for index in indices):
            self.refuse(f"{f}, a CPU tensor by indices from elsewhere")
        for value in values:
            if isinstance(value, Elsewhere) != isinstance(indexed, Elsewhere) and (
                isinstance(value, Elsewhere) or value.dim()
            ):
                self.refuse(f"{f} of two devices")
        if any(isinstance(index, Elsewhere) and index.dtype == torch.bool for index in indices):
            self.wait("the shape of what a mask picks")


class _Calls(TorchFunctionMode):
    """What PyTorch does with a second device before an operation is dispatched."""

    def __init__(self, device: SecondDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if f in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))  # "meta" would drop the numbers
            return f(*args, **kwargs).to(device)
        if args and isinstance(args[0], Elsewhere):
            if f is Tensor.tolist:
                self.device.wait("numbers read")
                return args[0].detach().numbers.tolist()
            if f in (Tensor.numpy, Tensor.__array__):
                self.device.refuse("numpy() from elsewhere")
            if f in (Tensor.__getitem__, Tensor.__setitem__):
                args = (args[0], _index(args[1]), *args[2:])
        return f(*args, **kwargs)


def _index(index: Any) -> Any:
    """An index whose lists are tensors: on the CPU, from where they are copied."""
    if isinstance(index, list):
        return torch.tensor(index)
    return tuple(_index(part) for part in index) if isinstance(index, tuple) else index


def _tensors(x: Any) -> Iterator[Tensor]:
    """The tensors in what an operation takes."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (list, tuple, dict)):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _tensors(part)


def _mapped(f: Callable[[Any], Any], x: Any) -> Any:
    """f of everything in what an operation takes or gives, in the same containers."""
    if isinstance(x, dict):
        return {key: _mapped(f, part) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)([_mapped(f, part) for part in x])
    return f(x)


def _numbers(x: Any) -> Any:
    return x.numbers if isinstance(x, Elsewhere) else x


def _there(x: Any, given: dict[int, Elsewhere]) -> Any:
    if not isinstance(x, Tensor):
        return x
    return given[id(x)] if id(x) in given else Elsewhere(x)


def _line() -> str:
    """The innermost line of the package that is being run, or of what is not the package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if "/simprompt/" in name:
            module = name.rpartition("/simprompt/")[2]
            return f"{module}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return "backward"


def back(x: Tensor) -> Tensor:
    """The numbers of a tensor, wherever it is."""
    return x.detach().numbers if isinstance(x.detach(), Elsewhere) else x.detach()
