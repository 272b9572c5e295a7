"""Where memory runs out: once more in smaller pieces, said once; then an error that says what to
do. What was finished is kept."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from protocols.test_protocols import QUICK, live_in_it
from simprompt.cli import main
from simprompt.clip import hub as clip_hub
from simprompt.clip.text import TextTower
from simprompt.clip.vision import VisionTower
from simprompt.config import RunConfig, Training
from simprompt.data.split import Origin, Split
from simprompt.errors import SimpromptError
from simprompt.experiments.sweep.make import make_runs, sweep
from simprompt.features.cache import image_features
from simprompt.methods.coop import CoOp
from simprompt.training import loop, state
from simprompt.training.joint import TrainingJob
from simprompt.training.loop import train_together
from simprompt.utils import memory
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.options import Execution
from test_checkpoint import CASES, a_run, outcome, same, settings

pytestmark = pytest.mark.integration

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
    assert memory.is_out_of_memory(error)
    assert memory.said(error)


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), ValueError("out of memory")])
def test_other_errors_are_left_alone(error):
    def work() -> None:
        raise error

    assert not memory.is_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)):
        memory.OOMRetry("It", "Do this.")(work)


def always_small(patch: pytest.MonkeyPatch) -> None:
    """Trainings are cut into pieces from their first step."""
    begin = state.TrainState.begin

    def small(course, checkpoint):
        begin(course, checkpoint)
        course.spared.pieces = memory.PIECES

    patch.setattr(state.TrainState, "begin", small)


@pytest.mark.parametrize(
    ("name", "plug"), [c for c in CASES if c[1] is None or c == ("coop", "sar+")]
)
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
    ("coop", None), ("coop", "sar"), ("coop", "sar+"), ("cocoop", "sar"), ("maple", "sar"),
    ("vpt", None),
])  # fmt: skip
def test_a_step_that_ran_out_once_is_the_step_in_pieces(
    name, plug, tiny_clip, failing, recwarn, monkeypatch
):
    with monkeypatch.context() as patch:
        always_small(patch)
        wanted = a_run(tiny_clip, name, plug)
        curves = train_together([wanted], settings(wanted.learner))
    failing(loop, "_losses", {1})
    run = a_run(tiny_clip, name, plug)
    made = train_together([run], settings(run.learner))
    assert same(outcome([run], made), outcome([wanted], curves))
    (text,) = said(recwarn)
    assert "done again in smaller pieces" in text


def test_runs_of_one_batch_go_on_one_by_one(tiny_clip, failing, recwarn, monkeypatch):
    def three() -> list[TrainingJob]:
        return [a_run(tiny_clip, "coop", plug, i) for i, plug in enumerate((None, "sar", "sar"))]

    with monkeypatch.context() as patch:
        always_small(patch)
        wanted = three()
        curves = train_together(wanted, settings(wanted[0].learner))
    failing(loop, "_losses", {2})
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
    failing(loop, "_losses", {6})
    wanted = a_run(tiny_clip, "coop", plug)
    curves = train_together([wanted], settings(wanted.learner))
    monkeypatch.undo()
    place = tmp_path / "training.safetensors"
    calls = failing(loop, "_losses", {6, 7})
    run = a_run(tiny_clip, "coop", plug)
    with pytest.raises(memory.MemoryShortError, match="also in smaller pieces") as caught:
        train_together([run], settings(run.learner), checkpoint=Checkpoint(place, ["k"]))
    assert len(calls) == 7
    assert "training.batch_size" in str(caught.value)
    assert str(place) in str(caught.value)
    monkeypatch.undo()
    again = a_run(tiny_clip, "coop", plug)
    made = train_together([again], settings(again.learner), checkpoint=Checkpoint(place, ["k"]))
    assert made[0].pieces == memory.PIECES
    assert same(outcome([again], made), outcome([wanted], curves))


def test_a_step_that_cannot_be_cut_is_not_tried_again(tiny_clip, failing, recwarn):
    calls = failing(TextTower, "read", {1})
    learner = CoOp(tiny_clip, ["cat"], "a photo of a {}.", CoOp.Config())  # one class
    run = TrainingJob(learner, F.normalize(torch.ones(2, 1, 24), dim=-1), torch.zeros(2).long(), 1)
    with pytest.raises(SimpromptError, match="cannot be cut into smaller pieces"):
        train_together([run], Training(epochs=1, batch_size=2))
    assert calls == [1]
    assert not said(recwarn)


def test_in_the_backward_pass(tiny_clip, failing, recwarn, monkeypatch):
    with monkeypatch.context() as patch:
        always_small(patch)
        wanted = a_run(tiny_clip, "prograd", "sar")
        curves = train_together([wanted], settings(wanted.learner))
    failing(torch.Tensor, "backward", {1}, ERRORS["cuda"])
    run = a_run(tiny_clip, "prograd", "sar")
    made = train_together([run], settings(run.learner))
    assert same(outcome([run], made), outcome([wanted], curves))
    assert len(said(recwarn)) == 1


# --- features, classes and images at test -------------------------------------------------------


def picture(item: str) -> Image.Image:
    pixels = np.random.default_rng(int(item)).integers(0, 256, (20, 20, 3), np.uint8)
    return Image.fromarray(pixels)


def pictures(n: int) -> Split:
    items = tuple(str(i) for i in range(n))
    origin = Origin("pictures", "1", ("a {}.",))
    return Split(items, (0,) * n, ("thing",), picture, origin=origin)


@pytest.mark.parametrize("plain", [True, False], ids=["plain tower", "packed tower"])
def test_features_go_on_in_pieces(plain, tiny_clip, tmp_path, failing, recwarn, monkeypatch):
    if plain:
        monkeypatch.setattr("simprompt.features.cache.packed", lambda tower: tower)
    monkeypatch.setattr("simprompt.features.cache.CHUNK", 8)
    whole = image_features(tiny_clip, pictures(20), batch=8, cache=tmp_path / "whole")
    calls = failing(VisionTower, "embed", {2})
    made = image_features(tiny_clip, pictures(20), batch=8, cache=tmp_path / "pieces")
    assert len(calls) == 2 + 4 + 4  # the second batch whole and in pieces, the third in pieces
    torch.testing.assert_close(made, whole, rtol=1e-4, atol=1e-5)
    assert len(said(recwarn)) == 1


def test_features_that_ran_out_twice_are_kept_as_far_as_they_were(
    tiny_clip, tmp_path, failing, monkeypatch
):
    monkeypatch.setattr("simprompt.features.cache.CHUNK", 7)
    split, n = pictures(20), len(pictures(20))
    calls = failing(VisionTower, "embed", {3, 4})
    with pytest.raises(SimpromptError, match=r"--batch-size N.*fewer --workers"):
        image_features(tiny_clip, split, batch=7, cache=tmp_path)
    image_features(tiny_clip, split, batch=n, cache=tmp_path)
    assert len(calls) == 5, "only the last batch was left to make"


@pytest.mark.parametrize("name", ["coop", "cocoop", "maple", "tcp"])
def test_class_names_and_test_images_in_pieces(name, tiny_clip, failing, recwarn):
    run = a_run(tiny_clip, name, None)
    images, names = run.images[:, 0], ["dog", "cat", "oak", "blue whale", "zebra"]
    whole = run.learner.predict(images, names)
    place = (VisionTower, "embed") if name == "maple" else (TextTower, "project")
    failing(*place, {1})
    if name == "tcp":  # its classes are not cut
        with pytest.raises(SimpromptError, match="cannot be cut"):
            run.learner.predict(images, names)
        return
    made = run.learner.predict(images, names)
    torch.testing.assert_close(made, whole, rtol=1e-4, atol=1e-6)
    assert len(said(recwarn)) == 1


# --- commands -----------------------------------------------------------------------------------


@pytest.fixture
def command(tiny_clip, tiny_tokenizer, tmp_path, monkeypatch) -> Callable[..., int]:
    """command("learn", ...) on a few pictures and a small model: its exit code."""
    clip_hub.save(tiny_clip, tmp_path / "model")
    shutil.copy(tiny_tokenizer, tmp_path / "model" / "tokenizer.json")
    for i in range(8):
        place = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(str(i)).save(place)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> int:
        given = ["--model", str(tmp_path / "model")]
        monkeypatch.setattr("sys.argv", ["simprompt", *words, *given])
        with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
            main.main()
        return stopped.value.code or 0

    return run


def test_learn_says_it_once_and_ends_well(command, tmp_path, failing, recwarn):
    failing(loop, "_losses", {3})
    out = tmp_path / "learned"
    assert command("learn", str(tmp_path / "photos"), "--sar", "off", "--out", str(out),
                   "--set", "training.epochs=3", "--set", "training.batch_size=2") == 0  # fmt: skip
    assert len(said(recwarn)) == 1


def test_learn_that_ran_out_twice_goes_on_with_the_same_command(command, tmp_path, failing, capsys):
    out = tmp_path / "learned"
    words = ("learn", str(tmp_path / "photos"), "--sar", "off", "--out", str(out),
             "--set", "training.epochs=3", "--set", "training.batch_size=2")  # fmt: skip
    calls = failing(loop, "_losses", {3, 4})
    assert command(*words) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("simprompt: A training step ran out of memory, also in smaller")
    assert "training.batch_size" in message
    assert "goes on from there" in message
    before = len(calls)
    assert command(*words) == 0
    after = len(calls)
    assert command(*words[:-5], str(tmp_path / "other"), *words[-4:]) == 0
    assert after - before == len(calls) - after - 2, "two steps were kept"


def test_the_command_features_ends_with_code_2(command, tmp_path, failing, capsys):
    failing(VisionTower, "embed", {1, 2})
    assert command("features", str(tmp_path / "photos")) == 2
    assert "--batch-size N" in capsys.readouterr().err


def test_memory_that_runs_out_anywhere_else_is_no_fault_of_ours(command, capsys):
    def raises(*given, **more):
        raise ERRORS["cuda"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "app", raises)
        assert command("learn") == 2
    said_ = capsys.readouterr().err
    assert "CUDA out of memory" in said_
    assert "smaller batch" in said_
    assert "--device cpu" in said_


# --- sweeps -------------------------------------------------------------------------------------


@pytest.fixture
def world(monkeypatch, make_clip, tmp_path: Path) -> None:
    live_in_it(monkeypatch, make_clip, tmp_path)


def grid() -> list[RunConfig]:
    return [
        RunConfig(dataset="colours", method="coop", seed=seed, training=QUICK) for seed in (1, 2, 3)
    ]


@pytest.mark.usefixtures("world")
def test_a_run_that_ran_out_twice_fails_and_the_others_are_kept(tmp_path, failing):
    configs = grid()
    failing(loop, "_losses", {2, 3})
    with pytest.raises(SimpromptError, match=r"1 of 3 runs failed.*A training step ran out"):
        make_runs(configs, tmp_path, quiet=True)
    assert len(list(tmp_path.rglob("result.json"))) == 2
    assert len(make_runs(configs, tmp_path, quiet=True)) == 3


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("numbers", [{1}, {1, 2}], ids=["once", "twice"])
def test_runs_that_are_trained_together(numbers, tmp_path, failing, recwarn):
    """Once: one by one within the step. Twice: each is made by itself."""
    failing(loop, "_losses", numbers)
    made = sweep(grid(), tmp_path, quiet=True, execution=Execution(train_together=True))
    assert not made.failed
    assert {r["together"] for r in made.results.values()} == ({2} if numbers == {1} else {0})
    assert {r["curves"]["pieces"] for r in made.results.values()} == (
        {memory.PIECES} if numbers == {1} else {1}
    )
    assert len(said(recwarn)) == 1
