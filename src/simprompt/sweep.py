"""Make many runs: here, on worker processes, or on a Ray cluster.

A run is known by what it depends on (see `identity`). One that is finished is never made again,
whoever made it; one that failed is recorded with its error and does not stop the others. Stopping a
sweep at any moment costs the runs that were being made and nothing else: the same command goes on.

Work is handed out in pieces. A piece is one run, or with `batch_runs="auto"` several that differ in
seed and SAR settings only; whoever makes it trains together what fits and gains by it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig
from simprompt.environ import variable
from simprompt.errors import SimpromptError
from simprompt.identity import Identity
from simprompt.progress import listening, tell, watched
from simprompt.remote import url_of
from simprompt.runs import (
    Result,
    check_out,
    failure,
    finished,
    forget_failure,
    make_current,
    record_failure,
    remove_remains,
)

TRIES = 2  # a run whose worker is killed is tried once more: the other one may have eaten memory
MOST = 12  # runs in a piece: beyond it even small ones hardly gain, and a kill costs more
BATCHING = ("off", "auto")
Outcome = tuple[RunConfig, "Result | str"]
Piece = tuple[RunConfig, ...]


@dataclass
class Sweep:
    """What became of the runs, by the handles of their settings: results, and why they failed."""

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
    batch_runs: str = "off",
) -> list[Result]:
    """Every run's result, in the order of `configs`; takes what `sweep` takes.

    Raises:
        SimpromptError: runs that failed, each with its reason; all others are kept.
    """
    found = sweep(
        configs, out, workers, quiet, ray=ray, retry_failed=retry_failed, log=log,
        batch_runs=batch_runs,
    )  # fmt: skip
    if found.failed:
        raise SimpromptError(explain(configs, found, out))
    return [found.results[c.handle] for c in configs]


def sweep(
    configs: Sequence[RunConfig],
    out: str | Path,
    workers: int = 1,
    quiet: bool = False,
    *,
    ray: str | None = None,
    retry_failed: bool = False,
    log: Sequence[str] = (),
    batch_runs: str = "off",
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
        batch_runs: "auto" trains runs of one task that differ in seed and SAR settings only as one
            text batch, where the method allows it and it pays; results equal those of "off" up to
            the order of floating-point sums. With "off" the same settings give the same bits.

    Raises:
        SimpromptError: an unknown `batch_runs`, tracker, or cluster.
    """
    check_batching(batch_runs)
    remove_remains(out)
    identities = _identities(configs)
    found = Sweep()  # by key, until all are there
    waiting: dict[str, RunConfig] = {}
    read: list[tuple[Identity, Result]] = []
    for run in identities.values():
        if run.key in waiting or run.key in found.results or run.key in found.failed:
            continue  # the same run, by other settings or names
        result = finished(out, run)
        if result is not None:
            found.results[run.key] = result
            read.append((run, result))
        elif not retry_failed and (record := failure(out, run)):
            found.failed[run.key] = record["error"]
        else:
            waiting[run.key] = run.config
    make_current(out, read)
    trackers = [import_module("simprompt.trackers").tracker(name, out) for name in log]
    if waiting:
        check_out(out)
        outcomes = _start(_in_order(waiting.values()), out, workers, ray, batch_runs == "auto")
        before = len(found.results) + len(found.failed)
        total = before + len(waiting)
        with watched(quiet) as board:
            board.show("runs", "runs", before, total)
            for done, (config, outcome) in enumerate(outcomes, start=before + 1):
                board.show("runs", f"{config.dataset} {config.label}", done, total)
                key = identities[config.handle].key
                if isinstance(outcome, str):
                    found.failed[key] = outcome
                    continue
                found.results[key] = outcome
                for track in trackers:
                    track(outcome)
    keys = {handle: run.key for handle, run in identities.items()}
    return Sweep(
        {handle: found.results[key] for handle, key in keys.items() if key in found.results},
        {handle: found.failed[key] for handle, key in keys.items() if key in found.failed},
    )


def _identities(configs: Iterable[RunConfig]) -> dict[str, Identity]:
    """What each run is, by its settings' handle, looked at now."""
    import_module("simprompt.protocols.common").look_again()
    identify = import_module("simprompt.protocols").identify
    return {config.handle: identify(config) for config in configs}


def check_batching(batch_runs: str) -> None:
    """Raise SimpromptError for a `batch_runs` that `sweep` does not know."""
    if batch_runs not in BATCHING:
        raise SimpromptError(f"--batch-runs takes {' or '.join(BATCHING)}; got {batch_runs!r}.")


