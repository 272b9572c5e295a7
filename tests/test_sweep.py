"""Sweeps: nothing is made twice, a failure stops nothing, a killed worker loses nothing.

Most tests put a stand-in for the protocol, so that only the sweep itself is exercised; those with
worker processes make real runs of a few steps.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from simprompt.config import SAR, RunConfig, Training
from simprompt.errors import SimpromptError
from simprompt.experiments import runner
from simprompt.experiments.failures import failure
from simprompt.experiments.runner import identify
from simprompt.experiments.store import finished, read_runs, write_run
from simprompt.experiments.sweep import make as sweep
from simprompt.experiments.sweep import workers as processes
from simprompt.experiments.sweep.make import explain, make_runs
from simprompt.utils.files import remote
from simprompt.utils.files.remote import url_of
from simprompt.utils.options import Execution
from simprompt.utils.progress import listening

pytestmark = pytest.mark.integration

GRID = [RunConfig(dataset=d, seed=s) for d in ("a", "b") for s in (1, 2, 3)]
QUICK = Training(max_steps=3, lr=0.01, shots=2)


def stand_in(config: RunConfig, out) -> dict:
    """The result of a run that took no time."""
    row = {"dataset": config.dataset, "method": config.label, "seed": config.seed}
    row |= {"base": 1.0, "new": 1.0, "h": 1.0, "handle": config.handle}
    row |= {"protocol": config.protocol, "parameters": 1, "steps": 1, "seconds": 1.0}
    row |= {"train_seconds": 1.0, "peak_mb": None, "curves": {}, "classes": {}, "environment": {}}
    row |= {"config": config.model_dump(mode="json")}
    return write_run(out, identify(config), lambda folder: row)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Handles of the runs that a stand-in for the protocol made, in their order."""
    handles: list[str] = []

    def run(config: RunConfig, out):
        handles.append(config.handle)
        if config.dataset == "broken":
            raise SimpromptError("the images are not there")
        if config.dataset == "bug":
            raise ZeroDivisionError("by zero")
        return stand_in(config, out)

    monkeypatch.setattr(runner, "run", run)
    return handles


def test_each_run_is_made_once_and_results_keep_their_order(made, tmp_path):
    twice = [*GRID, *GRID[::-1]]
    results = make_runs(twice, tmp_path)
    assert [r["handle"] for r in results] == [c.handle for c in twice]
    assert sorted(made) == sorted(c.handle for c in GRID)
    make_runs(GRID, tmp_path)
    assert len(made) == len(GRID)


def test_a_failure_is_recorded_and_stops_nothing(made, tmp_path):
    bad = [RunConfig(dataset="broken"), RunConfig(dataset="bug")]
    found = sweep.sweep([bad[0], *GRID, bad[1]], tmp_path)
    assert len(found.results) == len(GRID)
    assert found.failed == {
        bad[0].handle: "the images are not there",
        bad[1].handle: "ZeroDivisionError: by zero",
    }
    record = failure(tmp_path, identify(bad[1]))
    assert "Traceback" in record["traceback"]
    assert RunConfig(**record["config"]) == bad[1]
    assert len(read_runs([tmp_path])) == len(GRID), "records of failures are no results"
    said = explain([*bad, *GRID], found, tmp_path)
    assert "2 of 8 runs failed" in said
    assert "broken coop seed 1: the images are not there" in said
    with pytest.raises(SimpromptError, match="2 of 8 runs failed"):
        make_runs([*bad, *GRID], tmp_path)


def test_failed_runs_wait_for_retry_failed(made, tmp_path, monkeypatch):
    bad = RunConfig(dataset="broken")
    sweep.sweep([bad], tmp_path)
    assert sweep.sweep([bad], tmp_path).failed == {bad.handle: "the images are not there"}
    assert made == [bad.handle], "its recorded error stands"
    monkeypatch.setattr(runner, "run", stand_in)
    assert list(sweep.sweep([bad], tmp_path, retry_failed=True).results) == [bad.handle]
    assert failure(tmp_path, identify(bad)) is None


