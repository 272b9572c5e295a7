"""Pieces of a sweep: one run, or several that are trained together as far as they fit.

What a piece becomes is the same wherever it is made: a result, or a reason, for each of its runs.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Container, Generator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.experiments.failures import forget_failure, record_failure
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.store import checkpoint_place, finished
from simprompt.utils import memory
from simprompt.utils.checkpoint import keys_in

MOST = 12  # runs in a piece: beyond it even small ones hardly gain, and a kill costs more
Outcome = tuple[RunConfig, "RunResult | str"]
Piece = tuple[RunConfig, ...]


def make_piece(piece: Piece, out: str | Path) -> list[RunResult | str]:
    """The outcome of each run of a piece, in order; for workers, where exceptions do not travel
    well.

    Several runs are each prepared, then trained with their neighbours as far as `runner.fit`
    allows, then each tested and written, so that a failure is the run's own. One that is finished
    is only read, unless it was trained with others that are not: their training goes on as it was.
    """
    if len(piece) == 1:
        return [make_one(piece[0], out)]
    from simprompt.experiments import runner

    outcomes: dict[str, RunResult | str] = {}
    batch: list[Any] = []
    together = _trained_together(piece, out)
    for config in piece:
        making = _attempt(config, out, partial(runner.prepare, config), config in together)
        if not isinstance(making, runner.PreparedRun):  # it failed, or is there already
            outcomes[config.handle] = making
        elif not batch or runner.fit([*batch, making]):
            batch.append(making)
        else:
            outcomes |= _make_batch(batch, out)
            batch = [making]
    if batch:
        outcomes |= _make_batch(batch, out)
    return [outcomes[config.handle] for config in piece]


def _trained_together(piece: Piece, out: str | Path) -> list[RunConfig]:
    """The runs of a piece whose training with others was kept."""
    from simprompt.experiments.runner import identify

    runs = [(config, identify(config)) for config in piece]
    checkpoint_keys = [keys_in(checkpoint_place(out, run)) for _, run in runs]
    keys = {key for several in checkpoint_keys if len(several) > 1 for key in several}
    return [config for config, run in runs if run.key in keys]


def _make_batch(batch: Sequence[Any], out: str | Path) -> dict[str, RunResult | str]:
    """Train prepared runs together, test and write each by itself; outcomes by handle."""
    from simprompt.experiments import runner

    try:
        runner.train(batch, out)
    except Exception:  # whose fault it is shows when each is made by itself
        return {making.config.handle: make_one(making.config, out) for making in batch}
    outcomes = {
        making.config.handle: _attempt(making.config, out, partial(runner.finish, making, out))
        for making in batch
    }
    runner.forget(batch, out)
    return outcomes


def make_one(config: RunConfig, out: str | Path) -> RunResult | str:
    """One run's result, or why it failed."""
    from simprompt.experiments import runner

    outcome: RunResult | str = _attempt(config, out, lambda: runner.run(config, out))
    return outcome


def _attempt(
    config: RunConfig, out: str | Path, step: Callable[[], Any], anyway: bool = False
) -> Any:
    """What a step of a run gives, or why the run failed, which is recorded.

    A run that is there already is read, unless it is asked for `anyway`: a worker may have been
    killed between writing its result and saying so.
    """
    from simprompt.experiments.runner import identify

    run = identify(config)
    try:
        result = (not anyway and finished(out, run)) or step()
        forget_failure(out, run)
        return result
    except Exception as error:
        is_known = True
        if isinstance(error, SimpromptError):
            message = str(error)
        elif memory.is_out_of_memory(error):
            message = memory.explained(error)
        else:
            is_known, message = False, f"{type(error).__name__}: {error}"
        record_failure(out, run, message, "" if is_known else traceback.format_exc())
        return message


def record(out: str | Path, config: RunConfig, message: str, trace: str = "") -> None:
    """Keep why a run failed whose process could not say so itself."""
    from simprompt.experiments.runner import identify

    record_failure(out, identify(config), message, trace)


def pieces_of(
    configs: Sequence[RunConfig], waiting: Container[str], workers: int = 1, together: bool = False
) -> list[Piece]:
    """Runs that differ in seed and SAR settings only, in even pieces of at most `MOST`, and so few
    that no worker is without; all others are pieces by themselves.

    Args:
        configs: all runs of a sweep. Those that are finished stand in the pieces too, so that the
            same command makes the same pieces, whenever it was stopped.
        waiting: handles of the runs that are to be made; a piece without any is left out.
    """
    if not together:
        return [(config,) for config in configs if config.handle in waiting]
    limit = max(1, min(MOST, len(configs) // workers))
    takes = {method: _takes(method) for method in {config.method for config in configs}}
    alike: dict[str, list[RunConfig]] = {}
    for config in configs:
        task = config.handle
        if takes[config.method]:
            task = config.model_dump_json(exclude={"seed", "sar"})
        alike.setdefault(task, []).append(config)
    pieces = []
    for runs in alike.values():
        n = -(-len(runs) // limit)
        ends = [len(runs) * i // n for i in range(n + 1)]
        pieces += [tuple(runs[a:b]) for a, b in pairwise(ends)]
    return [piece for piece in pieces if any(config.handle in waiting for config in piece)]


def parted(piece: Piece, again: bool) -> list[Piece]:
    """What to try in the place of a piece whose process died: the same piece, which goes on from
    its checkpoint; if it died `again`, its runs one by one, as one may take the others along."""
    return [(config,) for config in piece] if again else [piece]


def _takes(method: str) -> bool:
    """Whether runs of a method can be trained together at all."""
    from simprompt import methods
    from simprompt.training import joint

    return method in methods.names() and joint.takes(methods.find(method))


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def here(pieces: Sequence[Piece], out: str | Path) -> Generator[Outcome, None, None]:
    """Make the pieces one after the other, in this process."""
    for piece in pieces:
        yield from zip(piece, make_piece(piece, out), strict=True)
