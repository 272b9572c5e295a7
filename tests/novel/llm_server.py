"""An OpenAI-compatible chat server on loopback that misbehaves on request.

Each call takes the next behaviour of a script (the last one again when the script is over). A
behaviour is a function of the handler; the ones here are written so that a test reads as a story.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]
    body: dict[str, Any]

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length))
        with self.server.lock:
            self.server.requests.append({**self.body, "headers": dict(self.headers)})
            index = min(len(self.server.requests), len(self.server.script)) - 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.script[index](self)

    def send(
        self, data: bytes, status: int = 200, headers: dict[str, str] | None = None,
        announce: int | None = None,
    ) -> None:  # fmt: skip
        """Send an answer; `announce` is a Content-Length that need not be true."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if announce is None else announce))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Use as a context manager; `url` is what SIMPROMPT_LLM_BASE_URL is set to."""

    daemon_threads = True

    def __init__(self, script: Sequence[Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


def completion(content: object) -> bytes:
    """The body of a chat completion with this content."""
    return json.dumps(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "tiny",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": content}}],
        },
        ensure_ascii=False,
    ).encode("utf-8")  # fmt: skip


def names(values: Sequence[str]) -> Behaviour:
    """The answer as it should be."""
    return says(json.dumps({"names": list(values)}, ensure_ascii=False))


def says(content: object) -> Behaviour:
    return lambda handler: handler.send(completion(content))


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any):
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return lambda handler: handler.send(body, status, headers)


def raw(data: bytes, content_type: str = "application/json", **options: Any) -> Behaviour:
    return lambda handler: handler.send(data, headers={"Content-Type": content_type}, **options)


def breaks_off(data: bytes) -> Behaviour:
    """Announces more than it sends, then closes the socket."""

    def act(handler: Handler) -> None:
        handler.send(data, announce=len(data) + 1000)
        handler.connection.shutdown(socket.SHUT_RDWR)

    return act


def hangs_up(handler: Handler) -> None:
    """Closes the socket without a byte."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def drips(data: bytes, seconds: float, pieces: int) -> Behaviour:
    """Sends the answer in pieces with pauses; no single pause is long."""

    def act(handler: Handler) -> None:
        handler.send(b"", announce=len(data))
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            handler.wfile.write(data[start : start + step])
            handler.wfile.flush()
            time.sleep(seconds / pieces)

    return act


def sleeps(seconds: float) -> Behaviour:
    return lambda handler: time.sleep(seconds)
