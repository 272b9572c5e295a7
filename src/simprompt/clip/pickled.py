"""Weights that PyTorch pickled, read without running anything in the file.

What ``torch.save`` writes (a zip archive, or before PyTorch 1.6 a row of pickles with the numbers
behind them) and TorchScript archives hold a pickle, which is a program: loaded the usual way it
calls whatever it names. `pickle_machine` runs it on plain containers alone, so weights are read
past whatever a training program saved beside them; `pickle_tensors` makes their tensors.

A file may be made to harm: reading is linear in the size of the file, in time and in memory.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from simprompt.clip.layouts.common import CheckpointError, Weights
from simprompt.clip.pickle_machine import MAX_NAME, Budget, Opaque, Refused, View, run_program
from simprompt.clip.pickle_tensors import storage_dtype, tensors_of
from simprompt.utils.files.regular import WEIGHTS, open_regular

MAX_TENSORS = 100_000
MAX_DEPTH = 64
"""Of modules inside each other, and of dictionaries around a state dict."""

STATE_DICTS = ("state_dict", "model_state_dict", "model", "module", "weights", "net")
"""Under which names training programs keep the weights, in the order they are looked for."""

_MAGIC = 0x1950A86A20F9469CFC6C  # how a file of a row of pickles begins


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
    except Refused as error:
        reason = str(error)
    except KeyError as error:
        reason = f"it lacks a part of itself ({str(error)[:80]})"
    except Exception as error:  # damage shows in any way, a lack of memory too
        reason = f"{type(error).__name__}, {str(error).strip().partition(chr(10))[0][:200]}"
    raise CheckpointError(
        f"{path} is not a readable weights file: {reason}. It is damaged, or no file that PyTorch "
        "writes; convert it to safetensors where it can be opened."
    )


def _read_archive(file: IO[bytes], size: int) -> Weights:
    """A zip archive: `NAME/data.pkl` and a file `NAME/data/KEY` for each storage."""
    with zipfile.ZipFile(file) as archive:
        roots = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(roots) != 1:
            raise Refused("it is a zip archive, but not one of PyTorch's with a data.pkl")
        folder = roots[0].removesuffix("data.pkl")
        unread_bytes = size

        def entry(name: str) -> bytearray:
            """All of a file of the archive; all that are read are no larger than the archive."""
            nonlocal unread_bytes
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise Refused(f"{name} in it is compressed, which PyTorch never does")
            unread_bytes -= info.file_size
            if unread_bytes < 0 or info.header_offset + info.file_size > size:
                raise Refused(f"{name} in it says it is larger than the file")
            with archive.open(info) as stream:
                return _read(stream, info.file_size)

        if f"{folder}byteorder" in archive.NameToInfo and entry(f"{folder}byteorder") == b"big":
            raise Refused("it was written on a machine with the big end first")
        budget = Budget(size)
        program = entry(roots[0])
        tree, _ = run_program(io.BytesIO(program), len(program), budget)
        views = _weights(tree, budget)
        return tensors_of(views, lambda key: entry(f"{folder}data/{key}"), size)


def _read_row(file: IO[bytes], size: int) -> Weights:
    """Pickles in a row: a magic number, a version, the machine, the tree, the storages' keys; then
    of each storage how many elements it has, and these."""
    budget = Budget(size)
    magic, _, machine = (run_program(file, size, budget)[0] for _ in range(3))
    if magic != _MAGIC:
        raise Refused("it does not begin like a file of PyTorch")
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise Refused("it was written on a machine with the big end first")
    tree, storages = run_program(file, size, budget)
    views = _weights(tree, budget)
    keys, _ = run_program(file, size, budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("its list of storages is damaged")
    locations: dict[str, tuple[int, int]] = {}
    for key in keys:
        dtype = storage_dtype(storages[key].kind, f"of the storage {key}")
        (count,) = struct.unpack("<q", file.read(8))
        length, place = count * dtype.itemsize, file.tell()
        if count < 0 or place + length > size:
            raise Refused(f"the storage {key} says it is larger than the file")
        locations[key] = place, length
        file.seek(length, io.SEEK_CUR)

    def content(key: str) -> bytearray:
        offset, length = locations[key]
        file.seek(offset)
        return _read(file, length)

    return tensors_of(views, content, size)


def _read(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes, once in memory."""
    data = bytearray()
    while len(data) < size:
        block = stream.read(min(size - len(data), 1 << 20))
        if not block:
            raise Refused("it ends in the middle")
        data += block
    return data


def _weights(tree: Any, budget: Budget) -> dict[str, View]:
    """The tensors of a state dict or a module, wherever in the dictionaries it is."""
    for _ in range(MAX_DEPTH):
        if not isinstance(tree, dict):
            break
        inner = next((tree[n] for n in STATE_DICTS if _holds(tree.get(n))), None)
        if inner is None:
            break
        tree = inner
    if isinstance(tree, Opaque):
        views = _of_modules(tree, budget)
    elif isinstance(tree, dict):
        views = {k: v for k, v in tree.items() if isinstance(v, View)}
    else:
        raise Refused(f"it holds a {type(tree).__name__.lstrip('_').lower()}, not a state dict")
    if not views:
        names = ", ".join(list(tree)[:4]) if isinstance(tree, dict) else tree.name
        raise Refused(f"it holds no tensors by name (but {names or 'nothing'})")
    if len(views) > MAX_TENSORS:
        raise Refused(f"it has more than {MAX_TENSORS:,} tensors")
    return views


def _holds(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Opaque) and value.state is not None)


def _of_modules(root: Opaque, budget: Budget) -> dict[str, View]:
    """Parameters and buffers of a pickled module by their dotted names, each module once.

    A TorchScript module's attributes are its state; a Python module's are in three dictionaries.
    """
    views: dict[str, View] = {}
    visited: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        prefix, node, depth = waiting.pop()
        if isinstance(node, View):
            views[prefix] = node
            continue
        values = node.state if isinstance(node, Opaque) else node
        if not isinstance(values, dict) or id(values) in visited:
            continue
        visited.add(id(values))
        if depth > MAX_DEPTH:
            raise Refused(f"its modules are more than {MAX_DEPTH} deep in each other")
        if "_parameters" in values and "_modules" in values:
            children = (values.get(n) for n in ("_modules", "_buffers", "_parameters"))
            groups = [group for group in children if isinstance(group, dict)]
            # many modules may say that one large dictionary is theirs
            budget.spend(sum(map(len, groups)))
            values = {name: value for group in groups for name, value in group.items()}
        for name, value in values.items():
            if not isinstance(value, View | Opaque | dict):
                continue
            path = f"{prefix}.{name}" if prefix else name
            budget.spend_text(len(path))
            if len(path) > MAX_NAME:
                raise Refused(f"a name in it has more than {MAX_NAME:,} characters")
            waiting.append((path, value, depth + 1))
    return views
