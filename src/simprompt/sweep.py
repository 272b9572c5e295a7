"""Make many runs: here, on worker processes, or on a Ray cluster.

A run is known by the hash of its settings. One that is finished is never made again, whoever made
it; one that failed is recorded with its error and does not stop the others. Stopping a sweep at
any moment costs the runs that were being made and nothing else: the same command goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.remote import url_of
from simprompt.runs import (
    Result,
    failure,
    finished,
    forget_failure,
    record_failure,
    remove_remains,
)

TRIES = 2  # a run whose worker is killed is tried once more: the other one may have eaten memory
Outcome = tuple[RunConfig, "Result | str"]


@dataclass
class Sweep:
    """What became of the runs, by their keys: results, and reasons of failures."""

    results: dict[str, Result] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def make_runs(
    configs: Sequence[RunConfig],
    out: str | Path,
    workers: int = 1,
    quiet: bool = False,
    *,
    ray: str | None = None,
    retry_failed: bool = True,
    log: Sequence[str] = (),
) -> list[Result]:
    """Every run's result, in the order of `configs`; takes what `sweep` takes.

    Raises:
        SimpromptError: runs that failed, each with its reason; all others are kept.
    """
    found = sweep(
        configs, out, workers, quiet, ray=ray, retry_failed=retry_failed, log=log
    )  # fmt: skip
    if found.failed:
        raise SimpromptError(explain(configs, found, out))
    return [found.results[c.key] for c in configs]


def sweep(
    configs: Sequence[RunConfig],
    out: str | Path,
    workers: int = 1,
    quiet: bool = False,
    *,
    ray: str | None = None,
    retry_failed: bool = False,
    log: Sequence[str] = (),
) -> Sweep:
    """Make the runs that are not there yet; failures are kept, not raised.

    Args:
        out: a folder, or the URL of one, which all workers must see.
        workers: processes on this machine, each with a run's own number of threads; 0 takes as
            many as there are cores for them.
        ray: address of a Ray cluster to use instead (`auto`, `ray://host:port`, or `local`).
        retry_failed: make runs again that failed in an earlier sweep; otherwise their recorded
            errors stand.
        log: experiment trackers, `tensorboard` and `mlflow`; they see a run when it is finished.
    """
    remove_remains(out)
    found = Sweep()
    waiting: dict[str, RunConfig] = {}
    for config in configs:
        if config.key in waiting or config.key in found.results or config.key in found.failed:
            continue
        result = finished(out, config)
        if result is not None:
            found.results[config.key] = result
        elif not retry_failed and (record := failure(out, config)):
            found.failed[config.key] = record["error"]
        else:
            waiting[config.key] = config
    trackers = [import_module("simprompt.trackers").tracker(name, out) for name in log]
    if waiting:
        outcomes = _start(_in_order(waiting.values()), out, workers, ray)
        done = len(found.results) + len(found.failed)
        for config, outcome in _watched(outcomes, done + len(waiting), done, quiet):
            if isinstance(outcome, str):
                found.failed[config.key] = outcome
                continue
            found.results[config.key] = outcome
            for track in trackers:
                track(outcome)
    return found


def explain(configs: Sequence[RunConfig], found: Sweep, out: str | Path) -> str:
    """What failed and what to do about it, in one paragraph."""
    names = {c.key: f"{c.dataset} {c.label} seed {c.seed}" for c in configs}
    groups: dict[str, list[str]] = {}
    for key, why in found.failed.items():
        groups.setdefault(why, []).append(names[key])
    said = "; ".join(
        f"{runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}: {why}"
        for why, runs in groups.items()
    )
    return (
        f"{len(found.failed)} of {len(names)} runs failed ({said}). The others are kept in {out}; "
        f"{out}/failed says more. The same command makes only what is missing."
    )


def make_one(config: RunConfig, out: str | Path) -> Result | str:
    """One run's result, or why it failed; for workers, where exceptions do not travel well.

    A run that is there already is read: a worker may have been killed between writing its result
    and saying so.
    """
    try:
        result: Result | None = finished(out, config)
        if result is None:
            result = import_module("simprompt.protocols").run(config, out)
        forget_failure(out, config)
        return result
    except Exception as error:
        known = isinstance(error, SimpromptError)
        said = str(error) if known else f"{type(error).__name__}: {error}"
        record_failure(out, config, said, "" if known else traceback.format_exc())
        return said


def _in_order(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Neighbours are runs on different datasets, so that workers that start together do not
    compute the same image features."""
    return sorted(configs, key=lambda c: (c.method != "zero-shot", c.seed, c.sar is not None))


