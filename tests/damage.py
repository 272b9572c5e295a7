"""Files with small changes that break them: bytes, and what a format is made of.

An input is a dictionary of file names and contents. `damaged` changes some of it, by the file's
suffix: values in JSON, headers of safetensors, members of archives, chunks of PNG, words of text.
What was taken apart is put together with lengths and checksums that fit, so that a reader gets past
its first look. The same generator makes the same changes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any

Files = dict[str, bytes]
Change = Callable[[bytes, random.Random], bytes]
LARGEST = 1 << 20  # bytes of a file; what is repeated is not repeated beyond it

NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 24, 77, 127, 128, 255, 256, 32767, 65535, 65536, 1 << 20,
           (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 1)  # fmt: skip
WORDS = [
    b"[", b"]", b"{", b"}", b"(", b")", b'"', b"'", b"\\", b"\\ud800", b"\0", b"\x1b[2J",
    b"\x1b]0;x\x07", b"NaN", b"Infinity", b"-1", b"1e999", b"-0.0", b"9" * 5000, b"1" * 400,
    b"*x", b"&a ", b"!!python/object:os.system ", b"!!int ", b"2001-99-99", b"=", b"==", b":",
    b": ", b"|", b">", b"- ", b"? ", b"%", b"@", b"`", b",", b";", b"\t", b"\r", b"\n", b"\r\n",
    b"\n\n", b"\xff", b"\x80", b"\xed\xa0\x80", b"..", b"../..", b"/", b"//", b"C:\\", b"~",
    b"null", b"true", b"yes", b"0x10", b"0o7", b"1_000", b"1:30:00", b".inf", b".nan", b"[" * 200,
    b"{" * 200, b"[" * 20000, b"{[ " * 3000, b"- " * 300, b'{"a":' * 80, b"a" * 20000,
    b" " * 5000, b"+", b"#", b"${x}", b"{}", b"{0}", b"{0.__class__}", b"<script>", b"=1+1",
    b"file:", b"hf://a/b", b"icons",
    *(sign.encode() for sign in "\u2028\ufeff\u202e\u0301\U0001f600"),
]  # fmt: skip
HARD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 8, 16, 64, 1000, 65536, 1 << 31, 1 << 40, 1 << 63,
    -(1 << 63), 10**30, 0.5, -0.0, 1e-320, 1e30, 1e308, float("nan"), float("inf"),
    float("-inf"), "", "a", "0", " ", "\0", "\ud800", "\u202e", "\x1b[2J", "a" * 3000, "{}",
    "{0}", "../x", "/etc/passwd", "icons", "float32", "<U4", "O", [], {}, [[]], [None], [0],
    ["a"], ["a", "a"], [1, "a"], [0] * 1000, {"": {}}, {"a": 1}, {"a": None}, {"0": 0},
    [[1, 2], [3]], "2020-01-01T00:00:00",
)  # fmt: skip


def damaged(files: Files, rng: random.Random) -> Files:
    """These files with one to five changes."""
    made = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        name = rng.choice(sorted(made))
        if rng.random() < 0.02 and len(made) > 1:
            del made[name]
            continue
        if rng.random() < 0.02:
            made[name] = made[rng.choice(sorted(made))]
            continue
        made[name] = _changed(name, made[name], rng)[:LARGEST]
    return made


def _changed(name: str, data: bytes, rng: random.Random) -> bytes:
    path = PurePosixPath(name)
    change = KINDS.get(path.suffix.lower(), _text if path.suffix == "" else _bytes)
    if data[:2] == b"PK":
        change = _zip
    elif data[:2] == b"\x1f\x8b":
        change = _gzip
    if rng.random() < 0.25:
        change = _bytes
    with suppress(Exception):  # what is no longer of its format is changed as bytes
        return change(data, rng)
    return _bytes(data, rng)


# ---------------------------------------------------------------------------- bytes and text


def _bytes(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(BYTES)(data, rng)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A short part, at times a long one."""
    start = rng.randint(0, len(data))
    most = rng.choice((1, 4, 16, 64, max(1, len(data))))
    return start, min(len(data), start + rng.randint(0, most))


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\0"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _set(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at] + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))]) + data[at + 1 :]
    )


