"""Which class names a method's prompt has room for; SAR does without those that do not fit."""

from __future__ import annotations

import pytest
import torch

import simprompt
from simprompt import methods
from simprompt.clip.hub import load_clip
from simprompt.errors import SimpromptError
from simprompt.novel.sources import novel_names

MOVING = [name for name in methods.names() if methods.find(name).text_moves]
SHORT = [{"n_ctx": 4, "position": "middle"}, {"n_ctx": 4, "class_specific": True}]


@pytest.fixture(scope="module")
def clip():
    return load_clip("icons")


@pytest.mark.parametrize(
    ("method", "options"),
    [*((name, {}) for name in MOVING), *(("coop", options) for options in SHORT)],
)
def test_the_longest_name_that_fits_is_encoded_and_the_next_is_refused(clip, method, options):
    """What `fits` says is what the text tower does."""
    kind = methods.find(method)
    learner = kind(clip, ["cat", "dog"], "an icon of a {}.", kind.Config(**options), 1)
    names = [" ".join(["cat"] * count) for count in range(1, 25)]
    longest = sum(map(learner.fits, names))
    assert 0 < longest < len(names)

    def encode(name: str) -> None:
        prompts = learner.prompts([name])
        if learner.conditional:
            learner.conditional_text(prompts, torch.zeros(1, clip.embed_dim))
        else:
            learner.text_features(prompts)
        learner.teacher([name])

    with torch.no_grad():
        encode(names[longest - 1])
        with pytest.raises(SimpromptError, match=r"takes \d+ tokens|longer"):
            encode(names[longest])


def test_novel_names_that_do_not_fit_are_left_out_with_their_number(clip):
    """ProGrad's published 16 tokens leave 7 of the 24 to a name with its full stop."""
    data = simprompt.load_dataset("icons/animals")
    long = ["short", "cat of many very long words indeed"]
    prompt = simprompt.learn(
        clip, data.base.few_shot(1), "prograd", sar=True, recipe="published", novel=long,
        training={"max_steps": 1}, progress=False,
    )  # fmt: skip
    assert prompt.novel.names == ("short",)
    assert prompt.card["novel"] == ["short"]
    assert prompt.novel.left_out_as_too_long.startswith("1 novel names were left out")


def test_a_source_makes_up_for_names_that_do_not_fit(clip):
    """`limit` counts the names that are left."""
    made = novel_names(
        "random-nouns", ["cat"], n=30, count_tokens=lambda name: 2 * len(name.split()),
        max_tokens=2,
    )  # fmt: skip
    assert len(made) == 30
    assert not any(" " in name for name in made.names)


def test_real_new_classes_are_never_left_out(clip):
    """A prompt that cannot take them is of no use: the training says so."""
    data = simprompt.load_dataset("icons/animals")
    new = data.new.classnames
    shots = data.base.few_shot(1)
    with pytest.raises(SimpromptError, match="Shorten the name"):
        simprompt.learn(
            clip, shots, "prograd", sar=True, options={"n_ctx": 20}, novel=[*new, "cat"],
            training={"max_steps": 1}, progress=False,
        )  # fmt: skip