def test_ctrl_c_is_no_failure(tmp_path, monkeypatch):
    def interrupted(config, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(GRID, tmp_path)
    assert failure(tmp_path, identify(GRID[0])) is None


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_results_directory_may_be_a_url(made, tmp_path, scheme):
    out = f"memory:/{tmp_path}" if scheme == "memory" else f"file://{tmp_path}"
    bad = RunConfig(dataset="broken")
    for _ in range(2):
        found = sweep.sweep([*GRID, bad], out)
        assert len(found.results) == len(GRID)
        assert bad.handle in found.failed
    assert len(made) == len(GRID) + 1
    results = read_runs([Path(out)])  # a Path, as the command line makes of it
    assert [(r["dataset"], r["seed"]) for r in results] == [(c.dataset, c.seed) for c in GRID]
    assert all(r["folder"].startswith(f"{scheme}://") for r in results)
    assert finished(out, identify(GRID[0]))["handle"] == GRID[0].handle
    sweep.sweep([bad], out, retry_failed=True)
    assert made[-1] == bad.handle
    with pytest.raises(SimpromptError, match="There is no directory"):
        read_runs([f"{out}/nowhere"])


def test_a_reader_of_a_url_of_files_keeps_the_old_contents(tmp_path):
    """A file is replaced, not written over, as object stores do: nobody reads a half."""
    url, kept = f"file://{tmp_path}/a.json", tmp_path / "kept"
    remote.write(url, b"old")
    os.link(tmp_path / "a.json", kept)
    remote.write(url, b"new")
    assert (kept.read_bytes(), remote.read(url)) == (b"old", b"new")


def test_what_is_removed_while_a_url_is_read_is_left_out(tmp_path, monkeypatch):
    url = f"memory://{tmp_path}"
    remote.write(f"{url}/a/result.json", b"1")
    fs, root = remote.filesystem(url)
    there = fs.find(root)
    monkeypatch.setattr(fs, "find", lambda _: [*there, f"{root}/b/result.json"])
    assert remote.read_all(url, "result.json") == {f"{url}/a": b"1"}
    remote.remove(f"{url}/b/result.json")  # no error where another process was first


def test_what_is_a_url():
    assert url_of("s3://bucket/runs/") == url_of(Path("s3://bucket/runs")) == "s3://bucket/runs"
    assert url_of(Path("file:///a/b")) == "file:///a/b"
    assert [url_of(p) for p in ("runs", "/a/b", "C:/runs", "a:b")] == [None] * 4


def test_trackers_see_every_new_run_once(made, tmp_path, monkeypatch):

    seen: list[str] = []
    monkeypatch.setattr(sweep, "tracker", lambda name, out: lambda r: seen.append(r["handle"]))
    for _ in range(2):
        sweep.sweep(GRID, tmp_path, Execution(tracker=["tensorboard"]))
    assert sorted(seen) == sorted(c.handle for c in GRID)


def test_an_unknown_tracker_and_a_missing_package_are_clear_errors(tmp_path, monkeypatch):
    with pytest.raises(SimpromptError, match="tensorboard or mlflow"):
        sweep.sweep(GRID, tmp_path, Execution(tracker=["wandb"]))
    for name in ("mlflow", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("mlflow", "tensorboard"):
        with pytest.raises(SimpromptError, match=rf"pip install '{name}"):
            sweep.sweep(GRID, tmp_path, Execution(tracker=[name]))


def test_ray_that_is_not_installed_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SimpromptError, match="pip install 'ray"):
        sweep.sweep(GRID, tmp_path, Execution(ray="auto"))


def test_ray_that_does_not_start_is_a_clear_error(tmp_path, monkeypatch):
    def init(**_):
        raise Exception("The current node timed out.\nA second line.")

    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init)
    )
    with pytest.raises(SimpromptError, match=r"at 'local': The current node timed out\."):
        sweep.sweep(GRID, tmp_path, Execution(ray="local"))


# --- with processes -----------------------------------------------------------------------------


def real(seeds: int, sar: bool = True) -> list[RunConfig]:
    return [
        RunConfig(
            dataset="icons/places", method="coop", seed=seed, training=QUICK,
            max_test_per_class=1,
            sar=SAR(weight=0.1 * part, classes_per_step=16, novel_count=20) if part else None,
        )
        for seed in range(1, seeds + 1)
        for part in range(1 + sar)
    ]  # fmt: skip


def bits(result: dict) -> str:
    """A result without what a clock or the memory says."""
    clock = ("seconds", "train_seconds", "peak_mb", "when", "files")
    kept = {k: v for k, v in result.items() if k not in clock}
    kept["curves"] = {k: v for k, v in kept["curves"].items() if k != "seconds"}
    return json.dumps(kept, sort_keys=True)


def children() -> list[int]:
    """Process ids of this process's worker processes."""
    import multiprocessing

    return [p.pid for p in multiprocessing.active_children() if p.pid]


def test_workers_give_the_serial_bits_and_survive_a_kill(tmp_path, monkeypatch):
    configs = [*real(2), RunConfig(dataset="icons/places", method="no-such-method")]
    serial = sweep.sweep(configs, tmp_path / "serial")
    sent: list[processes.Worker] = []
    killed: list[processes.Worker] = []

    class Watched(processes.Worker):
        def send(self, piece) -> None:
            """The third piece goes out when one of the first two is made: the other worker, in the
            middle of its own, is killed."""
            super().send(piece)
            sent.append(self)
            if len(sent) == 3:
                killed.append(next(worker for worker in sent if worker is not self))
                os.kill(killed[0].process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes, "Worker", Watched)
    found = sweep.sweep(configs, tmp_path / "workers", Execution(workers=2))
    assert [worker.process.exitcode for worker in killed] == [-signal.SIGKILL]
    assert found.failed == serial.failed
    assert len(found.failed) == 1
    assert {k: bits(r) for k, r in found.results.items()} == {
        k: bits(r) for k, r in serial.results.items()
    }
    assert not children(), "no process is left behind"


