"""Whether `simprompt serve` stays right and small under many clients and ever new names.

    python -m benchmarks.serve_load [--requests 20000] [--clients 64] [--check 1000]

Zero-shot, CoOp and TCP of the icon CLIP answer on loopback; the server is a separate process. Half
of the requests go to /predict and half to /similarities, each with names that are new. Printed are
the statuses, the server's memory along the way, and the largest difference of `--check` answers
from those that a quiet engine in this process gives to the same question alone. `--seconds` ends
the load early. A 429 is a refusal: the machine did not answer within the server's time limit. Exit
code 1: a status other than 200 and 429, or an answer that differs by more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serve import HEADERS, resident, serving

import simprompt
from simprompt.clip.hub import load_clip
from simprompt.deploy.engine import Engine, Picture, Question, load_prompts

TOLERANCE = 1e-4
"""Of a probability or cosine: images of several requests go through the tower together, which
changes the order of sums."""
WORDS = ("apple", "bread", "cheese", "pizza", "teapot", "anvil", "lamp", "spoon", "violin", "tent")
JSON = {"Content-Type": "application/json"}


@dataclass
class Load:
    """The state that all clients share."""

    host: str
    pid: int
    images: Sequence[bytes]
    requests: int
    stop_at: float
    checked: frozenset[int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    answers: dict[int, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)  # the first body of each status
    memory: list[tuple[int, float, float]] = field(default_factory=list)  # requests, seconds, MB

    def next(self) -> int | None:
        """The number of the next request; None where all were sent or the time is over."""
        with self.lock:
            if self.begun == self.requests or time.monotonic() > self.stop_at:
                return None
            now = time.monotonic()
            often = self.begun % max(1, self.requests // 20) == 0
            if often or now - self.memory[-1][1] > 15:
                self.memory.append((self.begun, now, resident(self.pid)))
            self.begun += 1
            return self.begun - 1

    def client(self) -> None:
        """Send requests until there are no more."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        while (number := self.next()) is not None:
            names = names_of(number)
            if number % 2:
                path, headers = "/similarities", JSON
                body = json.dumps({"names": names}).encode()
            else:
                path, headers = "/predict", HEADERS
                body = form(self.images[number % len(self.images)], names)
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                status, text = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, text = 0, repr(error).encode()
            with self.lock:
                self.statuses[path, status] += 1
                if status != 200:
                    self.errors.setdefault(f"{path} {status}", text.decode(errors="replace")[:200])
                elif number in self.checked:
                    self.answers[number] = json.loads(text)


def names_of(number: int) -> list[str]:
    """Four names that no other request has, and one that the prompts were learned on."""
    words = [WORDS[(number + 3 * i) % len(WORDS)] for i in range(4)]
    # in letters: the icon CLIP's tokenizer knows no digits
    mark = " ".join(chr(ord("a") + int(digit)) for digit in str(number))
    return [f"{word} {mark} {chr(ord('k') + i)}" for i, word in enumerate(words)] + ["banana"]


def form(image: bytes, names: Sequence[str]) -> bytes:
    """A multipart body with an image and names."""
    parts = [b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
             b"Content-Type: image/png\r\n\r\n" + image]  # fmt: skip
    parts += [
        f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}'.encode()
        for name in names
    ]
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def difference(number: int, answer: Any, engine: Engine, picture: Picture) -> float:
    """The largest difference of an answer from the one that the engine gives alone."""
    names = tuple(names_of(number))
    if number % 2:
        alone = engine.similarities(names)
        pairs = [
            (x, y)
            for name, matrix in answer["matrices"].items()
            for row, other in zip(matrix, alone[name], strict=True)
            for x, y in zip(row, other, strict=True)
        ]
        assert {*answer["matrices"]} == {*alone}
    else:
        (judgements,) = engine.answer([Question(picture, names)])
        given = answer["images"][0]["answers"]
        pairs = [
            (
                choice["probability"],
                judgements[one["prompt"]].probabilities[names.index(choice["name"])],
            )
            for one in given
            for choice in one["choices"]
        ]
        assert {one["prompt"] for one in given} == {*judgements}
    return max(abs(x - y) for x, y in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--check", type=int, default=1000, help="answers that are compared")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of the load, at most")
    options = parser.parse_args()
    data = simprompt.load_dataset("icons/food")
    with tempfile.TemporaryDirectory() as folder:
        clip, shots = load_clip("icons"), data.base.few_shot(4, seed=1)
        prompts = []
        for method in ("coop", "tcp"):
            learned = simprompt.learn(
                clip, shots, method, training={"max_steps": 20}, progress=False
            )
            prompts.append(learned.save(Path(folder) / method))
        images = []
        for row in range(0, len(data.new.test), max(1, len(data.new.test) // 16)):
            path = Path(folder) / f"{row}.png"
            data.new.test.load(row).save(path)
            images.append(path.read_bytes())
        step = max(1, options.requests // max(1, options.check))
        step += 1 - step % 2  # odd, so that both paths are checked
        checked = frozenset(range(0, options.requests, step))
        with serving(prompts, 32) as (address, pid):
            begin = time.monotonic()
            load = Load(
                address.split("/")[2], pid, images, options.requests, begin + options.seconds,
                checked,
            )  # fmt: skip
            with ThreadPoolExecutor(options.clients) as pool:
                for future in [pool.submit(load.client) for _ in range(options.clients)]:
                    future.result()
            seconds = time.monotonic() - begin
            load.memory.append((load.begun, time.monotonic(), resident(pid)))
        engine = Engine(load_prompts(prompts))
        worst, wrong = 0.0, 0
        for number, answer in sorted(load.answers.items()):
            picture = engine.picture(images[number % len(images)], "image", 1 << 25)
            gap = difference(number, answer, engine, picture)
            worst, wrong = max(worst, gap), wrong + (gap > TOLERANCE)
    rate = load.begun / seconds
    print(f"{load.begun} requests of {options.clients} clients, {rate:.0f} per second")
    print("path            status  requests")
    for (path, status), count in sorted(load.statuses.items()):
        print(f"{path:<14}  {status or 'none':>6}  {count:8}")
    for where, text in sorted(load.errors.items()):
        print(f"  {where}: {text}")
    print(
        f"{len(load.answers)} answers compared with those given alone: {wrong} differ by more than "
        f"{TOLERANCE:g}; the largest difference is {worst:.1e}"
    )
    print("requests  seconds  MB of the server")
    for count, when, size in load.memory:
        print(f"{count:8}  {when - begin:7.0f}  {size:16.0f}")
    failed = sum(count for (_, status), count in load.statuses.items() if status not in (200, 429))
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
