"""More images and names for a saved prompt: as if it had been learned from all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import simprompt
from shell import in_process
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.prompt.added import with_images, with_names
from simprompt.prompt.prompt import Prompt
from simprompt.utils.files.atomic import checksum, write_json

CLASSES = 6


@pytest.fixture(scope="module")
def world():
    data = simprompt.load_dataset("icons/animals")
    view = replace(data, classnames=data.classnames).base
    return simprompt.load_clip("icons"), view


def part(split: Split, classes: range, names: tuple[str, ...]) -> Split:
    """The images of some classes of a split, with these names."""
    rows = [i for i, label in enumerate(split.labels) if label in classes]
    taken = split.take(rows)
    labels = tuple(names.index(taken.classnames[label]) for label in taken.labels)
    return Split(taken.items, labels, names, taken.loader)


def learned(clip, split: Split, **options) -> Prompt:
    return simprompt.learn(
        clip, split, method="images+text", sar=False, seed=1, options=options or None
    )


@pytest.fixture(scope="module")
def parts(world):
    """(the first five classes, the sixth, all of them, test images of all), four shots each."""
    _, view = world
    shots, names = view.few_shot(4, seed=1), view.classnames[:CLASSES]
    return (
        part(shots, range(CLASSES - 1), names[:-1]),
        part(shots, range(CLASSES - 1, CLASSES), names[-1:]),
        part(shots, range(CLASSES), names),
        part(view.test, range(CLASSES), names),
    )


@pytest.mark.parametrize(
    "options", [{}, {"known": "means", "share": 0.0, "ridge": None}, {"known": "text"}]
)
def test_images_that_come_later_count_as_if_they_had_been_there(world, parts, options):
    clip, _ = world
    most, last, everything, test = parts
    whole, first = learned(clip, everything, **options), learned(clip, most, **options)
    before = first.probabilities(test)
    grown = with_images(first, last)
    assert grown.learner.classnames == whole.learner.classnames
    assert (grown.probabilities(test) - whole.probabilities(test)).abs().max() < 1e-4
    assert torch.equal(first.probabilities(test), before)  # it is left as it was
    assert grown.card["shots"] == len(everything)


def test_photos_of_a_class_that_had_only_a_name_help(world, parts):
    clip, _ = world
    most, last, _, test = parts
    name = last.classnames[0]
    prompt = with_names(learned(clip, most, known="means", share=0.0, ridge=None), [name, "a dog"])
    assert prompt.classes == (*most.classnames, name, "a dog")
    grown = with_images(prompt, last)
    assert grown.classes == (*most.classnames, name, "a dog")
    assert grown.card["new_classes"] == ["a dog"]
    assert grown.accuracy(test) > prompt.accuracy(test)


def test_an_image_counts_once(world, parts):
    clip, _ = world
    most, last, _, test = parts
    prompt = learned(clip, most)
    prompt.calibrated({"temperature": 2.0, "unknown": 0.1})
    assert with_images(prompt, most) is prompt
    once = with_images(prompt, last)
    assert "calibration" not in once.card
    assert once.learner.temperature == 1.0
    twice = with_images(with_images(prompt, last), last)
    assert torch.equal(once.probabilities(test), twice.probabilities(test))


def test_it_is_saved_and_grows_again(world, parts, tmp_path):
    clip, _ = world
    most, last, _, test = parts
    learned(clip, most).save(tmp_path / "p")
    with_images(simprompt.load_prompt(tmp_path / "p", clip), last).save(tmp_path / "p")
    again = simprompt.load_prompt(tmp_path / "p", clip)
    direct = with_images(learned(clip, most), last)
    assert torch.equal(again.probabilities(test), direct.probabilities(test))
    assert with_images(again, last) is again


@pytest.mark.parametrize("damage", ["labels", "rows", "width", "kind"])
def test_images_that_do_not_fit_are_refused(damage, world, parts, tmp_path):
    clip, _ = world
    prompt = learned(clip, parts[0])
    prompt.save(tmp_path / "p")
    weights = tmp_path / "p" / "prompt.safetensors"
    state = load_file(weights)
    if damage == "labels":
        state["shot_labels"][0] = 99
    elif damage == "rows":
        state["shot_labels"] = state["shot_labels"][:-1].clone()
    elif damage == "width":
        state["shots"] = state["shots"][:, 1:].clone()
    else:
        state["shot_labels"] = state["shot_labels"].float()
    save_file(state, weights)
    write_json(
        tmp_path / "p/card.json", {**prompt.card, "checksum": checksum(weights.read_bytes())}
    )
    with pytest.raises(SimpromptError, match="does not fit"):
        simprompt.load_prompt(tmp_path / "p", clip)


def test_a_trained_prompt_takes_names_alone(world, parts):
    clip, _ = world
    prompt = simprompt.learn(clip, parts[0], method="coop", sar=False, training={"epochs": 1})
    with pytest.raises(SimpromptError, match="of the method coop, which was trained"):
        with_images(prompt, parts[1])
    more = with_names(prompt, ["wolf"])
    assert more.classes == (*parts[0].classnames, "wolf")
    assert more.learner is prompt.learner
    means = simprompt.learn(clip, parts[0], method="class-means", sar=False)
    with pytest.raises(SimpromptError, match="knows the classes it was learned on and no other"):
        with_names(means, ["wolf"])


def test_the_command(world, parts, tmp_path):
    clip, _ = world
    most, last, _, _ = parts
    learned(clip, most).save(tmp_path / "learned" / "prompt")
    name = last.classnames[0]
    for number, item in enumerate(last.items):
        file = tmp_path / "more" / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        last.loader(item).save(file)
    done = in_process(
        "add", str(tmp_path / "learned"), str(tmp_path / "more"), "--add-class", "wolf"
    )
    assert done.returncode == 0, done.stderr
    assert f"24 images now, 20 before; the first of {name}" in done.stdout
    grown = simprompt.load_prompt(tmp_path / "learned" / "prompt", clip)
    assert grown.classes == (*most.classnames, name, "wolf")
    for words, said in [
        (["add", tmp_path / "learned"], "nothing to add"),
        (["add", "hf://some/prompt", "--add-class", "x"], "say with --out"),
    ]:
        refused = in_process(*map(str, words))
        assert refused.returncode == 2
        assert said in refused.stderr
