"""All readers on inputs that are broken by chance: only SimpromptError may come out.

    python tests/fuzz.py --seconds 3600
    python tests/fuzz.py --inputs 200000

Each process goes round the readers (`readers.READERS`) and gives each the same time, some of them
two or three times as much (`Reader.share`). It ends after so many seconds or so many inputs.
Whatever else comes out than SimpromptError is a fault, and so is more than two seconds of
computing, a message that is empty or endless, a gigabyte of memory or 150 MB for one input, and the
end of the process.
A fault is made small and kept in `tests/corpus`, whose inputs `tests/test_fuzz.py` reads again with
every `make test`.

The Nth input of a reader follows from the seed, so that one that ended a process can be made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from PIL import Image

from damage import Files
from readers import READERS, Reader, below, by_name
from simprompt.errors import LONGEST, SimpromptError
from simprompt.utils.memory import peak_mb, reset_peak

CORPUS = Path(__file__).parent / "corpus"
SLOW = 2.0  # seconds of computing
HANGS = 10  # seconds of the clock
MOST_MB = 1000  # of the whole process, 850 of them the libraries'
MOST_MORE_MB = 150  # beyond what it had before the input
RENEWED = 900  # seconds to a process's end: libraries keep a little of each input
MOST_PIXELS = 2 << 20
"""Pillow refuses twice as many. Its own limit is forty times that: a photograph of 100 million
pixels takes seconds and a gigabyte, whoever reads it."""
MORE = 4 << 30  # bytes of address space beyond what a process begins with
MOST_SAID = LONGEST + 100  # characters of a message, with what says that some are left out
SLICE = 2.0  # seconds for a reader, each time
TRIES = 300  # to make a fault smaller


@dataclass
class Count:
    """Of a reader."""

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: float = 0.0
    faults: int = 0


class HangsError(BaseException):
    """The alarm went."""


def place(files: Files, folder: Path) -> None:
    """Write an input into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, contents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def verdict(reader: Reader, files: Files, folder: Path) -> tuple[str, str, float]:
    """(what is wrong, empty if nothing; where; seconds), of one input; "refused" is nothing wrong.

    What is wrong and where are the same for inputs with the same fault.
    """
    place(files, folder)
    reset_peak()
    before = peak_mb()
    began, wrong, where = time.process_time(), "", ""
    pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS
    try:
        reader.read(folder)
    except SimpromptError as error:
        wrong = "refused"
        if not 0 < len(str(error)) <= MOST_SAID:
            wrong, where = f"a message of {len(str(error))} characters", _where(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # Rust's panics are no Exception
        wrong, where = f"{type(error).__name__}: {str(error)[:200]}", _where(error)
    Image.MAX_IMAGE_PIXELS = pillows
    seconds = time.process_time() - began
    if seconds > SLOW and wrong in ("", "refused"):
        wrong, where = "slow", reader.name
    peak = peak_mb()
    if wrong in ("", "refused") and (peak > MOST_MB or peak - before > MOST_MORE_MB):
        wrong, where = "memory", reader.name
    return wrong, where, seconds


def _where(error: BaseException) -> str:
    """The innermost place in simprompt."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "simprompt" in Path(f.filename).parts] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""


def smaller(files: Files, fails: Callable[[Files], bool]) -> Files:
    """An input that fails in the same way and is no larger: files, then parts of them, left out."""
    tries = 0

    def still(one: Files) -> bool:
        nonlocal tries
        tries += 1
        return tries <= TRIES and fails(one)

    for name in sorted(files):
        rest = {n: c for n, c in files.items() if n != name}
        if rest and still(rest):
            files = rest
    for name in sorted(files, key=lambda n: -len(files[n])):
        step = max(1, len(files[name]) // 2)
        while step and tries <= TRIES:
            at = 0
            while at < len(files[name]) and tries <= TRIES:
                contents = files[name]
                shorter = files | {name: contents[:at] + contents[at + step :]}
                if still(shorter):
                    files = shorter
                else:
                    at += step
            step //= 2
    return files


def keep(reader: Reader, files: Files) -> Path:
    """Put an input into the corpus."""
    told = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:10]
    folder = CORPUS / reader.name.replace(" ", "-") / told
    place(files, folder)
    return folder


def input_of(reader: Reader, seeds: list[Files], seed: str, number: int) -> Files:
    rng = random.Random(f"{seed} {reader.name} {number}")
    return reader.input(seeds, rng)


# ---------------------------------------------------------------------------- a process


def enough(counts: dict[str, Count]) -> int:
    """Inputs of all readers together."""
    return sum(count.inputs for count in counts.values())


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * resource.getpagesize() + MORE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def work(given: argparse.Namespace) -> None:
    """Go round the readers until the time is over; the parent reads `state` and `counts`."""
    warnings.simplefilter("ignore")
    own = Path(given.own)
    readers = [r for r in READERS if not given.only or r.name in given.only]
    seeds = {r.name: _seeds(own.parent, r) for r in readers}
    readers = [r for r in readers if seeds[r.name]]
    for reader in readers:  # what is loaded once is no input's fault
        for files in seeds[reader.name]:
            verdict(reader, files, own / "input")
    counts = {r.name: Count(**given.counts.get(r.name, {})) for r in readers}
    seen: set[tuple[str, str, str]] = {tuple(one) for one in given.seen}  # type: ignore[misc]
    if sys.platform.startswith("linux"):
        _limit()

    def alarm(*_: object) -> None:
        raise HangsError(f"{HANGS} s")

    signal.signal(signal.SIGALRM, alarm)
    renewed = time.time() + RENEWED
    while time.time() < min(given.until, renewed) and enough(counts) < given.inputs:
        for reader in readers:
            count, until = counts[reader.name], time.time() + SLICE * reader.share
            while time.time() < min(until, given.until):
                files = input_of(reader, seeds[reader.name], given.seed, count.inputs)
                (own / "state").write_text(json.dumps([reader.name, count.inputs]), "utf-8")
                count.inputs += 1
                signal.alarm(HANGS)
                wrong, where, seconds = verdict(reader, files, own / "input")
                signal.alarm(0)
                count.slowest = max(count.slowest, seconds)
                count.largest = max(count.largest, peak_mb())
                count.refused += wrong == "refused"
                if wrong in ("", "refused"):
                    continue
                count.faults += 1
                kind = (reader.name, wrong.partition(":")[0], where)
                if kind in seen:
                    continue
                seen.add(kind)

                def same(one: Files, reader: Reader = reader, kind: tuple[str, ...] = kind) -> bool:
                    signal.alarm(HANGS)
                    with suppress(HangsError):  # while it writes the input
                        wrong, where, _ = verdict(reader, one, own / "smaller")
                        signal.alarm(0)
                        return (wrong.partition(":")[0], where) == kind[1:]
                    return False

                if kind[1] not in ("slow", "memory", "HangsError"):
                    files = smaller(files, same)
                kept = keep(reader, files)
                print(f"{reader.name}: {wrong} ({where}, {seconds:.2f} s): {kept.name}", flush=True)
            _tell(own, counts, seen)


def _seeds(root: Path, reader: Reader) -> list[Files]:
    places = sorted((root / "seeds" / reader.name).glob("*"))
    return [below(place) for place in places]


def _tell(own: Path, counts: dict[str, Count], seen: set[tuple[str, str, str]]) -> None:
    value = {"counts": {k: asdict(v) for k, v in counts.items()}, "seen": sorted(seen)}
    (own / "partial").write_text(json.dumps(value), encoding="utf-8")
    os.replace(own / "partial", own / "counts")


# ---------------------------------------------------------------------------- all of them


def supervise(
    seconds: float, jobs: int, seed: int, only: list[str], inputs: float = math.inf
) -> dict[str, Count]:
    """Run the processes, each started again when an input ends it.

    Args:
        inputs: stop after so many, at least, even if there is time.
    """
    each = inputs / jobs
    root = Path(tempfile.mkdtemp(prefix="simprompt-fuzz-"))
    chosen = [reader for reader in READERS if not only or reader.name in only]
    for reader in chosen:  # here: some take libraries that no reader needs, and memory
        for i, files in enumerate(reader.seeds()):
            place(files, root / "seeds" / reader.name / f"{i:03}")
    until = time.time() + seconds
    total: dict[str, Count] = {}
    running = {i: _started(root, i, until, seed, only, each) for i in range(jobs)}
    told = time.time()
    while running:
        time.sleep(0.5)
        for i, process in list(running.items()):
            if process.poll() is None:
                if time.time() > until + 4 * HANGS:
                    process.kill()
                continue
            del running[i]
            if time.time() < until and enough(_counts(root / str(i))) < each:
                if process.returncode:
                    _ended_by(root / str(i), f"{seed}-{i}", process.returncode)
                running[i] = _started(root, i, until, seed, only, each)
        if time.time() - told > 10 and running:
            told = time.time()
            done = sum(c.inputs for i in range(jobs) for c in _counts(root / str(i)).values())
            print(
                f"{done:,} inputs, {max(0, until - told):.0f} s left", file=sys.stderr, flush=True
            )
    for i in range(jobs):
        for name, count in _counts(root / str(i)).items():
            whole = total.setdefault(name, Count())
            whole.inputs += count.inputs
            whole.refused += count.refused
            whole.faults += count.faults
            whole.slowest = max(whole.slowest, count.slowest)
            whole.largest = max(whole.largest, count.largest)
    shutil.rmtree(root, ignore_errors=True)
    return total


def _read(own: Path) -> dict:
    with suppress(OSError, ValueError):
        return json.loads((own / "counts").read_text(encoding="utf-8"))
    return {"counts": {}, "seen": []}


def _counts(own: Path) -> dict[str, Count]:
    return {name: Count(**values) for name, values in _read(own)["counts"].items()}


def _started(
    root: Path, i: int, until: float, seed: int, only: list[str], inputs: float
) -> subprocess.Popen:
    own = root / str(i)
    (own / "tmp").mkdir(parents=True, exist_ok=True)
    kept = _read(own)
    given = {"own": str(own), "until": until, "seed": f"{seed}-{i}", "only": only,
             "inputs": inputs, **kept}  # fmt: skip
    environment = os.environ | {
        "SIMPROMPT_CACHE": str(own / "cache"), "HF_HOME": str(own / "hf"), "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(own / "tmp"),
    }  # fmt: skip
    for name in ("SIMPROMPT_LLM_BASE_URL", "OPENAI_API_KEY"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, __file__, "--work", json.dumps(given)], env=environment
    )


def _ended_by(own: Path, seed: str, code: int) -> None:
    """Keep the input that ended a process, and count it."""
    name, number = json.loads((own / "state").read_text(encoding="utf-8"))
    reader = by_name()[name]
    kept = keep(reader, input_of(reader, _seeds(own.parent, reader), seed, number))
    print(f"{name}: the process ended with {code}: {kept.name}", flush=True)
    value = _read(own)
    count = Count(**value["counts"].get(name, {}))
    count.inputs, count.faults = number + 1, count.faults + 1
    value["counts"][name] = asdict(count)
    (own / "counts").write_text(json.dumps(value), encoding="utf-8")


def table(counts: dict[str, Count]) -> str:
    """Markdown: a row a reader."""
    header = ("reader", "inputs", "refused", "slowest", "process", "faults")
    lines = [f"| {' | '.join(header)} |", "|---|---:|---:|---:|---:|---:|"]
    for name, c in counts.items():
        lines.append(
            f"| {name} | {c.inputs:,} | {100 * c.refused / max(1, c.inputs):.0f} % "
            f"| {c.slowest:.2f} s | {c.largest:.0f} MB | {c.faults} |"
        )
    everything = sum(c.inputs for c in counts.values())
    slowest = max((c.slowest for c in counts.values()), default=0.0)
    largest = max((c.largest for c in counts.values()), default=0.0)
    faults = sum(c.faults for c in counts.values())
    lines.append(f"| all | {everything:,} | | {slowest:.2f} s | {largest:.0f} MB | {faults} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, help="default: 600, or no limit with --inputs")
    parser.add_argument("--inputs", type=float, default=math.inf, help="of all readers together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="readers, comma-separated")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(argparse.Namespace(**json.loads(given.work)))
        return
    seconds = given.seconds or (600 if math.isinf(given.inputs) else 24 * 3600)
    only = given.only.split(",") if given.only else []
    counts = supervise(seconds, given.jobs, given.seed, only, given.inputs)
    print(f"\n{table(counts)}")
    if any(count.faults for count in counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
