"""Timing, printing and the models that all benchmarks share.

Ours and the reference take turns in one process, so that a busy neighbour slows both; what is
reported is the median of each, with its quartiles. Every benchmark is a script:

    python benchmarks/step.py --json
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.vision import VisionConfig
from simprompt.utils.files.atomic import write_json
from simprompt.utils.memory import peak_mb, reset_peak

Call = Callable[[], object]

# How many of the 2,200 novel class names in this package take 1, 2, ... tokens of OpenAI's BPE:
# all eleven lists (mean 2.8), and ImageNet's alone (mean 1.9).
NAME_TOKENS = (484, 901, 339, 156, 66, 23, 72, 93, 39, 11, 7, 5, 4)
IMAGENET_TOKENS = (71, 98, 24, 5, 1, 1)


@dataclass
class Timing:
    """Seconds of one case, as measured."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass
class Row:
    """One line of a benchmark: ours beside a reference.

    `reference_scale` says by how much a measured reference was multiplied, because the case
    itself was too large to run; 1 where it was run. `note` says in words what the reference is
    where it is not simply the same case.
    """

    case: str
    ours: Timing
    reference: Timing | None = None
    reference_scale: float = 1.0
    ours_peak_mb: float | None = None
    reference_peak_mb: float | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def reference_s(self) -> float | None:
        return None if self.reference is None else self.reference.median * self.reference_scale

    @property
    def speedup(self) -> float | None:
        return None if self.reference_s is None else self.reference_s / self.ours.median

    def as_dict(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "ours_s": self.ours.median,
            "reference_s": self.reference_s,
            "speedup": self.speedup,
            "ours_peak_mb": self.ours_peak_mb,
            "reference_peak_mb": self.reference_peak_mb,
            "ours_quartiles_s": self.ours.quartiles,
            "reference_quartiles_s": self.reference.quartiles if self.reference else None,
            "reference_scale": self.reference_scale,
            "note": self.note,
            "repeats": len(self.ours.seconds),
            **self.more,
        }


# ---- measuring


seconds_now = time.perf_counter  # `prepare` may put the processor's clock here
use_gpu = True  # and may refuse a GPU


def clock(call: Call) -> float:
    """Seconds that one call takes; a GPU is waited for."""
    wait()
    started = seconds_now()
    call()
    wait()
    return seconds_now() - started


def wait() -> None:
    """Until a GPU has done what it was asked for."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def interleave(calls: dict[str, Call], repeats: int, warmups: int = 1) -> dict[str, Timing]:
    """Every call once, then every call again, `repeats` times, after `warmups` that do not count.

    A call much quicker than the slowest is made up to five times in each round, so that its median
    rests on more than a few numbers.
    """
    found = {name: Timing() for name in calls}
    for _ in range(warmups):
        for call in calls.values():
            call()
    for _ in range(repeats):
        taken = {name: [clock(call)] for name, call in calls.items()}
        slowest = max(seconds for (seconds,) in taken.values())
        for name, call in calls.items():
            more = min(4, int(slowest / (2 * taken[name][0])))
            found[name].seconds += taken[name] + [clock(call) for _ in range(more)]
    return found


def compare(calls: dict[str, Call], repeats: int) -> tuple[dict[str, Timing], dict[str, float]]:
    """Times of all calls, in turn, and by how many MB each raises the peak of memory.

    The call that measures memory is the warm-up. With 0 repeats it is the one that is timed.
    """
    first = {name: Timing() for name in calls}
    peaks = {}
    for name, call in calls.items():

        def timed(call: Call = call, timing: Timing = first[name]) -> None:
            timing.seconds.append(clock(call))

        peaks[name] = peak_increase_mb(timed)
    return interleave(calls, repeats, warmups=0) if repeats else first, peaks


def peak_increase_mb(call: Call) -> float:
    """How far one call raises the peak of resident memory (of allocated memory on a GPU)."""
    if device().type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    gc.collect()
    give_back()
    reset_peak()
    before = peak_mb()
    call()
    return peak_mb() - before


def give_back() -> None:
    """Return freed memory to the system, so that the next peak starts from what is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def machine() -> dict[str, Any]:
    """What the figures were measured on, and by which clock."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "seconds": "processor time" if seconds_now is time.process_time else "wall time",
    }
    if hasattr(os, "getloadavg"):
        facts["load_average"] = os.getloadavg()[0]
    return facts


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# ---- a model of ViT-B/16's shape, and names of real lengths


class Names:
    """Stands in for a tokenizer: the name "n17" has as many tokens as the 17th draw says.

    Weights are random, so which tokens they are does not matter, but how many there are does.
    """

    sot, eot = 49406, 49407

    def __init__(self, counts: Sequence[int] = NAME_TOKENS, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.counts = counts
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a name, with one more for a full stop; words of a prefix, one id a word."""
        if " " in text or not text.startswith("n"):
            return [1000 + i for i, _ in enumerate(text.split())]
        name, stop = text.removesuffix("."), text.endswith(".")
        if name not in self.known:
            n = self.random.choices(range(1, len(self.counts) + 1), self.counts)[0]
            self.known[name] = [self.random.randrange(2000, 40000) for _ in range(n)]
        return [*self.known[name], *([269] if stop else [])]

    @staticmethod
    def make(n: int, first: int = 0) -> tuple[str, ...]:
        """The names n0, n1, ..."""
        return tuple(f"n{first + i}" for i in range(n))


