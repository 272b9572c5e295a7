"""Commands that are killed at random moments and started again, until they are done.

Every command runs once undisturbed and then in rounds: it is started, killed (KILL, TERM, INT, the
last to the process or to its whole group as a terminal does, or KILL of one of its workers) after a
random time, and started again until it ends by itself. After every kill no process of it may live
for more than two seconds; TERM and INT have to end it in that time with one sentence and exit code
143 or 130. After every round its files have to be those of the undisturbed run, bit by bit but for
times, and nothing else may lie around.

    python tests/chaos.py --kills 300
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from loopback import Hub
from simprompt.clip.hub import load_clip
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.vision import VisionConfig
from simprompt.data import icons
from simprompt.utils.files.atomic import write_json

LIMIT = 2.0  # seconds that a command has to be gone in
EVERY = 0.5  # seconds between two checkpoints here, in place of sixty
STARTS = 0.7  # seconds until a command looks at signals itself
MOST = 10  # faults of a command that are shown
MARK = "SIMPROMPT_CHAOS"
TIMES = {
    "seconds", "train_seconds", "peak_mb", "when", "together", "created", "version", "environment",
    "checksums",
}  # fmt: skip
KINDS = ("KILL", "TERM", "INT", "INT of the group", "KILL of a worker")


@dataclass
class Scenario:
    """A command, and how often it is to be killed.

    Attributes:
        name: for the table.
        arguments: of `simprompt`, with paths relative to a folder of its own.
        kills: how many.
        cold: whether it begins without image features.
        prepare: puts into the folder what the command needs.
    """

    name: str
    arguments: tuple[str, ...]
    kills: int
    cold: bool = False
    prepare: Callable[[Path], None] = lambda folder: None


@dataclass
class Count:
    """What became of a scenario's kills."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    seconds: float = 0.0
    lost: list[float] = field(default_factory=list)  # seconds since the last checkpoint
    ends: list[float] = field(default_factory=list)  # seconds from TERM or INT to the end
    faults: list[str] = field(default_factory=list)


def drawings(folder: Path) -> None:
    """A folder of class folders, as somebody has them."""
    data = icons.load("places")
    split = data.base.few_shot(8, 1)
    for row, label in enumerate(split.labels):
        place = folder / "images" / split.classnames[label].replace(" ", "_")
        if split.classnames[label] in split.classnames[:6]:
            place.mkdir(parents=True, exist_ok=True)
            split.load(row).save(place / f"{row}.png")
    (folder / "new.txt").write_text("lighthouse\nwindmill\nigloo\n", encoding="utf-8")