def _start(
    configs: Sequence[RunConfig], out: str | Path, workers: int, ray: str | None
) -> Iterator[Outcome]:
    if ray is not None:
        return _on_ray(configs, out, ray)
    workers = min(workers or cores() // max(c.threads for c in configs) or 1, len(configs))
    return _here(configs, out) if workers == 1 else _on_workers(configs, out, workers)


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _here(configs: Sequence[RunConfig], out: str | Path) -> Iterator[Outcome]:
    for config in configs:
        yield config, make_one(config, out)


# --- worker processes ---------------------------------------------------------------------------


class _Worker:
    """A process that makes the runs it is sent, one at a time."""

    def __init__(self, out: str | Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, out), daemon=True)
        self.process.start()
        theirs.close()  # so that reading fails, rather than waits, when the process is gone
        self.config: RunConfig | None = None

    def send(self, config: RunConfig) -> None:
        self.config = config
        with suppress(OSError):  # it died idle: reading finds out
            self.pipe.send(config)

    def stop(self) -> None:
        if self.config is not None:
            self.process.terminate()
        self.pipe.close()
        self.process.join(10)


def _serve(pipe: Connection, out: str | Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no half-written folder
    with suppress(EOFError, OSError):  # the parent is done, or gone
        while True:
            pipe.send(make_one(pipe.recv(), out))


def _on_workers(configs: Sequence[RunConfig], out: str | Path, n: int) -> Iterator[Outcome]:
    waiting, tries = deque(configs), Counter[str]()
    busy: dict[Any, _Worker] = {}
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < n:
                config = waiting.popleft()
                tries[config.key] += 1
                with _threads(config.threads):
                    worker = idle.pop() if idle else _Worker(out)
                worker.send(config)
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                assert worker.config is not None
                config, worker.config = worker.config, None
                try:
                    outcome = worker.pipe.recv()
                    idle.append(worker)
                except (EOFError, OSError):
                    worker.stop()
                    if tries[config.key] < TRIES:
                        waiting.append(config)
                        continue
                    outcome = (
                        f"its worker process was killed {TRIES} times (exit code "
                        f"{worker.process.exitcode}; -9 means out of memory, perhaps). Try fewer "
                        "--workers"
                    )
                    record_failure(out, config, outcome)
                yield config, outcome
    finally:
        for worker in (*busy.values(), *idle):
            worker.stop()


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """A process started in here has `n` threads in libraries that read the environment."""
    old = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n)
    try:
        yield
    finally:
        if old is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = old


# --- Ray ----------------------------------------------------------------------------------------


def _on_ray(configs: Sequence[RunConfig], out: str | Path, address: str) -> Iterator[Outcome]:
    """One Ray task a run; Ray places them, and starts those again whose worker or node died."""
    try:
        import ray
    except ImportError:
        raise SimpromptError(
            "--ray needs Ray: pip install 'simprompt[ray]', here and on every node."
        ) from None
    place = out if url_of(out) else str(Path(out).resolve())
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False)
        except Exception as error:  # Ray raises bare ones where a node does not start in time
            said = str(error).partition("\n")[0]
            raise SimpromptError(
                f"No Ray cluster answers at {address!r}: {said} "
                "docs/studies.md says how to start one and what may keep it from starting."
            ) from None
    try:
        task = ray.remote(max_retries=3)(make_one)
        waiting = {
            task.options(num_cpus=c.threads, name=f"{c.dataset} {c.label} {c.seed}").remote(
                c, place
            ): c
            for c in configs
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            config = waiting.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = f"Ray gave up on it: {str(error).splitlines()[0]}"
                record_failure(out, config, outcome, str(error))
            yield config, outcome
    finally:
        if ours:
            ray.shutdown()


# --- what the terminal shows --------------------------------------------------------------------


def _watched(outcomes: Iterator[Outcome], total: int, done: int, quiet: bool) -> Iterator[Outcome]:
    """Pass outcomes on behind a progress bar on stderr; nothing is drawn off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from outcomes
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("runs", total=total, completed=done, rate="")
        for config, result in outcomes:
            speed = bar.tasks[0].speed
            bar.update(
                task, advance=1, description=f"{config.dataset} {config.label}",
                rate=f"{60 * speed:.1f}/min" if speed else "",
            )  # fmt: skip
            yield config, result
