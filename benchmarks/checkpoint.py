"""What a checkpoint costs: the same training with one after each step, beside one with none.

The difference is the cost of a checkpoint, and `share` is its part of the time between two of them
(`utils.checkpoint.EVERY`), in percent. It is the cost of writing: training never waits otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import step
from common import Row, arguments, compare, emit, prepare

from simprompt.utils.checkpoint import EVERY
from simprompt.utils.environ import variable

STEPS = 8
CASES = (
    step.Case("icons: coop+sar, 40 + 200 classes", base=40, model="icons", sar=True),
    step.Case("coop+sar, 50 + 200 classes", sar=True),
    step.Case("maple, text side", "language", n_ctx=2, options={"depth": 9}),
    step.Case("cocoop, batch 4", "cocoop", batch=4),
    step.Case("tcp, 50 classes", "tcp"),
    step.Case("coop, 500 classes", base=500),
)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for case in (case for case in CASES if not options.case or options.case in case.name):
        clip = step.model_of(case, options.tiny)
        with tempfile.TemporaryDirectory() as folder, variable("SIMPROMPT_CHECKPOINT_EVERY", "0"):
            place = Path(folder) / "training.safetensors"
            calls = {
                "kept": step.ours(case, clip, STEPS, place),
                "not kept": step.ours(case, clip, STEPS),
            }
            found, peaks = compare(calls, options.repeats)
            size = place.stat().st_size
        row = Row(case.name, found["kept"], found["not kept"], note=f"{STEPS} steps")
        row.ours_peak_mb, row.reference_peak_mb = peaks["kept"], peaks["not kept"]
        cost = max(0.0, (row.ours.median - found["not kept"].median) / STEPS)
        row.more = {
            "checkpoint_ms": 1000 * cost, "share": 100 * cost / EVERY, "checkpoint_kb": size / 1000,
        }  # fmt: skip
        yield row


if __name__ == "__main__":
    given = arguments(__doc__ or "").parse_args()
    prepare(given)
    emit(rows(given), given, "A training with a checkpoint after each step, and with none")
