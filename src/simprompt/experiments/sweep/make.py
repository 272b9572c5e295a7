"""Make many runs: here, on worker processes, or on a Ray cluster.

A run is known by what it depends on (see `identity`). One that is finished is never made again,
whoever made it; one that failed is recorded with its error and does not stop the others. Stopping a
sweep at any moment costs the runs that were being made and nothing else: the same command goes on.

Work is handed out in pieces. A piece is one run, or with `train_together` several that differ in
seed and SAR settings only; whoever makes it trains together what fits and gains by it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Container, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.experiments.failures import failure
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import (
    check_out,
    discard,
    finished,
    forget_trainings,
    make_current,
    remove_remains,
)
from simprompt.experiments.sweep.pieces import Outcome, cores, here, pieces_of
from simprompt.experiments.sweep.ray import on_ray
from simprompt.experiments.sweep.trackers import tracker
from simprompt.experiments.sweep.workers import on_workers
from simprompt.utils.options import Execution
from simprompt.utils.progress import progress_shown
from simprompt.utils.signals import Stopped


@dataclass
class Sweep:
    """What became of the runs, by the handles of their settings: results, and why they failed."""

    results: dict[str, RunResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def make_runs(
    configs: Sequence[RunConfig],
    out: str | Path,
    execution: Execution | None = None,
    quiet: bool = False,
    *,
    retry_failed: bool = True,
) -> list[RunResult]:
    """Every run's result, in the order of `configs`; takes what `sweep` takes.

    Raises:
        SimpromptError: runs that failed, each with its reason; all others are kept.
    """
    outcome = sweep(configs, out, execution, quiet, retry_failed=retry_failed)
    if outcome.failed:
        raise SimpromptError(explain(configs, outcome, out))
    return [outcome.results[c.handle] for c in configs]


def sweep(
    configs: Sequence[RunConfig],
    out: str | Path,
    execution: Execution | None = None,
    quiet: bool = False,
    *,
    retry_failed: bool = False,
) -> Sweep:
    """Make the runs that are not there yet; failures are kept, not raised.

    Args:
        out: a folder, or the URL of one, which all workers must see.
        execution: where and how many at once; None makes them here, one after the other.
            `workers` are processes on this machine, each with a run's own number of threads; 0
            takes as many as there are cores for them, or one where runs are made on a GPU. `ray` is
            used instead of them. The experiment trackers see a run when it is finished.
            `train_together` trains runs of one task that differ in seed and SAR settings only as
            one text batch, where the method allows it and it pays; results equal those of runs made
            alone up to the order of floating-point sums. Without it the same settings give the same
            bits: a finished run that was trained with others is made again alone.
        retry_failed: make runs again that failed in an earlier sweep; otherwise their recorded
            errors stand.

    Raises:
        SimpromptError: an unknown tracker or cluster.
    """
    execution = execution or Execution()
    if not os.path.exists(out):  # it holds no results that could be read without writing
        check_out(out)
    remove_remains(out)
    run_keys = _run_keys(configs)
    inventory = _inventory(run_keys.values(), out, execution.train_together, retry_failed)
    make_current(out, inventory.finished)
    forget_trainings(out, [run for run, _ in inventory.finished])
    trackers = [tracker(name, out) for name in execution.tracker or ()]
    by_key, waiting = inventory.outcomes, inventory.waiting
    if waiting:
        check_out(out)
        _discard_joint(inventory.joint, out)
        before = len(by_key.results) + len(by_key.failed)
        count, total = before, before + len(waiting)
        handles = {config.handle for config in waiting.values()}
        outcomes = _start(_in_order(inventory.configs.values()), handles, out, execution)
        try:
            # closing: however this loop is left, workers and actors end with their generator
            with progress_shown(quiet) as board, closing(outcomes):
                board.show("runs", "runs", before, total)
                for config, outcome in outcomes:
                    key = run_keys[config.handle].key
                    if key not in waiting:  # it was only trained with others
                        continue
                    count += 1
                    board.show("runs", f"{config.dataset} {config.label}", count, total)
                    if isinstance(outcome, str):
                        by_key.failed[key] = outcome
                        continue
                    by_key.results[key] = outcome
                    for track in trackers:
                        track(outcome)
        except Stopped as stopped:
            stopped.kept = f"{count} of {total} runs and the trainings under way in {out}"
            raise
    keys = {handle: run.key for handle, run in run_keys.items()}
    return Sweep(
        {handle: by_key.results[key] for handle, key in keys.items() if key in by_key.results},
        {handle: by_key.failed[key] for handle, key in keys.items() if key in by_key.failed},
    )


@dataclass
class _Inventory:
    """What is there of a sweep's runs, all by their keys: several settings may mean one run.

    Attributes:
        outcomes: results that are there, and failures that stand.
        configs: all runs of the sweep.
        waiting: those that are to be made.
        finished: those that are there, with their results.
        joint: of the waiting, those that are there and were trained with others.
    """

    outcomes: Sweep = field(default_factory=Sweep)
    configs: dict[str, RunConfig] = field(default_factory=dict)
    waiting: dict[str, RunConfig] = field(default_factory=dict)
    finished: list[tuple[RunKey, RunResult]] = field(default_factory=list)
    joint: list[RunKey] = field(default_factory=list)


def _inventory(
    runs: Iterable[RunKey], out: str | Path, together: bool, retry_failed: bool
) -> _Inventory:
    """What `out` holds of these runs.

    Args:
        together: whether results of runs that were trained with others count.
    """
    inventory = _Inventory()
    for run in runs:
        if run.key in inventory.configs:
            continue  # the same run, by other settings or names
        inventory.configs[run.key] = run.config
        result = finished(out, run)
        if result is not None and result.get("together") and not together:
            inventory.joint.append(run)  # its bits depend on the others
            inventory.waiting[run.key] = run.config
        elif result is not None:
            inventory.outcomes.results[run.key] = result
            inventory.finished.append((run, result))
        elif not retry_failed and (record := failure(out, run)):
            inventory.outcomes.failed[run.key] = record["error"]
        else:
            inventory.waiting[run.key] = run.config
    return inventory


def _discard_joint(runs: Sequence[RunKey], out: str | Path) -> None:
    """Remove results of runs that were trained with others, and say so."""
    if runs:
        warnings.warn(
            f"{len(runs)} finished runs were trained in one batch with others, which changes the "
            "last bits of sums: they are made again, each alone. `--train-together` takes them as "
            "they are.",
            stacklevel=3,
        )
    for run in runs:
        discard(out, run)


def _run_keys(configs: Iterable[RunConfig]) -> dict[str, RunKey]:
    """What each run is, by its settings' handle, looked at now."""
    from simprompt.experiments.runner import identify, look_again  # needs torch

    look_again()
    return {config.handle: identify(config) for config in configs}


