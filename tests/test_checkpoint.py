"""A training that is stopped at any step and taken up ends as one that was never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from simprompt import methods, regularisers
from simprompt.clip.model import CLIP
from simprompt.config import SAR, SARPlus, Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner
from simprompt.training.divergence import DivergedError
from simprompt.training.joint import TrainingJob
from simprompt.training.loop import train_together
from simprompt.training.state import Curves
from simprompt.utils import checkpoint as checkpoints
from simprompt.utils import signals
from simprompt.utils.checkpoint import Checkpoint

pytestmark = pytest.mark.integration

BASE = ["cat", "red fox", "zebra", "old_house"]
NOVEL = ["dog", "blue whale", "oak", "apple pear"]
PLUGS: dict[str, SAR] = {
    "sar": SAR(classes_per_step=5),
    "sar+": SARPlus(classes_per_step=5, compare_with="all", teacher="average", anchor="absolute"),
    "sar once": SARPlus(classes_per_step=5, resample="once"),
    "sar light": SARPlus(classes_per_step=3, every=2),
}
HOSTS = ("coop", "cocoop", "maple")
"""Text for all images, for each image, and an image tower that learns: what a regulariser is given
differs in nothing else."""
CASES = [
    (name, plug)
    for name in methods.names()
    if name != "zero-shot"
    for plug in (None, *PLUGS)
    if plug is None or methods.find(name).text_moves
    if plug in (None, "sar") or name in HOSTS
]
for other in sorted({*regularisers.names()} - {"sar", "sar-plus"}):
    PLUGS[other] = regularisers.find(other).Config(classes_per_step=5, regulariser=other)
    CASES.append(("coop", other))
EPOCHS, STEPS = 3, 4
FEW = ("a photo of a {}.", "art of a {}.", "a {} in a book.")


def quick(kind: type[PromptLearner], **options: Any) -> Any:
    """A method's options; a teacher of 60 templates has three, which are treated alike."""
    few = {"templates": FEW} if "templates" in kind.Config.model_fields else {}
    return kind.Config(**few, **options)


def a_run(clip: CLIP, name: str, plug: str | None, seed: int = 1, **options: Any) -> TrainingJob:
    kind = methods.find(name)
    learner = kind(clip, BASE, "a photo of a {}.", quick(kind, **options), seed=seed)
    random = torch.Generator().manual_seed(0)
    shape = (8, 2, 3, 16, 16) if learner.image_input == "pixels" else (8, 2, 24)
    images = torch.randn(shape, generator=random)
    images = images if learner.image_input == "pixels" else F.normalize(images, dim=-1)
    sar = None
    if plug:
        everyone = [*BASE, *NOVEL]
        regulariser = regularisers.build(PLUGS[plug], learner, everyone, (), seed)
        sar = regulariser, learner.prompts(everyone)
    return TrainingJob(learner, images, torch.arange(8) % 4, seed, sar)


def settings(learner: PromptLearner) -> Training:
    return Training(lr=learner.schedule.lr, epochs=EPOCHS, batch_size=2)


def outcome(runs: list[TrainingJob], curves: list[Curves]) -> list[Any]:
    """All that a training leaves but the time it took."""
    return [
        (
            {k: v.clone() for k, v in run.learner.state_dict().items()},
            [curve.loss, curve.sar, curve.lr, curve.steps],
        )
        for run, curve in zip(runs, curves, strict=True)
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(
        numbers == others
        and state.keys() == other.keys()
        and all(torch.equal(state[k], other[k]) for k in state)
        for (state, numbers), (other, others) in zip(a, b, strict=True)
    )


@pytest.fixture
def stop_after(monkeypatch) -> Callable[[int], None]:
    """Says after how many steps a signal comes, as `stopping` would note it."""

    def say(steps: int) -> None:
        left = iter(range(steps, 0, -1))
        monkeypatch.setattr(signals, "_asked", 0)

        def due(self: Checkpoint) -> bool:
            if next(left, 0) != 1:
                return False
            monkeypatch.setattr(signals, "_asked", 15)
            return True

        monkeypatch.setattr(Checkpoint, "due", due)

    return say


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch) -> Iterator[None]:
    yield
    monkeypatch.setattr(signals, "_asked", 0)


