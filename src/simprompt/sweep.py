"""Make many runs, here or on several worker processes; what is finished is never made again."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.runs import Result, finished


def make_runs(
    configs: Sequence[RunConfig], out: Path, workers: int = 1, quiet: bool = False
) -> list[Result]:
    """Every run's result, in the order of `configs`; finished ones are read back.

    Neighbours in the work order are runs on different datasets, so that workers that start
    together do not compute the same image features.

    Raises:
        SimpromptError: runs that failed, each with its reason; all others are kept.
    """
    results = {c.key: r for c in configs if (r := finished(out, c)) is not None}
    waiting = list({c.key: c for c in configs if c.key not in results}.values())
    waiting.sort(key=lambda c: (c.method != "zero-shot", c.seed, c.sar is not None))
    failed: dict[str, str] = {}
    if waiting:
        done = _here(waiting, out) if workers == 1 else _pool(waiting, out, workers)
        for config, result in _watched(done, len(configs), len(results), quiet):
            if isinstance(result, str):
                failed[f"{config.dataset} {config.label} seed {config.seed}"] = result
            else:
                results[config.key] = result
    if failed:
        said = "; ".join(f"{run}: {why}" for run, why in failed.items())
        raise SimpromptError(
            f"{len(failed)} of {len(configs)} runs failed ({said}). The others are kept in {out}; "
            "the same command makes only what is missing."
        )
    return [results[c.key] for c in configs]


Outcome = tuple[RunConfig, "Result | str"]


def make_one(config: RunConfig, out: Path) -> Result | str:
    """One run's result, or why it failed (also in a worker process, where errors do not travel)."""
    try:
        return import_module("simprompt.protocols.base_to_new").run(config, out)
    except SimpromptError as error:
        return str(error)


def _here(configs: Sequence[RunConfig], out: Path) -> Iterator[Outcome]:
    for config in configs:
        yield config, make_one(config, out)


def _pool(configs: Sequence[RunConfig], out: Path, workers: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures: dict[Future[Result | str], RunConfig] = {
            pool.submit(make_one, config, out): config for config in configs
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise SimpromptError(
                "A worker process was killed (out of memory, perhaps). Finished runs are kept in "
                f"{out}; run the same command again, with fewer --workers if memory was short."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