TEXT_B16 = TextConfig(49408, 77, 512, 12, 8, 512, Names.sot, Names.eot)
VISION_B16 = VisionConfig(224, 16, 768, 12, 12, 512)
# the tower of the CLIP that ships with the package; `icons` cases take the real one where it is
TINY_TEXT = TextConfig(49408, 77, 64, 2, 4, 32, Names.sot, Names.eot)
TINY_VISION = VisionConfig(32, 16, 64, 2, 4, 32)


def random_clip(
    counts: Sequence[int] = NAME_TOKENS, tiny: bool = False, seed: int = 0, dtype: Any = None
) -> CLIP:
    """A CLIP of ViT-B/16's shape (or a tiny one, for tests) with random weights.

    The image tower has no weights: all benchmarks of the text step use cached image features.
    """
    config = CLIPConfig(TINY_TEXT, TINY_VISION) if tiny else CLIPConfig(TEXT_B16, VISION_B16)
    torch.manual_seed(seed)
    with torch.device("meta"):
        clip = CLIP(config, Names(counts), "random")  # type: ignore[arg-type]
    clip.text.to_empty(device=device())
    scale = torch.tensor(4.6052, device=device())
    clip.logit_scale = torch.nn.Parameter(scale, requires_grad=False)
    for name, parameter in clip.text.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif "ln_" in name:
            torch.nn.init.ones_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=config.text.width**-0.5 / 2)
    clip.to(dtype or torch.float32)
    return clip


def device() -> torch.device:
    """Where everything runs: a GPU if there is one, unless `prepare` was told otherwise."""
    return torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")


# ---- the command line of a benchmark


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of ours and reference")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="for a machine that others use: one thread, and its processor time for seconds",
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script out")
    parser.add_argument("--case", help="only cases whose name contains this")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="a GPU if there is one"
    )
    parser.add_argument("--out", type=Path, help="a folder that also gets the JSON document")
    return parser


def prepare(options: argparse.Namespace) -> None:
    """Threads, clock and device, as the options say; without a GPU everything runs on the CPU.

    Processor time of one thread is what a step would take on a machine to itself, but for the
    caches that others empty; with more threads it would count those that wait.
    """
    global seconds_now, use_gpu
    use_gpu = options.device != "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        print("No GPU is at hand: this runs on the CPU.", file=sys.stderr)
    seconds_now = time.process_time if options.busy else time.perf_counter
    torch.set_num_threads(1 if options.busy else options.threads or os.cpu_count() or 1)


def emit(rows: Iterable[Row], options: argparse.Namespace, title: str) -> None:
    """Rows as a table while they come, or all of them as one JSON document; see `--out`."""
    facts = machine()
    if not options.json:
        print(title)
        print(
            f"{facts['cpu']}, {facts['device']}, {facts['threads']} threads, {facts['seconds']}, ",
            end="",
        )
        print(f"torch {facts['torch']}, load {facts.get('load_average', 0):.1f}\n")
        print(f"{'case':38s} {'ours':>17s} {'reference':>19s} {'speed-up':>9s} {'peak MB':>13s}")
    found = []
    for row in rows:
        found.append(row.as_dict())
        if not options.json:
            print(_line(row), flush=True)
        if options.out:  # after every row, so that a run that is stopped leaves what it has
            document = {"rows": found, "machine": facts}
            write_json(options.out / f"{Path(sys.argv[0]).stem}.json", document)
    if options.json:
        print(json.dumps({"rows": found, "machine": facts}, indent=1))


def _line(row: Row) -> str:
    low, high = row.ours.quartiles
    ours = f"{_ms(row.ours.median)} ({_ms(low)}-{_ms(high)})"
    reference = speedup = ""
    if row.reference_s is not None:
        reference = _ms(row.reference_s) + ("" if row.reference_scale == 1 else " scaled")
        speedup = f"{row.speedup:.1f}x"
    peaks = " / ".join(
        f"{peak:.0f}" for peak in (row.ours_peak_mb, row.reference_peak_mb) if peak is not None
    )
    facts = [f"{key} {_short(value)}" for key, value in row.more.items()]
    more = "  ".join([*facts, row.note])
    return (
        f"{row.case:38s} {ours:>17s} {reference:>19s} {speedup:>9s} {peaks:>13s}  {more}".rstrip()
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
