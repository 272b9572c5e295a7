"""Files made to harm: small, and more than a machine has if they are believed.

Run as a program it is the reader under limits: for each line of JSON on stdin, [what to call, a
path], a child process with little memory and time more than it has reads that file, and a line
says what came of it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY, SECONDS = 400 << 20, 20

OPEN, SET, BUILD, STOP = b"}", b"s", b"b", b"."
MODULE = b"c__torch__\nM\n)\x81"  # an object of a TorchScript class
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def view(
    shape: Iterable[int], stride: Iterable[int], offset: int = 0, count: int = 4, key: str = "0"
) -> bytes:
    """The program that makes a tensor."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        + number(count) + b"tQ"
    )  # fmt: skip
    return REBUILD + b"(" + storage + number(offset) + numbers(shape) + numbers(stride) + b"\x89)tR"


def state_dict(tensors: dict[str, bytes]) -> bytes:
    items = b"".join(text(name) + program + SET for name, program in tensors.items())
    return b"\x80\x02" + OPEN + items + STOP


def archive(program: bytes, numbers: int = 4, compressed: bool = False) -> bytes:
    """A TorchScript archive, or near enough, with one storage of float32."""
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as file:
        file.writestr("m/data.pkl", program)
        file.writestr("m/constants.pkl", b"\x80\x02).")
        file.writestr("m/data/0", bytes(4 * numbers))
    return out.getvalue()


def row(program: bytes, keys: list[str], count: int, listed: bytes | None = None) -> bytes:
    """The older form: pickles in a row, each storage behind them.

    Args:
        listed: the program of the storages' keys, instead of theirs.
    """
    from simprompt.clip.pickled import _MAGIC

    head = b"".join(pickle.dumps(v, 2) for v in (_MAGIC, 1001, {"little_endian": True}))
    tail = (listed or pickle.dumps(keys, 2)) + struct.pack("<q", count) + bytes(16)
    return head + program + tail


def shared(levels: int = 60) -> bytes:
    """Dictionaries that each hold the one below twice: 2 ** levels paths."""
    inner = OPEN + b"".join(
        b"q\x01" + OPEN + b"(" + text("a") + b"h\x01" + text("b") + b"h\x01u"
        for _ in range(levels)
    )  # fmt: skip
    # the dictionary below stays on the stack under each; only the last is the state
    return b"\x80\x02" + MODULE + b"q\x00" + inner + b"q\x01h\x00h\x01" + BUILD + STOP


def shared_key(levels: int = 60) -> bytes:
    """A dictionary's key is a tuple that holds the one below twice: its hash takes 2 ** levels."""
    return b"\x80\x02" + OPEN + b")" + b"2\x86" * levels + b"N" + SET + STOP


def deep(levels: int) -> bytes:
    """Modules inside each other."""
    program = MODULE + OPEN
    program += (text("m") + MODULE + OPEN) * levels
    return b"\x80\x02" + program + (BUILD + SET) * levels + BUILD + STOP


def nested(levels: int = 60) -> bytes:
    """A tuple that holds the one below twice: 2 ** levels steps to hash it or to write it out."""
    return b")" + b"2\x86" * levels


def storage_of(key: bytes, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """The program of a storage with this key."""
    return b"(" + text("storage") + kind + key + text("cpu") + number(4) + b"tQ"


def asked_again(large: bytes, each: bytes, times: int) -> bytes:
    """Something large is put into the memo once, and `each` asks for it `times` times."""
    return b"\x80\x02" + OPEN + large + b"q\x010" + each * times + STOP


def joined(names: int = 20, levels: int = 60) -> bytes:
    """Modules inside each other under long names, the last of which has many more."""
    long = text("n" * 1000)
    program = MODULE + OPEN + (long + MODULE + OPEN) * levels
    program += b"".join(text(f"{i}") + view((1,), (1,)) + SET for i in range(names))
    return b"\x80\x02" + program + (BUILD + SET) * levels + BUILD + STOP


def one_dictionary(modules: int = 6000, entries: int = 6000) -> bytes:
    """Many modules whose parameters are one large dictionary."""
    entry = b"".join(text(f"{i}") + b"N" for i in range(entries))
    module = (
        MODULE + OPEN + b"(" + text("_modules") + OPEN + text("_parameters") + b"h\x01u" + BUILD
    )
    children = b"".join(text(f"m{i}") + module + SET for i in range(modules))
    return b"\x80\x02" + OPEN + b"(" + entry + b"uq\x010" + MODULE + OPEN + children + BUILD + STOP


def false_size(whole: bytes) -> bytes:
    """The directory of the archive says that data/0 has 4 GB."""
    at = whole.rindex(b"PK\x01\x02")
    return whole[: at + 20] + struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0) + whole[at + 28 :]


