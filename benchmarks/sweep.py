"""Twelve runs trained together against the same runs one after another.

Seeds and SAR weights of one task share the frozen tower, so their classes make one bigger batch
(`simprompt.training.joint`). "Reference" is our own training, run by run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from common import Call, Row, arguments, compare, emit, prepare
from step import TEMPLATE, Case, batch_of, model_of, names_of

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.config import SAR, Training
from simprompt.sar import Regulariser
from simprompt.training.joint import TrainingJob
from simprompt.training.loop import train, train_together

CASES = (
    Case("12 x coop, 10 classes", base=10),
    Case("12 x coop+sar, 10 classes", base=10, sar=True),
    Case("12 x coop, 50 classes", base=50),
    Case("icons: 12 x coop, 10 classes", base=10, model="icons"),
    Case("icons: 12 x coop+sar, 40 classes", base=40, model="icons", sar=True),
)
STEPS = 2


def runs_of(case: Case, clip: CLIP, n: int) -> list[TrainingJob]:
    """Runs with other seeds, and weights if there is SAR."""
    learner = methods.find(case.method)
    names = names_of(case)
    images, labels = batch_of(case, clip, STEPS)
    runs = []
    for seed in range(n):
        config = learner.Config(n_ctx=case.n_ctx, init="random")
        one = learner(clip, names[: case.base], TEMPLATE, config, seed)
        plug = None
        if case.sar:
            teacher = one.teacher(names)
            settings = SAR(weight=0.1 * (1 + seed % 4))
            plug = Regulariser(settings, teacher, case.base, seed), one.prompts(names)
        runs.append(TrainingJob(one, images, labels, seed, plug))
    return runs


def rows(options: argparse.Namespace) -> Iterator[Row]:
    settings = Training(epochs=1, batch_size=32)
    for case in CASES:
        if options.case and options.case not in case.name:
            continue
        clip = model_of(case, options.tiny)
        runs = runs_of(case, clip, 12)

        def together(runs: list[TrainingJob] = runs) -> None:
            train_together(runs, settings)

        def in_turn(runs: list[TrainingJob] = runs) -> None:
            for run in runs:
                train(run.learner, run.images, run.labels, settings, run.seed, run.sar)

        calls: dict[str, Call] = {"ours": together, "reference": in_turn}
        found, peaks = compare(calls, options.repeats)
        for timing in found.values():
            timing.seconds = [s / STEPS for s in timing.seconds]
        yield Row(
            case.name,
            found["ours"],
            found["reference"],
            ours_peak_mb=peaks["ours"],
            reference_peak_mb=peaks["reference"],
            note="reference ours, run by run",
        )


if __name__ == "__main__":
    given = arguments(__doc__ or "").parse_args()
    prepare(given)
    emit(rows(given), given, "A step of twelve runs: together, and one after another")
