"""bfloat16 against float32 on the icon tasks: accuracies, and the time of a training step.

The same runs twice, once with both frozen towers in bfloat16 (learned prompts, losses and the
logit scale stay float32), with the settings of the icon recipe. "Ours" is bfloat16, the reference
float32; base and new are accuracies in points, bfloat16 minus float32. The last row of a method
has the means and their 95% intervals: Student's t over the means of the tasks, since the seeds of
a task share its test images.

    python benchmarks/precision.py --seeds 1 2 3 --workers 2 --keep runs/precision

With `--keep` a run that is there is not made again, so the script can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import precision  # itself, by the name under which a worker finds `both`
from common import Row, Timing, arguments, emit, prepare

from simprompt.utils.files.atomic import write_text

DTYPES = ("float32", "bfloat16")
Cell = dict[str, Any]


def both(task: str, seed: int, sar: bool, test: int | None, keep: Path | None) -> Cell:
    """One run in each precision: {dtype: {"step_s", "base", "new"}}, from `keep` if it is there."""
    label = "coop+sar" if sar else "coop"
    name = f"{task.replace('/', '-')}-{label}-seed{seed}-{test or 'all'}.json"
    if keep and (keep / name).is_file():
        return json.loads((keep / name).read_text(encoding="utf-8"))
    cell = {dtype: measured(task, seed, sar, test, dtype) for dtype in DTYPES}
    if keep:
        write_text(keep / name, json.dumps(cell))
    return cell


def measured(task: str, seed: int, sar: bool, test: int | None, dtype: str) -> dict[str, float]:
    import torch

    from simprompt import recipes
    from simprompt.clip.hub import load_clip
    from simprompt.data import icons
    from simprompt.experiments.protocols.common import limit
    from simprompt.prompt.learn import learn

    torch.set_num_threads(1)
    values = recipes.load("coop@icons")
    config = recipes.build(values, sar, method="coop", dataset=task, model="icons")
    data, clip = icons.load(task), load_clip("icons", dtype=dtype)
    prompt = learn(
        clip, data.base.few_shot(16, seed), "coop", config.sar,
        options=config.options, training=config.training, seed=seed,
    )  # fmt: skip
    assert prompt.curves is not None
    return {
        "step_s": prompt.curves.seconds / prompt.curves.steps,
        "base": prompt.accuracy(limit(data.base.test, test)),
        "new": prompt.accuracy(limit(data.new.test, test)),
    }


def rows(options: argparse.Namespace) -> Iterator[Row]:
    from simprompt.data import icons
    from simprompt.utils.statistics import interval, mean

    tasks = icons.tasks()[:1] if options.tiny else icons.tasks()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for sar in (False, True) if options.sar else (False,):
            label = "coop+sar" if sar else "coop"
            made = {
                task: [
                    pool.submit(precision.both, task, seed, sar, options.test, options.keep)
                    for seed in options.seeds
                ]
                for task in tasks
                if not options.case or options.case in f"{label}, {task}"
            }
            seconds: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
            moved: dict[str, list[float]] = {"base": [], "new": []}  # means of the tasks
            for task, futures in made.items():
                cells = [future.result() for future in futures]
                own = {d: Timing([cell[d]["step_s"] for cell in cells]) for d in DTYPES}
                for dtype, timing in own.items():
                    seconds[dtype] += timing.seconds
                for side, means in moved.items():
                    means.append(mean([c["bfloat16"][side] - c["float32"][side] for c in cells]))
                last = {side: means[-1] for side, means in moved.items()}
                yield Row(f"{label}, {task}", own["bfloat16"], own["float32"], more=last)
            if len(made) > 1:
                whole = {side: mean(means) for side, means in moved.items()} | {
                    f"{side}_95": [round(end, 3) for end in interval(means)]
                    for side, means in moved.items()
                }
                yield Row(
                    f"{label}, mean of {len(made)} tasks",
                    *(Timing(seconds[dtype]) for dtype in reversed(DTYPES)),
                    more={"seeds": len(options.seeds), **whole},
                )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sar", action="store_true", help="CoOp with SAR as well")
    parser.add_argument("--test", type=int, default=None, help="test images a class; all of them")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--keep", type=Path, help="a folder for finished runs")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "bfloat16 against float32 on the icon tasks")
