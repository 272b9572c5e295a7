"""The paper's failure signatures: said where they show, silent elsewhere."""

from __future__ import annotations

import math

from PIL import Image

from simprompt.data.split import Split
from simprompt.prompt.diagnostics import only_warmed_up, overfits, short_of_memory
from simprompt.prompt.learn import learn
from simprompt.training.state import Curves


def shots_of(count: int) -> Split:
    items = tuple(map(str, range(count)))
    labels = tuple(i % 3 for i in range(count))
    colours = ("red", "lime", "blue")
    return Split(
        items, labels, ("cat", "dog", "car"),
        lambda item: Image.new("RGB", (20, 20), colours[int(item) % 3]),
    )  # fmt: skip


def curves(loss: list[float], sar: list[float]) -> Curves:
    return Curves(loss=loss, sar=sar)


def test_rising_sar_and_falling_ce_is_overfitting():
    down = [3 - 0.2 * i for i in range(12)]
    up = [0.1 * (i + 1) for i in range(12)]
    assert "overfitting" in overfits(curves(down, up))
    assert overfits(curves(down, up[::-1])) is None, "SAR falls"
    assert overfits(curves([1.0] * 12, up)) is None, "CE stands still"
    early = [0.0, 0.4, 0.8, 1.2, *([1.2] * 8)]
    assert overfits(curves(down, early)) is None, "it starts at zero, so it must rise at first"


def test_too_few_epochs_or_no_sar_say_nothing():
    assert overfits(curves([3, 2, 1], [1, 2, 3])) is None
    assert overfits(curves([3, 2, 1, 0.5, 0.3, 0.2], [])) is None


def test_memory_near_the_limit_names_the_recipe():
    assert "low-memory" in short_of_memory(950, 1000)
    assert short_of_memory(500, 1000) is None
    assert short_of_memory(500, math.nan) is None
    assert short_of_memory(math.nan, 1000) is None


def warmed_up(clip, method: str = "coop", **training) -> str | None:
    return only_warmed_up(learn(clip, shots_of(18), method, training=training, progress=False))


def test_a_training_that_was_its_warm_up_is_a_sign(tiny_clip):
    said = warmed_up(tiny_clip, epochs=1, batch_size=6, lr=0.1)
    assert "3 steps in one epoch" in said
    assert said.endswith("Set a larger training.epochs.")
    said = warmed_up(tiny_clip, epochs=9, batch_size=3, lr=0.1, max_steps=2)
    assert "2 steps in one epoch" in said
    assert said.endswith("Set a training.max_steps of at least 12."), "an epoch has 6"
    assert warmed_up(tiny_clip, epochs=9, batch_size=3, lr=0.1, max_steps=12) is None
    assert warmed_up(tiny_clip, epochs=1, lr=0.1, warmup_lr=0.1) is None, "the full rate"
    assert warmed_up(tiny_clip, "zero-shot") is None, "nothing is trained"


def test_a_method_whose_schedule_is_one_epoch_was_not_its_warm_up(tiny_clip):
    prompt = learn(tiny_clip, shots_of(18), "class-means", progress=False)
    assert len(prompt.curves.lr) == 1
    assert only_warmed_up(prompt) is None
