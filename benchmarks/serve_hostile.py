"""What hostile and careless clients cost a server: seconds, memory, and what others notice.

    python -m benchmarks.serve_hostile PROMPT [--simprompt PATH] [--only WORD]

Starts `simprompt serve PROMPT` on loopback, once for each kind of request, sends it, and asks
/healthz meanwhile. `--simprompt` names the program of another installation, to compare with.
Nothing leaves this computer; a kind takes at most a minute.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
PATIENCE = 45.0  # seconds for one kind of request


@dataclass
class Target:
    """A server that is being asked."""

    host: str
    port: int
    pid: int
    stop: threading.Event = field(default_factory=threading.Event)

    def send(
        self, path: str, body: bytes, headers: dict[str, str], timeout: float = PATIENCE
    ) -> str:
        """The status of an answer, or what came in its place."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except TimeoutError:
            return "no answer"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def open(self, start: bytes) -> socket.socket:
        """A connection on which this was sent."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little is read ahead
        connection.settimeout(PATIENCE)
        connection.connect((self.host, self.port))
        connection.sendall(start)
        return connection

    def memory(self, name: str) -> float:
        """MB that the process holds (VmRSS) or has held at most (VmHWM); Linux."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(text.split(f"{name}:")[1].split()[0]) / 1024


