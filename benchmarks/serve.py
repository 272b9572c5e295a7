"""Requests a second and their times, images batched against one by one, in one run.

    python -m benchmarks.serve [--requests 2000] [--flat 10000]

Zero-shot, CoOp and CoOp+SAR of the icon CLIP answer; the server is a process of its own, the
clients are in this one. Batched and one-by-one servers take turns. `--flat` sends so many requests
more to one server and prints its memory along the way.
"""

from __future__ import annotations

import argparse
import http.client
import io
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import simprompt
from simprompt.clip.hub import load_clip

HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}
NAMES = ["apple", "bread", "cheese", "pizza", "teapot", "anvil", "lamp", "spoon"]


@contextmanager
def serving(prompts: list[Path], batch: int) -> Iterator[tuple[str, int]]:
    """(address, process id) of a server."""
    command = [sys.executable, "-m", "simprompt", "serve", *map(str, prompts), "--port", "0",
               "--batch", str(batch), "--max-concurrent", "1000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0], process.pid
        process.terminate()


def load(address: str, clients: int, requests: int, bodies: list[bytes]) -> list[float]:
    """Seconds of each request, `clients` of them at a time; all must be answered."""
    host = address.split("/")[2]
    times: list[float] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(host, timeout=120)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            started = time.perf_counter()
            connection.request("POST", "/predict", bodies[number % len(bodies)], HEADERS)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            times.append(time.perf_counter() - started)

    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    return times


def body_of(image: bytes) -> bytes:
    """A multipart body with an image and the names."""
    parts = [b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
             b"Content-Type: image/png\r\n\r\n" + image]  # fmt: skip
    parts += [
        f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}'.encode()
        for name in NAMES
    ]
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def resident(pid: int) -> float:
    """MB of memory that a process holds (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--flat", type=int, default=0)
    arguments = parser.parse_args()
    data = simprompt.load_dataset("icons/food")
    bodies = []
    for row in range(0, len(data.new.test), 7):
        file = io.BytesIO()
        data.new.test.load(row).save(file, "PNG")
        bodies.append(body_of(file.getvalue()))
    with tempfile.TemporaryDirectory() as place:
        clip, shots = load_clip("icons"), data.base.few_shot(8, seed=1)
        prompts = []
        for name, sar in (("coop", False), ("coop+sar", True)):
            learned = simprompt.learn(clip, shots, sar=sar, training={"max_steps": 30})
            learned.save(Path(place) / name)
            prompts.append(Path(place) / name)
        print("clients  images a batch  requests/s   p50 ms   p95 ms")
        with serving(prompts, 32) as (many, pid), serving(prompts, 1) as (single, _):
            load(many, 4, 40, bodies)
            load(single, 4, 40, bodies)
            for clients in (1, 8, 32):
                for address, batch in ((many, "up to 32"), (single, "1")):
                    started = time.perf_counter()
                    times = sorted(load(address, clients, arguments.requests, bodies))
                    rate = len(times) / (time.perf_counter() - started)
                    p50, p95 = (1000 * times[int(q * (len(times) - 1))] for q in (0.5, 0.95))
                    print(f"{clients:7}  {batch:>14}  {rate:10.1f}  {p50:7.1f}  {p95:7.1f}")
            for part in range(10 if arguments.flat else 0):
                load(many, 8, arguments.flat // 10, bodies)
                print(f"{(part + 1) * arguments.flat // 10:6} requests: {resident(pid):.0f} MB")


if __name__ == "__main__":
    main()