def scenarios(kills: int) -> list[Scenario]:
    places = ("--dataset", "icons/places")
    longer = ("--set", "training.max_steps=120", "--max-test-per-class", "4")
    shares = {
        "run": 14, "workers": 14, "batch": 12, "methods": 10, "learn": 12, "tune": 10, "study": 10,
        "features": 10, "download": 12, "novel": 8, "serve": 8, "demo": 1,
    }  # fmt: skip
    n = {name: -(-kills * share // sum(shares.values())) for name, share in shares.items()}
    return [
        Scenario("demo", ("demo", "--out", "out"), n["demo"]),
        Scenario("run", ("run", *places, "--seeds", "1,2", *longer, "--out", "out"), n["run"]),
        Scenario(
            "run --workers 2",
            ("run", *places, "--seeds", "1,2", *longer, "--workers", "2", "--out", "out"),
            n["workers"],
        ),
        Scenario(
            "run --train-together",
            ("run", *places, "--seeds", "1,2", *longer, "--train-together", "--out", "out"),
            n["batch"],
        ),
        Scenario(
            "run, other methods",
            ("run", *places, "--method", "promptsrc,dept,tcp", "--seeds", "1", "--sar",
             "on", "--set", "training.max_steps=40", "--max-test-per-class", "1", "--out", "out"),
            n["methods"],
        ),
        Scenario(
            "learn",
            ("learn", "images", "--new-classes", "new.txt", "--set", "training.max_steps=240",
             "--out", "out"),
            n["learn"], cold=True, prepare=drawings,
        ),
        Scenario(
            "tune",
            ("tune", *places, "--grid", "sar.weight=0.1,0.4", "--set", "training.max_steps=90",
             "--out", "out"),
            n["tune"],
        ),
        Scenario("study", ("study", "sampling", "--smoke", "--out", "out"), n["study"]),
        Scenario("encode", ("encode", "icons/places"), n["features"], cold=True),
        Scenario("download", ("show", "hub:me/icons"), n["download"], cold=True),
        Scenario(
            "novel",
            ("novel-names", "wordnet:100", "--dataset", "icons/animals", "--out",
             "out.json"),
            n["novel"],
        ),
        Scenario("serve", ("serve", "prompt", "--port", "0"), n["serve"], prepare=a_prompt),
    ]  # fmt: skip


_prompt: Path | None = None


def a_prompt(folder: Path) -> None:
    """A learned prompt."""
    assert _prompt is not None
    shutil.copytree(_prompt, folder / "prompt")


def a_model() -> CLIP:
    """Random weights of some 15 MB, and the icon CLIP's tokenizer."""
    tokenizer = load_clip("icons").tokenizer
    text = TextConfig(
        vocab_size=tokenizer.fast.get_vocab_size(), context_length=77, width=256, layers=2, heads=4,
        embed_dim=64, sot=tokenizer.sot, eot=tokenizer.eot,
    )  # fmt: skip
    vision = VisionConfig(image_size=32, patch_size=8, width=256, layers=2, heads=4, embed_dim=64)
    torch.manual_seed(0)
    return CLIP(CLIPConfig(text, vision), tokenizer, name="random")


class Chaos:
    """All scenarios below a folder; every process is known by a mark in its environment."""

    def __init__(self, root: Path, hub: Hub, seed: int) -> None:
        self.root, self.hub, self.seed = root, hub, seed
        self.bore: set[int] = set()  # commands that a worker was taken from

    def environment(self, folder: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return kept | {
            MARK: folder.name, "SIMPROMPT_CHECKPOINT_EVERY": str(EVERY), "OMP_NUM_THREADS": "1",
            "SIMPROMPT_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": self.hub.url, "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    def folder(self, scenario: Scenario, name: str) -> Path:
        folder = self.root / name  # of one path in all rounds: some names hold it
        (folder / "tmp").mkdir(parents=True)
        scenario.prepare(folder)
        if not scenario.cold and (self.root / "cache").is_dir():
            shutil.copytree(self.root / "cache", folder / "cache")
        return folder

    def start(self, scenario: Scenario, folder: Path) -> subprocess.Popen[str]:
        with (folder.parent / f"{folder.name}.log").open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "simprompt", *scenario.arguments],
                cwd=folder, env=self.environment(folder), stdout=log, stderr=log,
                encoding="utf-8", start_new_session=True,
            )  # fmt: skip

    def said(self, folder: Path) -> str:
        return (folder.parent / f"{folder.name}.log").read_text(encoding="utf-8")

    def torment(self, scenario: Scenario) -> Count:
        """Run one scenario until it was killed as often as it has to be."""
        began, count = time.perf_counter(), Count()
        rng = random.Random(f"{self.seed} {scenario.name}")
        short = scenario.name.replace(" ", "").replace(",", "-")
        serves = scenario.name == "serve"
        wanted, took = {}, 4.0
        if not serves:
            folder = self.folder(scenario, short)
            since = time.perf_counter()
            if self.start(scenario, folder).wait():
                raise SystemExit(f"{scenario.name} fails by itself: {self.said(folder)}")
            took = time.perf_counter() - since
            wanted = contents(folder)
            shutil.rmtree(folder)
        while sum(count.kills.values()) < scenario.kills:
            count.rounds += 1
            folder = self.folder(scenario, short)
            process, started = self.start(scenario, folder), time.time()
            while True:
                left = scenario.kills - sum(count.kills.values())
                if left:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(rng.uniform(0.2, 0.6 * took if took < 60 else took / 4))
                elif serves:
                    self.check_answers(folder, process, count)
                else:
                    process.wait()
                if process.poll() is not None:
                    break
                self.kill(process, rng, folder, started, count, wanted)
                if serves and not left:
                    break
                if process.poll() is not None:  # it bears the kill of a worker
                    process, started = self.start(scenario, folder), time.time()
            if serves:
                shutil.rmtree(folder)
                continue
            if process.returncode:
                count.faults.append(f"exit code {process.returncode}: {self.said(folder)[-600:]}")
            got = contents(folder)
            for name in sorted(wanted.keys() | got.keys()):
                if wanted.get(name) != got.get(name):
                    count.faults.append(f"{folder.name}/{name} is not that of an unbroken run")
            count.faults += [f"{folder.name}/{rest} is left over" for rest in leftovers(folder)]
            shutil.rmtree(folder)
        count.seconds = time.perf_counter() - began
        return count

    def kill(
        self, process: subprocess.Popen[str], rng: random.Random, folder: Path, started: float,
        count: Count, wanted: dict[str, str],
    ) -> None:  # fmt: skip
        """Kill a command in one of the ways, and look at what it leaves."""
        workers = [pid for pid in marked(folder.name) if is_worker(pid)]
        # a command bears that once for each run that is in work
        kind = rng.choice(KINDS if workers and process.pid not in self.bore else KINDS[:-1])
        now = time.time()
        if kind == "KILL of a worker":
            self.bore.add(process.pid)
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
            count.kills[kind] += 1
            return
        number = signal.Signals[f"SIG{kind.split()[0]}"]
        with suppress(ProcessLookupError):
            (os.killpg if "group" in kind else os.kill)(process.pid, number)
        if process.poll() is None or process.returncode not in (0, None):
            count.kills[kind] += 1
        since = time.perf_counter()
        try:
            process.wait(20 * LIMIT)
        except subprocess.TimeoutExpired:
            count.faults.append(f"{kind}: {folder.name} did not end")
            process.kill()
        ended = time.perf_counter() - since
        if number != signal.SIGKILL:
            count.ends.append(ended)
            if ended > LIMIT:
                count.faults.append(f"{kind}: {folder.name} ended after {ended:.2f} s")
            # before it looks at signals itself, and when all is done and it only has to end
            aside = now - started < STARTS or contents(folder) == wanted
            codes = {0, 128 + number} | ({-number} if aside else set())
            if process.returncode not in codes:
                count.faults.append(f"{kind}: exit code {process.returncode}: {self.said(folder)}")
            elif process.returncode == 128 + number and "To go on: simprompt" not in self.said(
                folder
            ):
                count.faults.append(f"{kind}: it said nothing: {self.said(folder)}")
        kept = [p.stat().st_mtime for p in (folder / "out" / "unfinished").glob("[!.]*")]
        if number == signal.SIGKILL and kept and max(kept) > started:
            count.lost.append(now - max(kept))
        while (alive := marked(folder.name)) and time.perf_counter() - since < LIMIT:
            time.sleep(0.02)
        if alive:
            count.faults.append(f"{kind}: {' and '.join(map(command_of, alive))} live on")
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def check_answers(self, folder: Path, process: subprocess.Popen[str], count: Count) -> None:
        """A page that was killed before answers as ever."""
        end = time.perf_counter() + 60
        while "http://" not in self.said(folder) and time.perf_counter() < end:
            time.sleep(0.1)
        try:
            address = self.said(folder).split("http://")[1].split("/")[0]
            with urllib.request.urlopen(f"http://{address}/info", timeout=30) as answer:
                assert len(json.load(answer)["prompts"]) == 2
        except Exception as error:
            count.faults.append(f"serve does not answer: {error}: {self.said(folder)}")


def marked(name: str) -> list[int]:
    """The processes whose environment says this name."""
    wanted = f"{MARK}={name}".encode()
    made = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                state = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
                if state != "Z":
                    made.append(int(place.name))
    return made


def command_of(pid: int) -> str:
    """What a process is, for a message."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return " ".join(word.decode(errors="replace") for word in words)[:80]
    return "one that is gone now"


def is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def contents(folder: Path) -> dict[str, str]:
    """What stands for each result of a command, times left out."""
    made = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("cache/readable/"):  # times of the images' change
            made[name] = "there"
        elif name.startswith("cache/features/"):
            made |= features(path)
        elif path.suffix == ".json":
            value = json.loads(path.read_text(encoding="utf-8"))
            made[name] = json.dumps(timeless(value), sort_keys=True)
        elif path.suffix == ".csv":
            made[name] = json.dumps(csv_rows(path))
        elif path.suffix in (".safetensors", ".txt") or name.startswith("hf/"):
            made[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:  # pages and plots, which show times
            made[name] = "there"
    return made


def features(path: Path) -> dict[str, str]:
    """The features in a shard by their items: which of them share a shard is no matter."""
    with safe_open(str(path), framework="pt") as file:
        items, rows = json.loads(file.metadata()["items"]), file.get_tensor("features")
    return {
        f"{path.parent.name}/{item}": hashlib.sha256(row.numpy().tobytes()).hexdigest()
        for item, row in zip(items, rows, strict=True)
    }


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {k: v for k, v in row.items() if not re.search("second|_mb|ms_", k)}
            for row in csv.DictReader(file)
        ]


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def leftovers(folder: Path) -> list[str]:
    """What no finished command leaves: locks, temporary files and folders, checkpoints."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.startswith(".") or path.name == "unfinished"
        or (path.parent.name == "tmp" and "torchinductor" not in path.name)  # torch's own
        or path.suffix in (".lock", ".tmp", ".incomplete")
    ]  # fmt: skip


def table(counts: dict[str, Count]) -> str:
    """Markdown: a row a scenario."""
    lines = [
        f"| command | {' | '.join(KINDS)} | rounds to the end | TERM, INT to the end, longest "
        "| lost by a KILL, most | faults |",
        "|---|" + "---:|" * (len(KINDS) + 4),
    ]
    total = Counter[str]()
    for name, count in counts.items():
        total.update(count.kills)
        ends = f"{max(count.ends):.2f} s" if count.ends else ""
        lost = f"{max(count.lost):.2f} s" if count.lost else ""
        cells = [*(str(count.kills[kind]) for kind in KINDS), str(count.rounds), ends, lost]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(count.faults)} |")
    shown = " | ".join(str(total[kind]) for kind in KINDS)
    faults = sum(len(count.faults) for count in counts.values())
    lines.append(f"| all {total.total()} | {shown} | | | | {faults} |")
    return "\n".join(lines)


