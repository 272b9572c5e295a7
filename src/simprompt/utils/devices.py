"""Where torch computes: a device by its name, and tensors on their way to it.

Numbers come from the CPU and go back to it. What is learned, the towers and what a step computes
live on the device; image features, pixels, class numbers and token ids are made on the CPU and are
moved by `to_device` where they are used, so that the CPU never waits for the device.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING

from simprompt.errors import SimpromptError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAMES = r"cpu|mps|cuda(:\d+)?"
DTYPES = ("float32", "bfloat16", "float16")


@cache
def one_thread_after_fork() -> None:
    """From now on a forked child of this process computes in one thread.

    OpenMP's threads do not survive a fork, and a child that uses more than one waits for them for
    ever. A child may call `torch.set_num_threads` itself before it computes.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def device_kind(device: str) -> str:
    """The kind of a device: "cuda" of "cuda:1". The same numbers come from all of one kind."""
    return device.partition(":")[0]


def resolve_device(name: str) -> str:
    """The name of a device that is there; "auto" takes a GPU if there is one, else the CPU.

    Raises:
        SimpromptError: no such device here, or not the name of one.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    if not re.fullmatch(NAMES, name):
        raise SimpromptError(
            f"There is no device {name!r}: --device takes auto, cpu, cuda, cuda:N or mps."
        )
    why = ""
    if device_kind(name) == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(name.partition(":")[2] or 0)
        if torch.version.cuda is None and torch.version.hip is None:
            why = f"this PyTorch ({torch.__version__}) is built without CUDA"
        elif not count:
            why = "PyTorch sees no GPU"
        elif number >= count:
            why = f"there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, counted from cuda:0"
    elif name == "mps" and not _has_mps():
        why = "PyTorch sees no Metal device"
    if why:
        raise SimpromptError(
            f"The device {name!r} cannot be used here: {why}. --device auto takes what there is, "
            "and cpu is always there."
        )
    return name


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` on a device; on its way from the CPU nobody waits for what the device is doing.

    A GPU fetches it from a copy in memory that cannot be paged out, which the copying keeps alive.
    """
    if x.device == device or x.device.type != "cpu":
        return x.to(device)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def describe_device(device: torch.device) -> str:
    """What a result says of the device: a GPU's name, or the kind of another device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