def form(images: Sequence[bytes], names: Sequence[str] = ()) -> bytes:
    """A multipart body."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + image
        for image in images
    ]
    parts += [
        f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}'.encode()
        for name in names
    ]
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    """A flat image."""
    file = io.BytesIO()
    Image.new(mode, (width, height), 1).save(file, "PNG")
    return file.getvalue()


def flat_images(target: Target) -> Iterator[str]:
    """16 flat images of 40 megapixels in one request."""
    yield target.send("/predict", form([png(8000, 5000)] * 16), FORM)


def flat_images_at_once(target: Target) -> Iterator[str]:
    """Eight requests at once, each with four transparent images of 40 megapixels."""
    body = form([png(8000, 5000, "RGBA")] * 4)
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(lambda _: target.send("/predict", body, FORM), range(8))


def million_names(target: Target) -> Iterator[str]:
    """A million names in JSON, to /similarities."""
    body = json.dumps({"names": [""] * 1_000_000}).encode()
    yield target.send("/similarities", body, JSON)


def million_fields(target: Target) -> Iterator[str]:
    """As many fields in a form as 19 MB hold."""
    part = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n'
    yield target.send("/predict", part * (19_000_000 // len(part)) + b"--b--\r\n", FORM)


def json_values(target: Target) -> Iterator[str]:
    """19 MB of empty JSON objects."""
    body = b'{"names": [' + b",".join([b"{}"] * 6_000_000) + b"]}"
    yield target.send("/similarities", body, JSON)


def json_depth(target: Target) -> Iterator[str]:
    """19 million brackets."""
    yield target.send("/similarities", b"[" * 19_000_000, JSON)


def base64_bodies(target: Target) -> Iterator[str]:
    """Eight requests at once with 14 MB of base64 that is no image."""
    text = base64.b64encode(bytes(14_000_000)).decode()
    body = json.dumps({"images": [text]}).encode()
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(lambda _: target.send("/predict", body, JSON), range(8))


def slow_bodies(target: Target) -> Iterator[str]:
    """100 requests whose body comes a byte a second."""
    start = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    start += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    yield from _dripping(target, [start] * 100)


def half_headers(target: Target) -> Iterator[str]:
    """300 connections whose header never ends."""
    yield from _dripping(target, [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "] * 300)


def idle_connections(target: Target) -> Iterator[str]:
    """300 connections that say nothing."""
    yield from _dripping(target, [b""] * 300, drip=False)


def unread_answers(target: Target) -> Iterator[str]:
    """20 connections that ask for 200 pages each and read none."""
    page = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield from _dripping(target, [page * 200] * 20)


def new_names(target: Target) -> Iterator[str]:
    """200 requests with 100 names that nobody typed before, eight at a time."""
    image = png(64, 64)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def name(number: int) -> str:
        return "".join(letters[number // 26**place % 26] for place in range(5))

    def one(request: int) -> str:
        names = [name(100 * request + place) for place in range(100)]
        return target.send("/predict", form([image], names), FORM)

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(one, range(200))


def foreign_host(target: Target) -> Iterator[str]:
    """A web page that reaches the server under its own name (DNS rebinding)."""
    yield target.send("/predict", form([png(64, 64)]), FORM | {"Host": "evil.example"})


def _dripping(target: Target, starts: Sequence[bytes], drip: bool = True) -> Iterator[str]:
    """Open connections and send one byte a second on each, for 30 seconds."""
    open_ones: list[socket.socket] = []
    counts: Counter[str] = Counter()
    for start in starts:
        try:
            connection = target.open(b"")
            connection.settimeout(0.2)
            open_ones.append(connection)
            connection.sendall(start)
        except OSError:
            pass
    end = time.monotonic() + 30
    while open_ones and time.monotonic() < end:
        time.sleep(1)
        for connection in list(open_ones):
            try:
                if drip:
                    connection.sendall(b"x")
                else:  # closed by the other side? nothing is taken out
                    connection.setblocking(False)
                    if not connection.recv(1, socket.MSG_PEEK):
                        raise ConnectionError
            except (BlockingIOError, TimeoutError):
                continue
            except OSError:
                counts["closed"] += 1
                connection.close()
                open_ones.remove(connection)
    counts["still open"] += len(open_ones)
    for connection in open_ones:
        connection.close()
    yield from counts.elements()


KINDS: dict[str, Callable[[Target], Iterator[str]]] = {
    kind.__name__: kind
    for kind in (
        flat_images, flat_images_at_once, million_names, million_fields, json_values, json_depth,
        base64_bodies, slow_bodies, half_headers, idle_connections, unread_answers, new_names,
        foreign_host,
    )
}  # fmt: skip


@contextmanager
def serving(program: list[str], prompt: str) -> Iterator[Target]:
    """A server that has answered once."""
    command = [*program, "serve", prompt, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split("/")[2].split(":")
        target = Target(host, int(port), process.pid)
        try:
            assert target.send("/predict", form([png(64, 64)]), FORM) == "200"
            yield target
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def health(target: Target, seconds: list[float], statuses: Counter[str]) -> None:
    """Ask /healthz every tenth of a second until the target is done with."""
    while not target.stop.wait(0.1):
        started = time.perf_counter()
        connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/healthz")
            statuses[str(connection.getresponse().status)] += 1
        except (OSError, http.client.HTTPException) as error:
            statuses[type(error).__name__] += 1
        finally:
            connection.close()
        seconds.append(time.perf_counter() - started)


def measure(program: list[str], prompt: str, kind: Callable[[Target], Iterator[str]]) -> str:
    """One row of the table."""
    with serving(program, prompt) as target:
        before = target.memory("VmRSS")
        waits: list[float] = []
        statuses: Counter[str] = Counter()
        watcher = threading.Thread(target=health, args=(target, waits, statuses))
        watcher.start()
        started = time.perf_counter()
        answers = Counter(kind(target))
        took = time.perf_counter() - started
        target.stop.set()
        watcher.join()
        grown = target.memory("VmHWM") - before
    said = ", ".join(f"{number} x {answer}" for answer, number in answers.most_common(3))
    alive = ", ".join(f"{number} x {status}" for status, number in statuses.most_common(3))
    longest = max(waits, default=0)
    return f"| {kind.__doc__} | {said} | {took:.1f} | {grown:.0f} | {longest:.2f} ({alive}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--simprompt", help="the program of another installation")
    parser.add_argument("--only", default="", help="kinds with this word in their names")
    arguments = parser.parse_args()
    own = [sys.executable, "-m", "simprompt"]
    program = [arguments.simprompt] if arguments.simprompt else own
    print("| requests | answers | seconds | MB more at the peak | longest wait for /healthz, s |")
    print("|---|---|---|---|---|", flush=True)
    for name, kind in KINDS.items():
        if arguments.only in name:
            print(measure(program, arguments.prompt, kind), flush=True)


if __name__ == "__main__":
    main()