def explain(configs: Sequence[RunConfig], found: Sweep, out: str | Path) -> str:
    """What failed and what to do about it, in one paragraph."""
    names = {c.handle: f"{c.dataset} {c.label} seed {c.seed}" for c in configs}
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


def make_piece(piece: Piece, out: str | Path) -> list[Result | str]:
    """The outcome of each run of a piece, in order; for workers, where exceptions do not travel
    well.

    Several runs are each prepared, then trained with their neighbours as far as `common.fit`
    allows, then each tested and written, so that a failure is the run's own.
    """
    if len(piece) == 1:
        return [make_one(piece[0], out)]
    protocols = import_module("simprompt.protocols")
    common = import_module("simprompt.protocols.common")
    outcomes: dict[str, Result | str] = {}
    batch: list[Any] = []
    for config in piece:
        found = _attempt(config, out, partial(protocols.prepare, config))
        if not isinstance(found, common.Making):  # it failed, or is there already
            outcomes[config.handle] = found
        elif not batch or common.fit([*batch, found]):
            batch.append(found)
        else:
            outcomes |= _make_batch(batch, out)
            batch = [found]
    if batch:
        outcomes |= _make_batch(batch, out)
    return [outcomes[config.handle] for config in piece]


def _make_batch(batch: Sequence[Any], out: str | Path) -> dict[str, Result | str]:
    """Train prepared runs together, test and write each by itself; outcomes by handle."""
    common = import_module("simprompt.protocols.common")
    try:
        common.train(batch)
    except Exception:  # whose fault it is shows when each is made by itself
        return {making.config.handle: make_one(making.config, out) for making in batch}
    return {
        making.config.handle: _attempt(making.config, out, partial(common.finish, making, out))
        for making in batch
    }


def make_one(config: RunConfig, out: str | Path) -> Result | str:
    """One run's result, or why it failed."""
    outcome: Result | str = _attempt(
        config, out, lambda: import_module("simprompt.protocols").run(config, out)
    )
    return outcome


def _attempt(config: RunConfig, out: str | Path, step: Callable[[], Any]) -> Any:
    """What a step of a run gives, or why the run failed, which is recorded.

    A run that is there already is read: a worker may have been killed between writing its result
    and saying so.
    """
    run = import_module("simprompt.protocols").identify(config)
    try:
        found = finished(out, run) or step()
        forget_failure(out, run)
        return found
    except Exception as error:
        known = isinstance(error, SimpromptError)
        said = str(error) if known else f"{type(error).__name__}: {error}"
        record_failure(out, run, said, "" if known else traceback.format_exc())
        return said


def _record(out: str | Path, config: RunConfig, said: str, trace: str = "") -> None:
    """Keep why a run failed whose process could not say so itself."""
    record_failure(out, import_module("simprompt.protocols").identify(config), said, trace)


