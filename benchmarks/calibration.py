"""Calibration error of base and new classes before and after the temperature from shots set aside.

    python -m benchmarks.calibration [--seeds 1,2,3] [--methods coop,coop+sar]

Every icon task, the recipe's settings. The temperature is fitted as `simprompt learn` fits it: on
a group of shots that the prompt was not learned from. Test images and new classes choose nothing.
Errors are in points, means over tasks and seeds. The last columns say how "none of these" does with
the threshold that was chosen in the same way: on test images of base classes among all names, and
with their own name taken away.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

import simprompt
from simprompt.clip.hub import load_clip
from simprompt.data import icons
from simprompt.data.split import Split
from simprompt.metrics import at_temperature, calibration_error
from simprompt.prompt.calibration import calibrate
from simprompt.prompt.prompt import Prompt
from simprompt.utils.statistics import mean


def measured(method: str, job: tuple[str, int]) -> list[float]:
    """[T, base before, base after, new before, new after, kept, refused] of a task and seed."""
    torch.set_num_threads(1)
    task, seed = job
    clip, data = load_clip("icons"), simprompt.load_dataset(task)
    host, _, sar = method.partition("+")
    shots = data.base.few_shot(16, seed=seed)

    def learned(part: Split) -> Prompt:
        return simprompt.learn(clip, part, host, bool(sar), seed=seed, progress=False)

    prompt = learned(shots)
    plain = {side: prompt.probabilities(getattr(data, side).test) for side in ("base", "new")}
    made = calibrate(prompt, shots, learned, seed=seed)
    assert made is not None
    row = [made.temperature]
    for side, before in plain.items():
        labels = torch.tensor(getattr(data, side).test.labels)
        after = at_temperature(before, made.temperature)
        row += [calibration_error(before, labels), calibration_error(after, labels)]
    mild = at_temperature(plain["base"], made.temperature)
    own = torch.tensor(data.base.test.labels)[:, None]
    without = mild.scatter(-1, own, 0.0)
    without /= without.sum(-1, keepdim=True)
    kept = (mild.max(-1).values >= made.unknown).double().mean().item()
    refused = (without.max(-1).values < made.unknown).double().mean().item()
    return [*row, 100 * kept, 100 * refused]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--methods", default="coop,coop+sar")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [(task, int(seed)) for task in icons.tasks() for seed in arguments.seeds.split(",")]
    head = ("method", "T", "base", "base, T", "new", "new, T", "kept %", "refused %")
    print(("{:10}" + "{:>10}" * 7).format(*head))
    with ProcessPoolExecutor(arguments.workers) as pool:
        for method in arguments.methods.split(","):
            rows = list(pool.map(partial(measured, method), jobs))
            columns = [mean(column) for column in zip(*rows, strict=True)]
            print(("{:10}" + "{:10.2f}" * 7).format(method, *columns), flush=True)
            for task in icons.tasks():
                own = [row for (name, _), row in zip(jobs, rows, strict=True) if name == task]
                columns = [mean(column) for column in zip(*own, strict=True)]
                print(("  {:16}" + "{:8.2f}" * 7).format(task, *columns), flush=True)


if __name__ == "__main__":
    main()
