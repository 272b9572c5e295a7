"""bfloat16 against float32 on the icon tasks: accuracies, and the time of training.

The same runs twice, once with both frozen towers in bfloat16 (learned prompts, losses and the
logit scale stay float32). "Ours" is bfloat16, the reference float32; base and new are accuracies
in points, bfloat16 minus float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from common import Row, Timing, arguments, clock, emit, prepare

from simprompt import recipes
from simprompt.clip.hub import load_clip
from simprompt.config import SAR
from simprompt.data import icons
from simprompt.features import image_features
from simprompt.prompt import Prompt, learn
from simprompt.protocols.common import limit


def rows(options: argparse.Namespace) -> Iterator[Row]:
    known = "coop@icons" in recipes.names()
    values = recipes.load("coop@icons") if known else {"training": {"lr": 0.02, "max_steps": 300}}
    config = recipes.build(values, True, method="coop", dataset="icons/animals", model="icons")
    moved: dict[str, list[float]] = {"base": [], "new": []}
    for task in icons.tasks():
        data = icons.load(task)
        for sar in (None, config.sar or SAR()) if options.sar else (None,):
            name = f"{task}, {'coop+sar' if sar else 'coop'}"
            if options.case and options.case not in name:
                continue
            found = {}
            for dtype in ("float32", "bfloat16"):
                clip = load_clip("icons", dtype=dtype)
                shots = data.base.few_shot(16, 1)
                image_features(clip, shots)  # not part of training's time
                made: list[Prompt] = []
                seconds = clock(
                    lambda clip=clip, shots=shots, made=made, sar=sar: made.append(
                        learn(clip, shots, "coop", sar, training=config.training, seed=1)
                    )
                )
                (prompt,) = made
                assert prompt.curves is not None
                found[dtype] = (
                    seconds / prompt.curves.steps,
                    prompt.accuracy(limit(data.base.test, options.test)),
                    prompt.accuracy(limit(data.new.test, options.test)),
                )
            (quick, *half), (slow, *full) = found["bfloat16"], found["float32"]
            change = {key: h - f for key, h, f in zip(moved, half, full, strict=True)}
            for key, value in change.items():
                moved[key].append(value)
            mean = {f"mean_{key}": sum(v) / len(v) for key, v in moved.items()}
            yield Row(name, Timing([quick]), Timing([slow]), more={**change, **mean})


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--sar", action="store_true", help="CoOp with SAR as well")
    parser.add_argument("--test", type=int, default=None, help="test images a class; all of them")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "bfloat16 against float32 on the icon tasks")
