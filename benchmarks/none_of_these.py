"""What `learn` says of its probabilities and of "none of these", and what holds on other images.

    SIMPROMPT_DATA=... python benchmarks/photo_tasks.py TASKS
    python -m benchmarks.none_of_these TASKS/animals TASKS/dtd-10 eurosat

Each method learns half of the classes from 16 shots and is calibrated on a part of them, as
`simprompt learn` does it. Then it sees test images of these classes, and images of the other half,
which are unknown to it. A row has the estimate with its 95% interval, and the true rate:

* right: percent of the test images of the learned classes that are right;
* kept: percent of these that the threshold accepts;
* refused: percent of the other half's images that it refuses;
* one name, two names: kept and refused where only so many of the learned classes are candidates,
  with images of the others among the unknown;
* new names: kept and refused where the names of the other half are the candidates (methods that
  take them), and images of the learned classes are the unknown;
* ECE: calibration error on the test images at T = 1 and at the fitted T.

The last line counts the intervals that hold the true rate.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

import torch

import simprompt
from simprompt.clip.hub import load_clip
from simprompt.data.split import Split
from simprompt.features.cache import images_of
from simprompt.metrics import at_temperature, calibration_error
from simprompt.prompt.calibration import calibrate
from simprompt.prompt.prompt import Prompt
from simprompt.recipes import plan

MOST = 300
"""Test images of a side."""


def sample(split: Split) -> Split:
    """At most `MOST` images of a split."""
    rows = random.Random(0).sample(range(len(split)), min(MOST, len(split)))
    return split.take(sorted(rows))


def certainties(prompt: Prompt, split: Split, names: Sequence[str]) -> torch.Tensor:
    """`Prediction.certainty` [N] of a split's images among `names`."""
    among = prompt.judged_among(names)
    answer, judge = prompt.classifier(names), prompt.classifier(among)
    parts = []
    for images in images_of(prompt.learner, split):
        best = answer(images).argmax(-1)
        parts.append(judge(images).gather(1, best[:, None])[:, 0])
    return torch.cat(parts)


def percent(part: torch.Tensor) -> float:
    return 100 * part.double().mean().item()


def subsets(prompt: Prompt, known: Split, unknown: Split, count: int) -> tuple[float, float]:
    """Kept and refused with `count` of the learned classes as the candidates."""
    names = known.classnames
    kept, refused = [], []
    for first in range(len(names)):
        some = sorted({(first + step) % len(names) for step in range(count)})
        sure = certainties(prompt, known, [names[i] for i in some])
        inside = torch.isin(torch.tensor(known.labels), torch.tensor(some))
        kept.append(sure[inside] >= prompt.unknown)
        strange = certainties(prompt, unknown, [names[i] for i in some])
        refused.append(torch.cat([sure[~inside], strange]) < prompt.unknown)
    return percent(torch.cat(kept)), percent(torch.cat(refused))


def measured(method: str, task: str, model: str, seed: int) -> list[bool]:
    """Print a task's row; returns whether each interval holds the true rate."""
    clip, data = load_clip(model), simprompt.load_dataset(task)
    host = method.removesuffix("+sar")
    with_sar = {"novel": plan.OWN_SOURCE} if method.endswith("+sar") else False
    shots = data.base.few_shot(16, seed=seed)

    def learned(part: Split) -> Prompt:
        return simprompt.learn(clip, part, host, with_sar, seed=seed, progress=False)

    prompt = learned(shots)
    known, unknown = sample(data.base.test), sample(data.new.test)
    labels = torch.tensor(known.labels)
    plain = prompt.probabilities(known)
    found = calibrate(prompt, shots, learned, seed=seed)
    assert found is not None
    fitted = at_temperature(plain, found.temperature)
    errors = [calibration_error(p, labels) for p in (plain, fitted)]
    names = known.classnames
    kept = certainties(prompt, known, names) >= found.unknown
    refused = certainties(prompt, unknown, names) < found.unknown
    rows = [
        (found.right or 0.0, found.right_interval, percent(plain.argmax(-1) == labels)),
        (found.known_kept, found.known_kept_interval, percent(kept)),
        (found.unknown_refused, found.unknown_refused_interval, percent(refused)),
    ]
    shown = "   ".join(
        f"{said:3.0f} [{low:3.0f}, {high:3.0f}] {true:3.0f}" for said, (low, high), true in rows
    )
    other = [subsets(prompt, known, unknown, count) for count in (1, 2)]
    if prompt.learner.new_classes:
        new = unknown.classnames
        other.append((percent(certainties(prompt, unknown, new) >= found.unknown),
                      percent(certainties(prompt, known, new) < found.unknown)))  # fmt: skip
    pairs = "   ".join(f"{a:3.0f} {b:3.0f}" for a, b in other)
    print(
        f"{method:14}{task.rpartition('/')[2]:17}{len(names):3}  {found.temperature:5.2f} "
        f"{errors[0]:5.1f} {errors[1]:5.1f}   {found.unknown:4.2f}   {shown}   {pairs}",
        flush=True,
    )
    return [low <= true <= high for _, (low, high), true in rows]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--model", default="photos")
    parser.add_argument("--methods", default="class-means,linear-probe,means+text,coop+sar")
    parser.add_argument("--seeds", default="1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'method':14}{'task':17}  C      T   ECE  at T   thr.   {'right: said, true':19}"
        f"{'kept: said, true':20}{'refused: said, true':20}one name  two     new names"
    )
    held = []
    for method in given.methods.split(","):
        for task in given.tasks:
            for seed in map(int, given.seeds.split(",")):
                held += measured(method, task, given.model, seed)
    print(f"{sum(held)} of {len(held)} intervals hold the true rate.")


if __name__ == "__main__":
    sys.exit(main())
