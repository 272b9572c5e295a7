"""Base-to-new from features in the cache to both accuracies: seconds, ours and the published way.

ViT-B/16's shape, 16 shots, 100 epochs of batch 32, on EuroSAT's sizes (5 + 5 classes, 80 images)
and on 50 + 50 classes (800 images). A side is run in full where `--full` steps cover it; else its
time is the number of steps times the measured step, plus the measured test, and says "scaled".
The published way encodes all class names anew for every test batch of 100 images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import Names, Row, Timing, arguments, clock, emit, interleave, prepare, random_clip
from reference import FullLength
from step import Case, learner_of, ours, reference

from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.train import epochs_and_steps


@dataclass(frozen=True)
class Task:
    name: str
    classes: int  # on each side
    test: int  # images on each side


TASKS = (Task("EuroSAT's shape, 5 + 5", 5, 4050), Task("50 + 50 classes", 50, 2500))
EPOCHS, SHOTS, TEST_BATCH = 100, 16, 100


def test_time(case: Case, task: Task, clip: CLIP) -> tuple[float, float]:
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
    return clock(quick), clock(one_batch) * batches


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for task in TASKS:
        steps_an_epoch = epochs_and_steps(SHOTS * task.classes, Training(batch_size=32))[1]
        steps = EPOCHS * steps_an_epoch
        for sar in (False, True):
            name = f"{'coop+sar' if sar else 'coop'}, {task.name}"
            if options.case and options.case not in name:
                continue
            case = Case(name, base=task.classes, sar=sar)
            clip = random_clip(tiny=options.tiny)
            slow, _ = reference(case, clip)
            found = interleave({"ours": ours(case, clip), "reference": slow}, options.repeats)
            our_test, their_test = test_time(case, task, clip)
            full = steps <= options.full
            seconds = clock(ours(case, clip, steps)) if full else steps * found["ours"].median
            theirs = steps * found["reference"].median + their_test
            yield Row(
                name,
                Timing([seconds + our_test]),
                Timing([theirs]),
                more={"steps": steps, "ours": "run in full" if full else "scaled",
                      "reference": "scaled"},
            )  # fmt: skip


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--full", type=int, default=300, help="run ours in full up to these steps")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "Base-to-new, from cached features to both accuracies")
