"""A class is found by its text: another case, blank or unseen character is the same class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import all_known, canonical_text, match_names, new_names, unique_names
from simprompt.config import parse
from simprompt.deploy.engine import Engine, ServedPrompt
from simprompt.prompt.prompt import Prompt
from simprompt.report.explain import explanation

CLASSES = ("apple", "palm tree", "red car")
SPELLINGS = ("Apple", "Palm_Tree", "RED\u200b\u3000car")


def prompt_of(clip: CLIP, method: str, options: dict | None = None) -> Prompt:
    """A prompt as if it were learned: all parameters are moved a little."""
    kind = methods.find(method)
    learner = kind(clip, CLASSES, "a photo of a {}.", parse(kind.Config, options or {}, method), 1)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in (*learner.parameters(), *learner.buffers()):
            if value.is_floating_point():
                value.add_(0.1 * torch.randn_like(value))
    return Prompt(learner, {"method": method})


@pytest.mark.parametrize(
    ("method", "options"),
    [*((name, {}) for name in methods.names()), ("coop", {"class_specific": True}),
     ("dept", {"host": "coop", "host_options": {"class_specific": True}})],
)  # fmt: skip
def test_every_method_answers_alike_for_every_spelling(tiny_clip, method, options):
    prompt = prompt_of(tiny_clip, method, options)
    pixels = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = prompt.taken(pixels)
    for order in ([0, 1, 2], [2, 0, 1]):
        expected = prompt.classifier([CLASSES[i] for i in order])(images)
        answers = prompt.classifier([SPELLINGS[i] for i in order])(images)
        assert (answers - expected).abs().max() < 1e-5
    one = prompt.classifier(["RED CAR", "apple"])(images)
    expected = prompt.classifier(["red car", "apple"])(images)
    assert (one - expected).abs().max() < 1e-5


def test_a_class_of_another_spelling_is_no_new_one(tiny_clip):
    prompt = prompt_of(tiny_clip, "linear-probe")
    prompt.card["new_classes"] = ["Apple", "zebra", "palm_tree", "Zebra"]
    assert prompt.classes == (*CLASSES, "zebra")
    assert ServedPrompt("probe", prompt).answers(SPELLINGS)
    assert not ServedPrompt("probe", prompt).answers(("apple", "zebra"))
    assert Engine([prompt, prompt]).names == (*CLASSES, "zebra")
    assert explanation(prompt_of(tiny_clip, "coop"), SPELLINGS).names == SPELLINGS


names = st.lists(
    st.sampled_from(["cat", "Cat", "ＣＡＴ", "sea_lion", "sea lion", "dog", "a&amp;b"])
)


@given(names, names)
def test_the_matcher_is_the_comparison_of_texts(wanted, known):
    """Against the slow way: all pairs."""
    texts = [canonical_text(name) for name in known]
    matches = match_names(wanted, known)
    for name, index in zip(wanted, matches, strict=True):
        assert (index is None) == (canonical_text(name) not in texts)
        assert index is None or texts[index] == canonical_text(name)
    assert all_known(wanted, known) == {*map(canonical_text, wanted)}.issubset(texts)
    assert match_names(known, known) == [*range(len(known))]
    assert match_names([name.upper() for name in known if "&" not in name],
                       [name for name in known if "&" not in name]) == [
        *range(len([name for name in known if "&" not in name]))
    ]  # fmt: skip
    unique = unique_names([*known, *wanted])
    assert len({*map(canonical_text, unique)}) == len(unique)
    assert {*map(canonical_text, unique)} == {*map(canonical_text, (*known, *wanted))}
    assert new_names(wanted, known) == tuple(n for n in wanted if canonical_text(n) not in texts)
