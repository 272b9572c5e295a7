"""Base-to-new from features in the cache to both accuracies: seconds, ours and the published way.

ViT-B/16's shape, 16 shots, 100 epochs of batch 32, on EuroSAT's sizes (5 + 5 classes, 80 images)
and on 50 + 50 classes (800 images). Ours is run from end to end where `--full` steps cover it, with
everything that a run computes once. Otherwise, and always for the published way, the time is the
number of steps times the measured step plus the measured test, and the row says so. The published
way encodes all class names anew for every test batch of 100 images; one such batch is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import Names, Row, Timing, arguments, clock, compare, emit, prepare, random_clip
from reference import FullLength
from step import Case, learner_of, ours, reference

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.training.schedule import epochs_and_steps


@dataclass(frozen=True)
class Task:
    name: str
    classes: int  # on each side
    test: int  # images on each side


TASKS = (Task("EuroSAT's shape, 5 + 5", 5, 4050), Task("50 + 50 classes", 50, 2500))
EPOCHS, SHOTS, TEST_BATCH = 100, 16, 100


def tests(case: Case, task: Task, clip: CLIP) -> tuple[float, float]:
    """Seconds to classify both sides' test images: ours, and the published way."""
    learner = learner_of(case, clip)
    images = F.normalize(torch.randn(task.test, clip.embed_dim), dim=-1).to(clip.device)
    sides = Names.make(task.classes), Names.make(task.classes, first=task.classes)

    def quick() -> None:
        for names in sides:
            learner.predict(images, names)

    tower = FullLength(clip)
    tokens = tower.tokens(learner.prompts(sides[0]), 1 + case.n_ctx)
    prefix = torch.cat([clip.embed_prefix(), learner.ctx]).detach()

    @torch.no_grad()
    def one_batch() -> torch.Tensor:
        return clip.scale * images[:TEST_BATCH] @ tower(prefix, tokens).T

    batches = 2 * -(-task.test // TEST_BATCH)
    found, _ = compare({"ours": quick, "reference": one_batch}, 3)
    return found["ours"].median, found["reference"].median * batches


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for task in TASKS:
        epochs = 2 if options.tiny else EPOCHS
        steps = epochs * epochs_and_steps(SHOTS * task.classes, Training(batch_size=32))[1]
        names = {f"{m}, {task.name}": m == "coop+sar" for m in ("coop", "coop+sar")}
        cases = [
            Case(name, base=task.classes, sar=sar)
            for name, sar in names.items()
            if not options.case or options.case in name
        ]
        if not cases:
            continue
        clip = random_clip(tiny=options.tiny)
        calls = {case.name: ours(case, clip) for case in cases}
        calls["reference"], _ = reference(cases[0], clip)
        found, peaks = compare(calls, options.repeats)
        our_test, their_test = tests(cases[0], task, clip)
        theirs = steps * found["reference"].median + their_test
        for case in cases:
            whole = steps <= options.full
            n = steps if whole else 1

            def run(case: Case = case, clip: CLIP = clip, n: int = n) -> None:
                ours(case, clip, n)()

            once = clock(run)  # with what a run makes once
            seconds = once + (steps - n) * found[case.name].median + our_test
            yield Row(
                case.name,
                Timing([seconds]),
                Timing([theirs]),
                ours_peak_mb=peaks[case.name],
                reference_peak_mb=peaks["reference"],
                note=f"ours {'run in full' if whole else 'from its measured step'}, "
                "reference without SAR and from its measured step",
                more={
                    "steps": steps,
                    "step_s": found[case.name].median,
                    "test_s": our_test,
                    "reference_step_s": found["reference"].median,
                    "reference_test_s": their_test,
                },
            )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--full", type=int, default=300, help="run ours in full up to these steps")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "Base-to-new, from cached features to both accuracies")