def test_a_run_that_kills_its_worker_is_given_up_after_two_tries(tmp_path, monkeypatch):
    found = sweep.Sweep()
    configs = real(1)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))  # the features are made
    told: list[tuple[str, int, int]] = []

    class Watched(processes.Worker):
        def send(self, piece) -> None:
            super().send(piece)
            if piece[0].sar:
                os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes, "Worker", Watched)
    with listening(lambda *said: told.append(said)):
        for config, outcome in processes.on_workers([(c,) for c in configs], tmp_path, 2):
            (found.failed if isinstance(outcome, str) else found.results)[config.handle] = outcome
    assert {what for what, _, _ in told} == {
        "image features of icons/places", "epochs of icons/places coop, seed 1"
    }  # fmt: skip
    assert any(0 < done == total for _, done, total in told), "a worker says how far it is"
    assert list(found.results) == [configs[0].handle]
    assert "killed 2 times" in found.failed[configs[1].handle]
    assert failure(tmp_path, identify(configs[1]))


# --- on a Ray cluster ---------------------------------------------------------------------------

RAY_TRIES = 8


def free_ports(n: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def ray_node(log: Path, *options: str) -> Iterator[subprocess.Popen]:
    """`ray start` with one core; the node's processes are in this one's session.

    A node gives itself up where a helper of its own takes longer than 15 s to start, which is
    built into Ray and happens where other work has the cores: it is started again.
    """
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
        "--object-store-memory=80000000", "--include-log-monitor=false", *options,
    ]  # fmt: skip
    node = None
    try:
        for _ in range(RAY_TRIES):
            with log.open("w", encoding="utf-8") as to:
                node = subprocess.Popen(command, stdout=to, stderr=to, start_new_session=True)
            while (
                "Ray runtime started" not in log.read_text(encoding="utf-8") and node.poll() is None
            ):
                time.sleep(0.2)
            if node.poll() is None:
                break
            kill_group(node)
        else:
            raise AssertionError(log.read_text(encoding="utf-8"))
        yield node
    finally:
        if node:
            kill_group(node)


def kill_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a group, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a group of processes")
def test_a_ray_cluster_that_loses_a_node(tmp_path, monkeypatch):
    """24 runs on two nodes of one core each, one of which is killed in the middle."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # for every process, and before Ray is imported
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "60")  # for a node to join; else 30
    pytest.importorskip("ray")
    configs = real(12)
    serial = sweep.sweep(configs, tmp_path / "serial")
    out = tmp_path / "ray"
    kept: dict[Path, tuple[int, int]] = {}

    def stamps() -> dict[Path, tuple[int, int]]:
        found = {p: p.stat() for p in out.glob("*/*/seed*/result.json")}
        return {p: (s.st_ino, s.st_mtime_ns) for p, s in found.items()}

    def kill(node: subprocess.Popen) -> None:
        """Kill the node and its worker process while that makes a run, after 6 or more."""
        while len(stamps()) < len(configs) // 4:
            time.sleep(0.02)
        while True:
            for folder in out.glob("*/*/.seed*@*"):
                pid = int(folder.name.split("@")[0].rpartition("-")[2])
                with suppress(ProcessLookupError):
                    if os.getsid(pid) == node.pid:
                        os.kill(pid, signal.SIGSTOP)
                        if folder.exists():
                            os.kill(pid, signal.SIGKILL)
                            kill_group(node)
                            kept.update(stamps())
                            return
                        os.kill(pid, signal.SIGCONT)
            time.sleep(0.02)

    with ExitStack() as cluster:
        # not below tmp_path: names of sockets may have some 100 characters only
        here = cluster.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        port, client = free_ports(2)
        head = (
            "--head", f"--port={port}", f"--ray-client-server-port={client}",
            "--include-dashboard=false", "--no-monitor", f"--temp-dir={here}",
        )  # fmt: skip
        cluster.enter_context(ray_node(tmp_path / "head.log", *head))
        address = re.search(
            r"--address='(.+?)'", (tmp_path / "head.log").read_text(encoding="utf-8")
        )
        assert address
        join = f"--address={address[1]}"
        node = cluster.enter_context(ray_node(tmp_path / "node.log", join))
        killer = threading.Thread(target=kill, args=(node,), daemon=True)
        killer.start()
        found = sweep.sweep(configs, out, Execution(ray=address[1]))
    assert not killer.is_alive()
    assert len(configs) // 4 <= len(kept) < len(configs)
    assert not found.failed
    assert len(list(out.rglob(".seed*"))) == 1, "of the run that the node was making"
    after = stamps()
    assert kept.items() <= after.items(), "made twice"
    assert len(after) == len(configs)
    assert {k: bits(r) for k, r in found.results.items()} == {
        k: bits(r) for k, r in serial.results.items()
    }
    assert sweep.sweep(configs, out).results.keys() == found.results.keys()
    assert stamps() == after
    assert not list(out.rglob(".seed*"))