def stopped_and_taken_up(
    make: Callable[[], list[TrainingJob]],
    place: Path,
    stop_after: Callable[[int], None],
    at: list[int],
) -> list[Any]:
    """What is learned by processes each of which ends after so many steps, but the last."""
    keys = ["a key"] * len(make())
    for steps in at:
        stop_after(steps)
        runs = make()
        with pytest.raises(signals.Stopped) as stop:
            train_together(runs, settings(runs[0].learner), checkpoint=Checkpoint(place, keys))
        assert str(place) in stop.value.kept
    stop_after(1000)
    runs = make()
    course = train_together(runs, settings(runs[0].learner), checkpoint=Checkpoint(place, keys))
    return outcome(runs, course)


@pytest.mark.parametrize(("name", "plug"), CASES)
def test_every_method_goes_on_to_the_same_bits(name, plug, tiny_clip, tmp_path, stop_after):
    def make() -> list[TrainingJob]:
        return [a_run(tiny_clip, name, plug)]

    runs = make()
    whole = outcome(runs, train_together(runs, settings(runs[0].learner)))
    place = tmp_path / "a training"
    # in an epoch, at its end (the end of a step counts when it is not the last), in the last one
    assert same(whole, stopped_and_taken_up(make, place, stop_after, [2, 2, 6]))
    # all that there was to learn is in the file: nothing is left to do
    stop_after(1000)
    runs = make()
    checkpoint = Checkpoint(place, ["a key"])
    assert same(
        whole,
        outcome(runs, train_together(runs, settings(runs[0].learner), checkpoint=checkpoint)),
    )


def test_a_host_that_averages_inside_dept(tiny_clip, tmp_path, stop_after):
    def make() -> list[TrainingJob]:
        return [a_run(tiny_clip, "dept", "sar", host="promptsrc", host_options={"templates": FEW})]

    runs = make()
    assert len(runs[0].learner.averages()) == 1
    whole = outcome(runs, train_together(runs, settings(runs[0].learner)))
    assert same(whole, stopped_and_taken_up(make, tmp_path / "t", stop_after, [6]))


@pytest.mark.parametrize("plug", [None, "sar", "sar+"])
def test_runs_that_are_trained_together_go_on_together(plug, tiny_clip, tmp_path, stop_after):
    def make() -> list[TrainingJob]:
        return [a_run(tiny_clip, "coop", plug, seed) for seed in (1, 2, 3)]

    runs = make()
    whole = outcome(runs, train_together(runs, settings(runs[0].learner)))
    assert same(whole, stopped_and_taken_up(make, tmp_path / "t", stop_after, [1, 4, 2]))


def test_a_training_without_a_checkpoint_is_the_same(tiny_clip, tmp_path):
    alone, kept = a_run(tiny_clip, "promptsrc", "sar"), a_run(tiny_clip, "promptsrc", "sar")
    whole = outcome([alone], train_together([alone], settings(alone.learner)))
    checkpoint = Checkpoint(tmp_path / "t", ["k"])
    checkpoint.every = 0.0  # after every step
    course = train_together([kept], settings(kept.learner), checkpoint=checkpoint)
    assert same(whole, outcome([kept], course))


def test_a_training_that_diverges_after_it_was_taken_up_falls_back_as_one_that_was_not(
    tiny_clip, tmp_path, stop_after
):
    def diverging() -> TrainingJob:
        return a_run(tiny_clip, "coop", None)

    wild = Training(lr=1e30, epochs=EPOCHS, batch_size=2)
    whole = diverging()
    with pytest.raises(DivergedError) as straight:
        train_together([whole], wild)
    stop_after(2)
    place = tmp_path / "t"
    with pytest.raises(signals.Stopped):
        train_together([diverging()], wild, checkpoint=Checkpoint(place, ["k"]))
    stop_after(1000)
    later = diverging()
    with pytest.raises(DivergedError) as resumed:
        train_together([later], wild, checkpoint=Checkpoint(place, ["k"]))
    assert str(resumed.value) == str(straight.value)
    assert same(outcome([whole], [Curves()]), outcome([later], [Curves()]))


