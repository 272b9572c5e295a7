"""Where memory runs out: once more in smaller pieces, said once; then an error that says what to
do. What was finished is kept."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from simprompt import cli, memory, prompt, train
from simprompt.batched import Run
from simprompt.checkpoint import Checkpoint
from simprompt.clip.text import TextTower
from simprompt.clip.vision import VisionTower
from simprompt.config import RunConfig, Training
from simprompt.data.dataset import Split
from simprompt.errors import SimpromptError
from simprompt.features import image_features
from simprompt.methods.coop import CoOp
from simprompt.sweep.make import make_runs, sweep
from simprompt.train import train_together
from test_checkpoint import CASES, a_run, outcome, same, settings

CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 99 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = {
    "cpu": RuntimeError(CPU),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "metal": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB). Tried ..."),
    "python": MemoryError(),
}
SAID = "ran out of memory"


@pytest.fixture
def failing(monkeypatch) -> Callable[..., list[int]]:
    """failing(place, name, {2, 3}): the calls with these numbers, counted from 1, are made and then
    run out of memory. Gives the list of all calls."""

    def start(place: object, name: str, numbers, error: Exception = ERRORS["cpu"]) -> list[int]:
        calls: list[int] = []
        real = getattr(place, name)

        def fails(*given, **more):
            calls.append(len(calls) + 1)
            made = real(*given, **more)
            if calls[-1] in numbers:
                raise error
            return made

        monkeypatch.setattr(place, name, fails)
        return calls

    return start


@pytest.fixture(autouse=True)
def every_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def said(record) -> list[str]:
    return [str(w.message) for w in record if SAID in str(w.message)]


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_what_running_out_looks_like(error):
    assert memory.ran_out(error)
    assert memory.said(error)


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), ValueError("out of memory")])
def test_other_errors_are_left_alone(error):
    def work() -> None:
        raise error

    assert not memory.ran_out(error)
    with pytest.raises(type(error), match=str(error)):
        memory.Sparing("It", "Do this.")(work)


def always_small(patch: pytest.MonkeyPatch) -> None:
    """Trainings are cut into pieces from their first step."""
    begin = train.Course.begin

    def small(course, checkpoint):
        begin(course, checkpoint)
        course.spared.pieces = memory.PIECES

    patch.setattr(train.Course, "begin", small)


@pytest.mark.parametrize(("name", "plug"), [
    case for case in CASES if case[1] in (None, "sar+") and case[0] not in ("tip-adapter", "linear-probe")
])  # fmt: skip
def test_every_method_is_the_same_in_pieces(name, plug, tiny_clip, monkeypatch):
    """Up to the order of sums, and what cannot be cut is left whole."""
    whole, cut = a_run(tiny_clip, name, plug), a_run(tiny_clip, name, plug)
    (one,) = train_together([whole], settings(whole.learner))
    always_small(monkeypatch)
    (other,) = train_together([cut], settings(cut.learner))
    assert other.pieces == memory.PIECES
    assert one.loss == pytest.approx(other.loss, rel=2e-3, abs=1e-5)
    for key, value in whole.learner.state_dict().items():
        torch.testing.assert_close(cut.learner.state_dict()[key], value, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize(("name", "plug"), [
    ("coop", None), ("coop", "sar"), ("coop", "sar+"), ("cocoop", "sar"), ("maple", "sar"), ("vpt", None),
])  # fmt: skip
def test_a_step_that_ran_out_once_is_the_step_in_pieces(
    name, plug, tiny_clip, failing, recwarn, monkeypatch
):
    with monkeypatch.context() as patch:
        always_small(patch)
        wanted = a_run(tiny_clip, name, plug)
        curves = train_together([wanted], settings(wanted.learner))
    failing(train, "_losses", {1})
    run = a_run(tiny_clip, name, plug)
    made = train_together([run], settings(run.learner))
    assert same(outcome([run], made), outcome([wanted], curves))
    (text,) = said(recwarn)
    assert "done again in smaller pieces" in text


def test_runs_of_one_batch_go_on_one_by_one(tiny_clip, failing, recwarn, monkeypatch):
    def three() -> list[Run]:
        return [a_run(tiny_clip, "coop", plug, i) for i, plug in enumerate((None, "sar", "sar"))]

    with monkeypatch.context() as patch:
        always_small(patch)
        wanted = three()
        curves = train_together(wanted, settings(wanted[0].learner))
    failing(train, "_losses", {2})
    runs = three()
    made = train_together(runs, settings(runs[0].learner))
    assert same(outcome(runs, made), outcome(wanted, curves))
    assert len(said(recwarn)) == 1
    alone = a_run(tiny_clip, "coop", "sar", 2)
    train_together([alone], settings(alone.learner))
    torch.testing.assert_close(runs[2].learner.ctx, alone.learner.ctx, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("plug", ["sar", "sar+"])
def test_a_training_that_ran_out_twice_goes_on_from_its_checkpoint(
    plug, tiny_clip, tmp_path, failing, monkeypatch
):
    """To the bits of one whose steps after the fifth were made in pieces."""
    with monkeypatch.context() as patch:
        wanted = a_run(tiny_clip, "coop", plug)
        patch.setattr(train, "_losses", train._losses)
        failing(train, "_losses", {6})
        curves = train_together([wanted], settings(wanted.learner))
    monkeypatch.undo()
    place = tmp_path / "training.safetensors"
    with monkeypatch.context():
        calls = failing(train, "_losses", {6, 7})
        run = a_run(tiny_clip, "coop", plug)
        with pytest.raises(memory.MemoryShortError, match="training.batch_size") as caught:
            train_together([run], settings(run.learner), checkpoint=Checkpoint(place, ["k"]))
        assert len(calls) == 7
        assert "also in smaller pieces" in str(caught.value)
        assert str(place) in str(caught.value)
    again = a_run(tiny_clip, "coop", plug)
    made = train_together([again], settings(again.learner), checkpoint=Checkpoint(place, ["k"]))
    assert made[0].pieces == memory.PIECES
    assert same(outcome([again], made), outcome([wanted], curves))


def test_a_step_that_cannot_be_cut_is_not_tried_again(tiny_clip, failing, recwarn):
    calls = failing(TextTower, "read", {1})
    learner = CoOp(tiny_clip, ["cat"], "a photo of a {}.", CoOp.Config())  # one class
    run = Run(learner, F.normalize(torch.ones(2, 1, 24), dim=-1), torch.zeros(2).long(), 1)
    with pytest.raises(SimpromptError, match="cannot be cut into smaller pieces"):
        train_together([run], Training(epochs=1, batch_size=2))
    assert calls == [1]
    assert not said(recwarn)