def _in_order(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Neighbours are runs on different datasets, so that workers that start together do not
    compute the same image features."""
    return sorted(configs, key=lambda c: (c.method != "zero-shot", c.seed, c.sar is not None))


def _start(
    configs: Sequence[RunConfig], out: str | Path, workers: int, ray: str | None, together: bool
) -> Iterator[Outcome]:
    if ray is not None:
        return _on_ray(configs, out, ray, together)
    workers = min(workers or cores() // max(c.threads for c in configs) or 1, len(configs))
    pieces = _pieces(configs, workers, together)
    return _here(pieces, out) if workers == 1 else _on_workers(pieces, out, workers)


def _pieces(configs: Sequence[RunConfig], workers: int, together: bool) -> list[Piece]:
    """Runs that differ in seed and SAR settings only, in even pieces of at most `MOST`, and so few
    that no worker is without; all others are pieces by themselves."""
    if not together:
        return [(config,) for config in configs]
    most = max(1, min(MOST, len(configs) // workers))
    alike: dict[str, list[RunConfig]] = {}
    for config in configs:
        alike.setdefault(_task(config), []).append(config)
    pieces = []
    for runs in alike.values():
        n = -(-len(runs) // most)
        ends = [len(runs) * i // n for i in range(n + 1)]
        pieces += [tuple(runs[a:b]) for a, b in pairwise(ends)]
    return pieces


def _task(config: RunConfig) -> str:
    """The same for runs that may be trained together; a method that cannot is like no other."""
    from simprompt import batched, methods

    if config.method not in methods.names() or not batched.takes(methods.find(config.method)):
        return config.handle
    return config.model_dump_json(exclude={"seed", "sar"})


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _here(pieces: Sequence[Piece], out: str | Path) -> Iterator[Outcome]:
    for piece in pieces:
        yield from zip(piece, make_piece(piece, out), strict=True)


# --- worker processes ---------------------------------------------------------------------------


class _Worker:
    """A process that makes the pieces it is sent, one at a time."""

    def __init__(self, out: str | Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, out), daemon=True)
        self.process.start()
        theirs.close()  # so that reading fails, rather than waits, when the process is gone
        self.piece: Piece = ()

    def send(self, piece: Piece) -> None:
        self.piece = piece
        with suppress(OSError):  # it died idle: reading finds out
            self.pipe.send(piece)

    def stop(self) -> None:
        if self.piece:
            self.process.terminate()
        self.pipe.close()
        self.process.join(10)


def _serve(pipe: Connection, out: str | Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no half-written folder

    def pass_on(*told: Any) -> None:
        with suppress(OSError):  # the parent is gone: that is no fault of the run
            pipe.send(told)

    with suppress(EOFError, OSError), listening(pass_on):  # the parent is done, or gone
        while True:
            pipe.send(make_piece(pipe.recv(), out))


def _on_workers(pieces: Sequence[Piece], out: str | Path, n: int) -> Iterator[Outcome]:
    waiting, tries = deque(pieces), Counter[str]()
    busy: dict[Any, _Worker] = {}
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < n:
                piece = waiting.popleft()
                tries.update(config.handle for config in piece)
                # for libraries that read it when they are loaded
                with variable("OMP_NUM_THREADS", str(piece[0].threads)):
                    worker = idle.pop() if idle else _Worker(out)
                worker.send(piece)
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                outcomes: Any = None
                with suppress(EOFError, OSError):
                    outcomes = worker.pipe.recv()
                if isinstance(outcomes, tuple):  # how far it is
                    tell(*outcomes)
                    continue
                del busy[pipe]
                piece, worker.piece = worker.piece, ()
                if outcomes is not None:
                    idle.append(worker)
                else:
                    worker.stop()
                    again = [config for config in piece if tries[config.handle] < TRIES]
                    waiting.extend((config,) for config in again)  # it takes no other along twice
                    piece = tuple(config for config in piece if config not in again)
                    said = (
                        f"its worker process was killed {TRIES} times (exit code "
                        f"{worker.process.exitcode}; -9 means out of memory, perhaps). Try fewer "
                        "--workers"
                    )
                    for config in piece:
                        _record(out, config, said)
                    outcomes = [said] * len(piece)
                yield from zip(piece, outcomes, strict=True)
    finally:
        for worker in (*busy.values(), *idle):
            worker.stop()


# --- Ray ----------------------------------------------------------------------------------------


def _on_ray(
    configs: Sequence[RunConfig], out: str | Path, address: str, together: bool
) -> Iterator[Outcome]:
    """One Ray task a piece; Ray places them, and starts those again whose worker or node died."""
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
        most = max((n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]), default=0)
        if (asked := max(c.threads for c in configs)) > most:
            warnings.warn(
                f"A run asks for {asked} threads, and no node of the Ray cluster has more than "
                f"{most:g} cores: it waits for a larger one. --set threads=1 asks for less.",
                stacklevel=2,
            )
        task = ray.remote(max_retries=3)(make_piece)

        def submit(piece: Piece) -> Any:
            first, more = piece[0], f" and {len(piece) - 1} more" if len(piece) > 1 else ""
            name = f"{first.dataset} {first.label} {first.seed}{more}"
            return task.options(num_cpus=first.threads, name=name).remote(piece, place)

        cpus = ray.cluster_resources().get("CPU", 1) if together else 1
        at_once = max(1, int(cpus) // max(c.threads for c in configs))
        waiting = {submit(piece): piece for piece in _pieces(configs, at_once, together)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            piece = waiting.pop(done)
            try:
                outcomes = ray.get(done)
            except ray.exceptions.RayError as error:
                if len(piece) > 1:  # one of them may have taken the others along
                    waiting |= {submit((config,)): (config,) for config in piece}
                    continue
                said = f"Ray gave up on it: {str(error).splitlines()[0]}"
                _record(out, piece[0], said, str(error))
                outcomes = [said]
            yield from zip(piece, outcomes, strict=True)
    finally:
        if ours:
            ray.shutdown()