# --- the file -------------------------------------------------------------------------------------

STATE = {
    "tensors": {3: torch.arange(4), "half": torch.tensor([0.1], dtype=torch.bfloat16)},
    "rest": [1, 0.1, None, "text", True, [], {}, {"tensor": "0"}],
}


def test_a_state_comes_back_as_it_was(tmp_path):
    place = tmp_path / "deep" / "t.safetensors"
    kept = Checkpoint(place, ["a", "b"])
    assert kept.read() is None
    assert kept.write(STATE)
    back = Checkpoint(place, ["a", "b"]).read()
    assert back["rest"] == STATE["rest"]
    assert back["tensors"].keys() == {3, "half"}
    for name, tensor in STATE["tensors"].items():
        assert torch.equal(back["tensors"][name], tensor)
        assert back["tensors"][name].dtype == tensor.dtype
    assert checkpoints.keys_in(place) == ["a", "b"]
    kept.remove()
    assert not place.parent.exists(), "an empty folder is nobody's"


def test_below_a_url(tmp_path):
    place = f"file://{tmp_path}/runs/t"
    assert Checkpoint(place, ["a"]).write(STATE)
    assert Checkpoint(place, ["a"]).read()["rest"] == STATE["rest"]
    assert checkpoints.keys_in(place) == ["a"]
    Checkpoint(place, ["a"]).remove()
    assert checkpoints.keys_in(place) == []


def test_a_checkpoint_of_something_else_is_none(tmp_path, recwarn):
    Checkpoint(tmp_path / "t", ["a"]).write(STATE)
    assert Checkpoint(tmp_path / "t", ["b"]).read() is None
    assert Checkpoint(tmp_path / "t", ["a", "b"]).read() is None
    assert not recwarn.list


@pytest.mark.parametrize("cut", [0, 4, 30, 200, 400, -1])
def test_half_a_file_is_no_checkpoint(cut, tmp_path):
    place = tmp_path / "t"
    Checkpoint(place, ["a"]).write(STATE)
    place.write_bytes(place.read_bytes()[:cut])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        assert Checkpoint(place, ["a"]).read() is None


def test_a_flipped_bit_is_said_and_the_training_begins_anew(tmp_path):
    place = tmp_path / "t"
    Checkpoint(place, ["a"]).write(STATE)
    contents = bytearray(place.read_bytes())
    contents[-1] ^= 1
    place.write_bytes(contents)
    with pytest.warns(UserWarning, match="is damaged: the training begins anew"):
        assert Checkpoint(place, ["a"]).read() is None


def test_whichever_byte_is_damaged_no_other_state_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)
    place = tmp_path / "t"
    Checkpoint(place, ["a"]).write(STATE)
    contents, whole = place.read_bytes(), repr(Checkpoint(place, ["a"]).read())
    lost = 0
    for i in range(len(contents)):
        place.write_bytes(contents[:i] + bytes([contents[i] ^ 4]) + contents[i + 1 :])
        state = Checkpoint(place, ["a"]).read()
        lost += state is None
        assert state is None or repr(state) == whole, i
    assert lost > 0.9 * len(contents)


@pytest.mark.filterwarnings("error")
def test_where_nothing_can_be_written_the_training_goes_on_and_says_so_once(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    kept = Checkpoint(tmp_path / "file" / "t", ["a"])
    with pytest.warns(UserWarning, match="cannot be kept in .* begins anew"):
        assert not kept.write(STATE)
    assert not kept.write(STATE)  # a second warning would be an error


def test_how_often(tmp_path, monkeypatch):
    assert not Checkpoint(tmp_path, []).due()
    monkeypatch.setenv("SIMPROMPT_CHECKPOINT_EVERY", "0")
    assert Checkpoint(tmp_path, []).due()
    for wrong in ("often", "-1", "nan", "inf"):
        monkeypatch.setenv("SIMPROMPT_CHECKPOINT_EVERY", wrong)
        with pytest.raises(SimpromptError, match="SIMPROMPT_CHECKPOINT_EVERY takes a number of"):
            Checkpoint(tmp_path, [])
