"""HTTP requests and files of names, made by a grammar: mostly right, with one or two odd places.

A request is two files, so that the fuzzer can keep it and make it smaller: `request.json` has the
method, the path, the headers and where the body is cut into messages; `body` has its bytes.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

from PIL import Image

from damage import HARD, WORDS, Files, damaged

NAMES = (
    "cat", "red panda", "Zebra crossing", "oak", "", " ", "cat ", "CAT", "é", "e\u0301", "猫", "کت",
    "\u200b", "\ufeff", "\u202egod", "\x00", "\x1b[2J", "a" * 300, "0:circle", "1", "&amp;", "a,b",
    "=1+1", "<b>", "\ud83d\ude00", "😀", "ß", "İ", "ﬁ", "\u2028",
)  # fmt: skip


def name(rng: random.Random) -> str:
    if rng.random() < 0.8:
        return rng.choice(NAMES[:4])
    return rng.choice(NAMES).encode("utf-8", "replace").decode()


# ------------------------------------------------------------------------------- files of names

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1",
             "cp1252", "shift-jis", "utf-7")  # fmt: skip
SUFFIXES = ("txt", "json", "jsonl", "csv", "tsv", "yaml", "names", "")


def file_of_names(rng: random.Random) -> Files:
    """Names in any format, encoding, kind of line end and suffix; these need not fit each other."""
    names = [name(rng) for _ in range(rng.choice((0, 1, 2, 5, 5, 5, 400)))]
    values: list[Any] = [rng.choice(HARD) if rng.random() < 0.1 else one for one in names]
    end = rng.choice(("\n", "\n", "\r\n", "\r", "\x85", "\u2028", "\n\n", ""))
    text = rng.choice((
        lambda: end.join(names) + end,
        lambda: ",".join(names),
        lambda: "; ".join(names),
        lambda: json.dumps(values),
        lambda: json.dumps({"names": values}),
        lambda: json.dumps({str(i): one for i, one in enumerate(values)}),
        lambda: end.join(json.dumps({"name": one}) for one in values),
        lambda: end.join(f"{i}:{one}" for i, one in enumerate(names)),
        lambda: end.join(f"{i} = {one}" for i, one in enumerate(names)),
        lambda: "name,id" + end + end.join(f'"{one}",{i}' for i, one in enumerate(names)),
        lambda: end.join(f"- {one}" for one in names),
        lambda: "names:" + end + end.join(f"  {i}: {one}" for i, one in enumerate(names)),
        lambda: "# a remark" + end + end.join(f"{one} # why" for one in names),
    ))()  # fmt: skip
    data = text.encode(rng.choice(ENCODINGS), errors="replace")
    suffix = rng.choice(SUFFIXES)
    made = {f"names.{suffix}" if suffix else "names": data}
    return damaged(made, rng) if rng.random() < 0.3 else made


# ------------------------------------------------------------------------------- requests


def _png(rng: random.Random) -> bytes:
    out = io.BytesIO()
    mode = rng.choice(("RGB", "L", "RGBA", "P", "1", "I;16"))
    Image.new(mode, rng.choice(((2, 2), (1, 50), (9, 9), (300, 300)))).save(out, "PNG")
    data = out.getvalue()
    return damaged({"a.png": data}, rng)["a.png"] if rng.random() < 0.3 else data


def _multipart(rng: random.Random) -> tuple[str, bytes]:
    mark = rng.choice((b"XX", b"XX", b"-", b"a" * 70, b"'()+_,-./:=?", b""))
    parts = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 9))):
        field = rng.choice(("image", "image", "name", "name", "top", "names", "", "x", "image[]"))
        content = _png(rng) if field.startswith("image") else name(rng).encode()
        if field == "top":
            content = rng.choice((b"1", b"0", b"-1", b"9" * 400, b"1.5", b"nan", b"\xff", b""))
        file = rng.choice(
            ('; filename="a.png"', '; filename="../a"', "; filename*=utf-8''%ff", '; filename=""')
        )
        lines = [f'Content-Disposition: form-data; name="{field}"'.encode()]
        if field.startswith("image") or rng.random() < 0.1:
            lines[0] += file.encode()
        if rng.random() < 0.3:
            lines.append(rng.choice((
                b"Content-Type: image/png", b"Content-Type: text/plain; charset=utf-16",
                b"no colon", b"Content-Transfer-Encoding: base64", b"X: " + b"y" * 9000,
                b"Content-Type: \xff",
            )))  # fmt: skip
        if rng.random() < 0.05:
            lines = rng.choice(([], [rng.choice(WORDS)], lines * 40))
        parts.append(b"--" + mark + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + content)
    body = b"\r\n".join([*parts, b"--" + mark + rng.choice((b"--\r\n", b"--", b"", b"\r\n"))])
    kind = rng.choice(("multipart/form-data", "multipart/form-data", "multipart/mixed"))
    return f"{kind}; boundary={mark.decode()}" if rng.random() < 0.95 else kind, body


def _urlencoded(rng: random.Random) -> tuple[str, bytes]:
    fields = [
        f"{rng.choice(('name', 'image', 'top', '', '%00', 'x' * 3000))}="
        f"{rng.choice(('cat', '%ff', '%', '+', '%F0%9F%98%80', 'a' * 5000, '1'))}"
        for _ in range(rng.choice((0, 1, 3, 2000)))
    ]
    return "application/x-www-form-urlencoded", rng.choice("&;").join(fields).encode()


def _json_body(rng: random.Random) -> tuple[str, bytes]:
    names: list[Any] = [name(rng) for _ in range(rng.choice((0, 1, 3, 3, 3, 25, 3000)))]
    if rng.random() < 0.3:
        names.append(rng.choice(HARD))
    odd = (names, rng.choice(HARD), {"names": "cat"}, {"names": names, "x": rng.choice(HARD)},
           {"image": "AAAA", "name": names})  # fmt: skip
    value = rng.choice(odd) if rng.random() < 0.5 else {"names": names}
    data = json.dumps(value).encode()
    if rng.random() < 0.2:
        data = rng.choice((b"[" * 50_000, b'{"names":' * 2000, data[:-1], b"", b"\xff\xfe" + data,
                           data.decode().encode("utf-16"), b"NaN"))  # fmt: skip
    return rng.choice(("application/json",) * 4 + ("text/json; charset=utf-16", "")), data


def request(rng: random.Random) -> Files:
    """A request to the server."""
    kind, body = rng.choice(
        (_multipart, _multipart, _multipart, _urlencoded, _json_body, _json_body)
    )(rng)
    path = "/similarities" if kind.startswith(("application/json", "text/json")) else "/predict"
    if rng.random() < 0.1:
        path = rng.choice(("/predict", "/similarities", "/info", "/metrics", "/page.css",
                           "/page.%00", "//", "/docs", "/no/such", "/healthz"))  # fmt: skip
    headers = [["content-type", kind], ["host", "localhost"], ["content-length", str(len(body))]]
    if rng.random() < 0.1:
        headers[2][1] = rng.choice(("0", "-1", "9" * 30, "x", "1"))
    if rng.random() < 0.1:
        headers.append(rng.choice((
            ["origin", "http://other"], ["origin", "null"], ["host", "a:b:c"], ["host", "\xff"],
            ["x-forwarded-for", "1"], ["accept-encoding", "x" * 5000], ["content-encoding", "gzip"],
            ["transfer-encoding", "chunked"], ["expect", "100-continue"], ["range", "bytes=9-1"],
        )))  # fmt: skip
    cuts = sorted(rng.randint(0, len(body)) for _ in range(rng.choice((0, 0, 1, 5))))
    method = "POST" if rng.random() < 0.95 else rng.choice(("GET", "PUT", "HEAD", "OPTIONS", "X"))
    about = {
        "method": method,
        "path": path, "headers": headers, "cuts": cuts, "leaves": rng.random() < 0.05,
    }  # fmt: skip
    return {"request.json": json.dumps(about).encode(), "body": body}


async def ask(
    app: Any, about: dict[str, Any], body: bytes
) -> tuple[int | None, Sequence[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an ASGI application's answer; status None if it gave none."""
    path = str(about["path"])
    edges = [0, *about["cuts"], len(body)]
    parts = [body[start:end] for start, end in itertools.pairwise(edges)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "method": about["method"], "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in about["headers"]],
    }  # fmt: skip
    left = list(enumerate(parts, start=1))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if left and not (about["leaves"] and len(left) == 1):
            number, part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": number < len(parts)}
        if about["leaves"]:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    answer = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return (starts[0]["status"], starts[0]["headers"], answer) if starts else (None, (), answer)