def explain(configs: Sequence[RunConfig], outcome: Sweep, out: str | Path) -> str:
    """What failed and what to do about it, in one paragraph."""
    names = {c.handle: f"{c.dataset} {c.label} seed {c.seed}" for c in configs}
    groups: dict[str, list[str]] = {}
    for key, why in outcome.failed.items():
        groups.setdefault(why, []).append(names[key])
    reasons = "; ".join(
        f"{runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}: {why}"
        for why, runs in groups.items()
    )
    return (
        f"{len(outcome.failed)} of {len(names)} runs failed ({reasons}). The others are kept in "
        f"{out}; {out}/failed says more. The same command makes only what is missing."
    )


def _in_order(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Neighbours are runs on different datasets, so that workers that start together do not
    compute the same image features."""
    return sorted(configs, key=lambda c: (c.method != "zero-shot", c.seed, c.sar is not None))


def _start(
    configs: Sequence[RunConfig],
    waiting: Container[str],
    out: str | Path,
    execution: Execution,
) -> Generator[Outcome, None, None]:
    """Make the runs whose handles are `waiting`; `configs` are all of the sweep."""
    together = execution.train_together
    if execution.ray is not None:
        return on_ray(configs, waiting, out, execution.ray, together)
    gpus = sorted({c.device for c in configs} - {"cpu"})
    limit = 1 if gpus else cores() // max(c.threads for c in configs) or 1
    workers = min(execution.workers or limit, len(configs))
    if gpus and workers > 1:
        warnings.warn(
            f"{workers} workers share {' and '.join(gpus)}, each with its own copy of the model. "
            "That is quicker for small models only; if the GPU's memory is short, take fewer "
            "--workers.",
            stacklevel=2,
        )
    pieces = pieces_of(configs, waiting, workers, together)
    return here(pieces, out) if workers == 1 else on_workers(pieces, out, workers)