def _number(data: bytes, rng: random.Random) -> bytes:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
    value = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
    number = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)
    at = rng.randint(0, len(data))
    return data[:at] + number + data[at + size :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _again(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    times = min(rng.choice((2, 3, 10, 1000)), max(1, LARGEST // max(1, end - start)))
    return data[:start] + data[start:end] * times + data[end:]


def _word(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(WORDS) + data[at + rng.choice((0, 0, 1, 4)) :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 4, 30))) + data[at:]


def _moved(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    part, rest = data[start:end], data[:start] + data[end:]
    at = rng.randint(0, len(rest))
    return rest[:at] + part + rest[at:]


BYTES: tuple[Change, ...] = (
    _flip, _flip, _set, _number, _number, _cut, _end, _again, _word, _noise, _moved,
)  # fmt: skip


def _text(data: bytes, rng: random.Random) -> bytes:
    """Words, lines and encodings."""
    kind = rng.randrange(6)
    if kind == 0:
        lines = data.splitlines(keepends=True) or [b""]
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice(
            ([], [lines[at], lines[at]], [rng.choice(lines)], [lines[at].strip()], [b"\n"])
        )
        return b"".join(lines)
    if kind == 1:
        with suppress(UnicodeDecodeError):
            text = data.decode("utf-8")
            form = rng.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32", "latin-1", "cp1252"))
            return text.encode(form, errors="replace")
    if kind == 2:
        words = data.split(b" ")
        rng.shuffle(words)
        return b" ".join(words)
    return (_word if kind < 5 else _bytes)(data, rng)


# ---------------------------------------------------------------------------- formats


def _json(data: bytes, rng: random.Random) -> bytes:
    """Another value at one place, or a place more or less."""
    value = json.loads(data.decode("utf-8-sig"))
    if rng.random() < 0.15:
        return _text(data, rng)
    value = _other(value, rng)
    return json.dumps(value, ensure_ascii=rng.random() < 0.8).encode(errors="surrogatepass")


def _other(value: Any, rng: random.Random) -> Any:
    """The value with a change somewhere inside, or another in its place."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        made, key = dict(value), rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            del made[key]
        elif kind < 0.15:
            made[rng.choice(("", "a", key.upper(), f"{key}s", "0"))] = made.pop(key)
        elif kind < 0.2:
            made[rng.choice(("a", "", "format", "names"))] = rng.choice(HARD)
        elif kind < 0.25:
            made[key] = value[rng.choice(list(value))]
        else:
            made[key] = _other(value[key], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.85:
        made, at = list(value), rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.15:
            del made[at]
        elif kind < 0.25:
            made.insert(at, rng.choice((value[at], rng.choice(HARD))))
        else:
            made[at] = _other(value[at], rng)
        return made
    kind = rng.random()
    if isinstance(value, int | float) and not isinstance(value, bool) and kind < 0.4:
        return rng.choice((-value, value + 1, value - 1, value * 2, 0, float(value), str(value)))
    if isinstance(value, str) and kind < 0.4:
        return _text(value.encode(errors="surrogatepass"), rng).decode(errors="surrogateescape")
    if kind < 0.5:
        return rng.choice(([value], {"a": value}, [value] * 2, str(value)[:1000]))
    return rng.choice(HARD)


def _lines_of_json(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines() or [b"{}"]
    at = rng.randrange(len(lines))
    lines[at] = _json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.3:
        body = _bytes(body, rng)
    else:
        head = _json(head, rng)
    length = len(head) if rng.random() < 0.95 else rng.choice(NUMBERS) & ((1 << 64) - 1)
    return struct.pack("<Q", length) + head + body


def _zip(data: bytes, rng: random.Random) -> bytes:
    """Members with other names, contents and order; or the bytes of its directory."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(m.filename, m.compress_type, file.read(m)) for m in file.infolist()]
    at = rng.randrange(len(members))
    name, method, contents = members[at]
    kind = rng.random()
    if kind < 0.1:
        del members[at]
    elif kind < 0.2:
        members.append((name, method, contents))
    elif kind < 0.35:
        members[at] = (_name(name, rng), method, contents)
    else:
        members[at] = (name, method, _bytes(contents, rng)[:LARGEST])
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as file:
        warnings.simplefilter("ignore")  # two members of one name are meant
        for name, method, contents in members:
            file.writestr(name, contents, method)
    made = out.getvalue()
    if rng.random() < 0.3:  # the directory, and what follows it
        start = made.rindex(b"PK\x01\x02") if b"PK\x01\x02" in made else 0
        made = made[:start] + _bytes(made[start:], rng)
    return made


def _name(name: str, rng: random.Random) -> str:
    return rng.choice(
        ("../" + name, "/" + name, name + "/", name * 40, "", ".", "a/../../b", "C:\\a", "\n", "é",
         name.upper(), name + "\x1b[2J", "a/" * 300 + "b")
    )  # fmt: skip


def _tar(data: bytes, rng: random.Random) -> bytes:
    """A header with another field and a checksum that fits, or the bytes of a member."""
    headers = [i for i in range(0, len(data), 512) if data[i + 257 : i + 262] == b"ustar"]
    at = rng.choice(headers)
    head = bytearray(data[at : at + 512])
    start, end = rng.choice(((0, 100), (100, 108), (124, 136), (136, 148), (156, 157), (157, 257),
                             (257, 265), (345, 500)))  # fmt: skip
    field = rng.choice(
        (_bytes(bytes(head[start:end]), rng), _name("a", rng).encode(), b"%o" % rng.choice(NUMBERS),
         b"\x80" + rng.randbytes(11), bytes([rng.choice(b"0123456789LKxgSXNV\0")]))
    )  # fmt: skip
    head[start:end] = field[: end - start].ljust(end - start, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % (sum(head) & 0o777777)
    return data[:at] + bytes(head) + data[at + 512 :]


def _packed_tar(unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> Change:
    def change(data: bytes, rng: random.Random) -> bytes:
        return pack(_tar(unpack(data), rng))

    return change


def _gzip(data: bytes, rng: random.Random) -> bytes:
    plain = gzip.decompress(data)
    change = _tar if plain[257:262] == b"ustar" else _text
    return gzip.compress(change(plain, rng), 1)


def _png(data: bytes, rng: random.Random) -> bytes:
    """A chunk with other contents, and a checksum that fits."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks))
    kind, contents = chunks[i]
    choice = rng.random()
    if choice < 0.1:
        del chunks[i]
    elif choice < 0.2:
        chunks.insert(i, chunks[i])
    elif choice < 0.35:
        chunks.insert(i, (rng.choice((b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"gAMA",
                                      b"acTL", b"IDAT")), rng.randbytes(20)))  # fmt: skip
    elif choice < 0.5 and kind == b"IDAT":
        chunks[i] = (kind, zlib.compress(_bytes(zlib.decompress(contents), rng)))
    else:
        chunks[i] = (kind, _bytes(contents, rng))
    made = data[:8]
    for kind, contents in chunks:
        made += struct.pack(">I", len(contents)) + kind + contents
        made += struct.pack(">I", zlib.crc32(kind + contents))
    return made


KINDS: dict[str, Change] = {
    ".json": _json, ".jsonl": _lines_of_json, ".safetensors": _safetensors, ".zip": _zip,
    ".tar": _tar, ".tgz": _gzip, ".gz": _gzip, ".png": _png, ".txt": _text, ".csv": _text,
    ".tsv": _text, ".yaml": _text,
    ".tbz": _packed_tar(bz2.decompress, partial(bz2.compress, compresslevel=1)),
    ".txz": _packed_tar(lzma.decompress, partial(lzma.compress, preset=0)),
}  # fmt: skip