def main() -> None:
    global _prompt
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="scenarios, comma-separated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    given = parser.parse_args()
    began = time.perf_counter()
    root = given.out.resolve()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    hub = Hub()
    hub.slow = 0.02
    save_open_clip(a_model(), root / "served")
    hub.repos["me/icons"] = {p.name: p for p in (root / "served").iterdir()}
    chaos = Chaos(root, hub, given.seed)
    warm = Scenario(
        "warm",
        ("run", "--dataset", ",".join(icons.tasks()), "--method", "zero-shot,coop", "--seeds", "1",
         "--sar", "off", "--set", "training.max_steps=1", "--out", "out"),
        0,
    )  # fmt: skip
    folder = chaos.folder(warm, "warm")
    if chaos.start(warm, folder).wait():
        raise SystemExit(chaos.said(folder))
    shutil.move(folder / "cache", root / "cache")
    _prompt = root / "prompt"
    _prompt.mkdir()
    for file in next((folder / "out").glob("icons-places/coop/*")).glob("prompt.*"):
        shutil.copy(file, _prompt / file.name)
    todo = scenarios(given.kills)
    if given.only:
        todo = [one for one in todo if one.name in given.only.split(",")]
    counts: dict[str, Count] = {one.name: Count() for one in todo}
    lock = threading.Lock()

    def torment(scenario: Scenario) -> None:
        count = chaos.torment(scenario)
        with lock:
            counts[scenario.name] = count
            print(f"{scenario.name}: {count.kills.total()} kills in {count.seconds:.0f} s, "
                  f"{len(count.faults)} faults", flush=True)  # fmt: skip
            for fault in count.faults[:MOST]:
                print(f"  {fault}", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(torment, todo))
    hub.close()
    minutes = (time.perf_counter() - began) / 60
    print(f"\n{table(counts)}\n\n{minutes:.1f} minutes, a checkpoint every {EVERY} s")
    write_json(root / "chaos.json", {name: vars(count) for name, count in counts.items()})
    if any(count.faults for count in counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
