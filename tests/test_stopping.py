"""A signal ends a command in time, with one sentence, and takes its workers along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simprompt.utils import signals

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
    pytest.mark.integration,
]

BUSY = """
import sys
from simprompt.utils import signals
try:
    with signals.catch_signals(last_words=lambda number: print("left", number, flush=True)):
        print("ready", flush=True)
        {work}
except signals.Stopped as stopped:
    print("stopped", stopped.number, flush=True)
    sys.exit(signals.exit_code(stopped.number))
"""
WORK = {
    "Python": ("while True: pass", "stopped"),
    "a computation that does not come back to Python": (
        "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)",
        "left",
    ),
    "who catches every exception": (
        "while True:\n            try:\n                sum(range(100))\n"
        "            except BaseException:\n                raise ImportError('half loaded')",
        "stopped",
    ),
}


def start(work: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(work=work)], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", signals.SIGNALS)
@pytest.mark.parametrize("kind", WORK)
def test_it_ends_in_time_whatever_it_is_at(kind, number):
    work, word = WORK[kind]
    process = start(work)
    time.sleep(0.3)  # it is in the middle of its work
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert out.split() == [word, str(int(number))]
    assert process.returncode == signals.exit_code(number)


def interrupted() -> None:
    with signals.catch_signals(), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop_requested()
        signals.raise_if_stopped("two of three")


def test_what_waits_for_a_good_moment_is_raised_there():
    with pytest.raises(signals.Stopped) as stopped:
        interrupted()
    assert (stopped.value.number, stopped.value.kept) == (15, "two of three")
    assert not signals.stop_requested()


def test_handlers_are_as_before():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.catch_signals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(number, tmp_path: Path):
    command = [
        sys.executable, "-m", "simprompt", "run", "--dataset", "icons/places", "--seeds", "1",
        "--workers", "2", "--set", "training.max_steps=100000", "--out", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        # two workers, and what tracks their resources
        while len(workers := children(process.pid)) < 3 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        workers = children(process.pid)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert "Stopped by SIGTERM. Kept: 0 of 2 runs" in said
        assert "To go on: simprompt run --dataset icons/places" in said
    end = time.monotonic() + 60
    while alive := [pid for pid in workers if is_alive(pid)]:
        assert time.monotonic() < end, f"{alive} live on"
        time.sleep(0.05)
    assert workers


def children(pid: int) -> list[int]:
    place = Path(f"/proc/{pid}/task/{pid}/children")
    return (
        [int(child) for child in place.read_text(encoding="utf-8").split()]
        if place.exists()
        else []
    )


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_worker_that_is_loading_is_killed_with_its_parent():
    """However busy it is: no thread of Python's has to have its turn."""
    code = """
import multiprocessing, os, time
from simprompt.experiments.sweep.child import _killed_with_parent

def busy():
    with _killed_with_parent():
        print(os.getpid(), flush=True)
        sum(range(10**11))  # gives no other thread a turn

def parent():
    multiprocessing.get_context("fork").Process(target=busy).start()
    time.sleep(60)

if __name__ == "__main__":
    parent()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert is_alive(child)
        process.kill()
    end = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.01)