def safetensors(header: bytes | dict, length: int | None = None, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def tensor_header(shape: list[int], start: int, end: int) -> dict:
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}}


BIG = 1 << 30
FINE = {"visual.w": view((4,), (1,))}

PICKLED: dict[str, Callable[[], bytes]] = {
    "nested shared dictionaries": lambda: archive(shared()),
    "a key of nested shared tuples": lambda: archive(shared_key()),
    "a dictionary made at once, with a key of nested shared tuples": lambda: archive(
        b"\x80\x02(" + nested() + b"Nd" + STOP
    ),
    "a set of nested shared tuples": lambda: archive(
        b"\x80\x04" + nested() + b"q\x010\x8f(h\x01\x90" + STOP
    ),
    "a frozen set of nested shared tuples": lambda: archive(
        b"\x80\x04" + nested() + b"q\x010(h\x01\x91" + STOP
    ),
    "keys of one hash": lambda: archive(
        b"\x80\x02" + OPEN
        + b"".join(number(i * ((1 << 61) - 1)) + b"N" + SET for i in range(1, 50_000)) + STOP
    ),
    "a storage's key of nested tuples": lambda: archive(
        b"\x80\x02" + OPEN + text("visual.w") + storage_of(nested()) + SET + STOP
    ),
    "a class of a module of nested tuples": lambda: archive(
        b"\x80\x04" + OPEN + nested() + text("name") + b"\x93" + STOP
    ),
    "the older form with keys of nested tuples": lambda: row(
        state_dict(FINE), [], 4, b"\x80\x02]" + nested() + b"a."
    ),
    "OrderedDict of one list, again and again": lambda: archive(asked_again(
        b"(" + (text("a") + b"N\x86") * 12_000 + b"l",
        b"ccollections\nOrderedDict\nh\x01\x85R0", 12_000,
    )),
    "a class of two long texts, again and again": lambda: archive(asked_again(
        text("n" * 1000), b"h\x01h\x01\x93", 250_000
    )),
    "long names joined": lambda: archive(joined(2000)),
    "one dictionary of many modules": lambda: archive(one_dictionary()),
    "a storage of a long tuple, again and again": lambda: archive(asked_again(
        b"(" + text("storage") + b"N" * 150_000 + b"t", b"h\x01Q0", 100_000
    )),
    "a stride of 0": lambda: archive(state_dict({"visual.w": view((BIG,), (0,))})),
    "views that overlap": lambda: archive(
        state_dict({"visual.w": view((1000, 1000, 1000), (1, 1, 1), count=3000)}), 3000
    ),
    "many views of one storage": lambda: archive(
        state_dict({f"visual.w{i}": view((1000,), (1,), count=1000) for i in range(2000)}), 1000
    ),
    "a view beyond its storage": lambda: archive(state_dict({"visual.w": view((5,), (1,))})),
    "a stride below 0": lambda: archive(state_dict({"visual.w": view((4,), (-1,), 3)})),
    "a huge empty shape": lambda: archive(
        state_dict({"visual.w": view((0, 1 << 62, 1 << 62), (1, 1, 1))})
    ),
    "a huge offset": lambda: archive(state_dict({"visual.w": view((4,), (1,), 1 << 62)})),
    "modules in modules": lambda: archive(deep(20_000)),
    "lists in lists": lambda: archive(b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + STOP),
    "a huge memo index": lambda: archive(
        b"\x80\x02" + OPEN + b"r\xff\xff\xff\xff0j\xff\xff\xff\xfe."
    ),
    "a huge text memo index": lambda: archive(b"\x80\x02" + OPEN + b"p" + b"9" * 5000 + b"\n."),
    "a huge bytearray": lambda: archive(b"\x80\x05\x96" + struct.pack("<Q", 1 << 50) + b"."),
    "a huge frame": lambda: archive(b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"}."),
    "a number of many digits": lambda: archive(b"\x80\x02L" + b"9" * 3_000_000 + b"L\n."),
    "an object made of a long tuple, again and again": lambda: archive(asked_again(
        b"(" + b"N" * 150_000 + b"t", b"ccollections\ndeque\nh\x01\x810", 60_000
    )),
    "an object called with a long tuple, again and again": lambda: archive(asked_again(
        b"(" + b"N" * 150_000 + b"t", b"ccollections\ndeque\nh\x01R0", 60_000
    )),
    "a huge text": lambda: archive(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"."),
    "a huge declared storage": lambda: archive(
        state_dict({"visual.w": view((1 << 40,), (1,), count=1 << 40)})
    ),
    "an entry with a false size": lambda: false_size(archive(state_dict(FINE))),
    "a compressed pickle": lambda: archive(
        b"\x80\x02" + OPEN * 50_000_000 + STOP, compressed=True
    ),
    "an endless pickle": lambda: archive(b"\x80\x02" + (OPEN + b"\x94") * 4_000_000 + STOP),
    "the older form with a huge storage": lambda: row(state_dict(FINE), ["0"], 1 << 60),
    "the older form with a storage below 0": lambda: row(state_dict(FINE), ["0"], -5),
    "the older form with a stride of 0": lambda: row(
        state_dict({"visual.w": view((BIG,), (0,))}), ["0"], 4
    ),
}  # fmt: skip
"""What is refused, by name."""

SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "a header of 2 ** 63 bytes": lambda: safetensors({}, (1 << 63) - 1),
    "a header of 90 MB that is not there": lambda: safetensors({}, 90_000_000),
    "offsets beyond the file": lambda: safetensors(
        tensor_header([BIG], 0, 4 * BIG), data=bytes(16)
    ),
    "a shape larger than its bytes": lambda: safetensors(
        tensor_header([BIG], 0, 16), data=bytes(16)
    ),
    "a shape that overflows": lambda: safetensors(
        tensor_header([1 << 62, 1 << 62, 4], 0, 16), data=bytes(16)
    ),
    "JSON in JSON": lambda: safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "offsets below 0": lambda: safetensors(tensor_header([4], -16, 0), data=bytes(16)),
}


def harmless(result: dict) -> bool:
    """Whether a file was refused within the limits, as `under_limits` tells it."""
    return result["outcome"] == "refused" and result["seconds"] < 15 and result["megabytes"] < 350


@contextmanager
def limited() -> Iterator[Callable[[str, Path], dict]]:
    """call(what, path): the reader, in a child process with little memory and time."""
    source = Path(__file__).parents[1] / "src"
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        encoding="utf-8", env={"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdin
    assert server.stdout

    def call(what: str, path: Path) -> dict:
        print(json.dumps([what, str(path)]), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())

    try:
        yield call
    finally:
        server.stdin.close()
        server.wait(60)
        server.stdout.close()


def serve() -> None:
    import resource
    import signal
    import time

    import torch

    from simprompt.clip.checkpoints import canonical, load_checkpoint, read_weights
    from simprompt.errors import SimpromptError
    from simprompt.utils.memory import peak_mb, reset_peak

    calls = {"weights": lambda path: canonical(read_weights(path)), "checkpoint": load_checkpoint}
    torch.zeros(1)
    for line in sys.stdin:
        what, path = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            signal.alarm(SECONDS)
            reset_peak()
            before, started = peak_mb(), time.perf_counter()
            try:
                calls[what](Path(path))
                outcome, message = "read", ""
            except SimpromptError as error:
                outcome, message = "refused", str(error)
            except BaseException as error:
                outcome, message = type(error).__name__, str(error)[:300]
            told = {"outcome": outcome, "message": message,
                    "seconds": time.perf_counter() - started,
                    "megabytes": peak_mb() - before}  # fmt: skip
            os.write(writer, json.dumps(told).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as end:
            answer = end.read().decode()
        _, status = os.waitpid(child, 0)
        silent = {"outcome": f"killed, status {status}", "message": "", "seconds": SECONDS,
                  "megabytes": MEMORY >> 20}  # fmt: skip
        print(answer or json.dumps(silent), flush=True)


if __name__ == "__main__":
    serve()
