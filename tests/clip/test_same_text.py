"""Which names are one text for CLIP: the normal form against tokenizers, and who refuses twins."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt.clip.catalogue import EMBEDDED
from simprompt.clip.same_text import (
    LONGEST_NAME,
    canonical_text,
    check_apart,
    class_names,
    join_names,
    prompt_text,
    repeated,
    unread,
    unread_warning,
    visible,
)
from simprompt.clip.tokenizer import BundledTokenizer, Tokenizer, clean
from simprompt.config import SAR
from simprompt.data.split import Origin, Split
from simprompt.errors import SimpromptError
from simprompt.novel.names import IS_BASE, TWICE, name_key
from simprompt.novel.run_names import names_of_run
from simprompt.prompt.learn import learn, prepare
from simprompt.prompt.sklearn import PromptClassifier

UNSEEN = "\u200b\u00ad\ufeff\u200e\u200f\u2060\ufe0f\u202a\u2069"
ICONS = Tokenizer(Path(str(EMBEDDED["icons"].folder)) / "tokenizer.json")


@cache
def tokenizers() -> list[Tokenizer]:
    try:
        return [ICONS, BundledTokenizer()]
    except ImportError:
        return [ICONS]


@st.composite
def twins(draw) -> tuple[str, str]:
    """A name, and another way to write it."""
    name = draw(st.text(st.sampled_from("abcz éüß0 7&-'"), min_size=1, max_size=8))
    other = name
    for way in sorted(draw(st.sets(st.integers(0, 6)))):  # entities after case
        other = [
            str.upper if "ß" not in other else str, str.title if "ß" not in other else str,
            lambda t: unicodedata.normalize("NFD", t), lambda t: t.replace(" ", "_"),
            lambda t: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in t),
            lambda t: t.replace("&", "&amp;") if "&amp;" not in t else t,
            lambda t: draw(st.sampled_from(UNSEEN)).join(t),
        ][way](other)  # fmt: skip
    return name, other


@settings(max_examples=300)
@given(twins())
def test_other_ways_to_write_a_name_are_found(pair):
    """The normal form knows no tokenizer, and they all agree with it."""
    name, other = pair
    assert canonical_text(name) == canonical_text(other)
    assert name_key(name) == name_key(other)
    for tokenizer in tokenizers():
        assert tokenizer.encode(prompt_text(name)) == tokenizer.encode(prompt_text(other))


@settings(max_examples=300)
@given(st.text(st.characters(max_codepoint=126), max_size=20))
def test_the_short_way_for_plain_letters_is_the_long_one(text):
    assert canonical_text(text) == " ".join(visible(clean(prompt_text(text))).split())


def test_what_is_seen_stays():
    for name in ("golden retriever", "café", "犬", "كلب", "می\u200cخواهم", "😀"):
        assert visible(name) == name
    assert canonical_text("AT&T") != canonical_text("ATT")
    assert canonical_text("glass") != canonical_text("glasses")


def test_a_tokenizer_may_know_fewer_differences():
    """That of the icon CLIP has no digits."""
    names = ["boeing 737", "boeing 747", "cat"]
    assert repeated(names) == []
    assert repeated(names, ICONS) == [[0, 1]]
    with pytest.raises(
        SimpromptError, match=r"'boeing 737' and 'boeing 747' are one text .*--rename"
    ):
        check_apart(names, ICONS)
    with pytest.raises(SimpromptError, match=r"'7' is no text for this model.*--rename"):
        check_apart(["7", "cat"], ICONS)


def test_what_a_tokenizer_does_not_know_is_said():
    """ "737-MAX" was learned as "max" without a word."""
    names = ["737-MAX", "cat", "T-shirt", "O'Neill", "café", "c++", "naïve cat", "7"]
    assert dict(unread(names, ICONS)) == {
        "737-MAX": "max", "café": "caf", "naïve cat": "na ve cat", "7": ""
    } | dict(unread(["c++"], ICONS))  # fmt: skip
    (sentence,) = unread_warning(names, ICONS)
    assert "'737-MAX' is read as 'max'" in sentence
    assert unread_warning(["cat", "T-shirt"], ICONS) == []
    for tokenizer in tokenizers()[1:]:  # OpenAI's knows all
        assert unread([*names, "犬", "🦊", "½"], tokenizer) == []


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab z0189-+#éè犬"), min_size=1, max_size=6))
def test_names_that_differ_in_what_is_lost_are_one_text(name):
    """What `unread` says is lost may be another sign of its kind, and no token changes."""
    lost = {
        sign
        for _, rest in unread([name], ICONS)
        for sign in canonical_text(name)
        if sign not in rest
    }
    for sign in lost & {*"0123456789"}:
        other = canonical_text(name).replace(sign, "5")
        assert ICONS.encode(canonical_text(name)) == ICONS.encode(other)
    for sign in {*"0123456789"} & {*name}:
        assert sign in lost, "the icon CLIP knows no digit"


@pytest.mark.parametrize(
    ("names", "said"),
    [("zebra", "names has to be a list"), (b"zebra", "has to be a list"), (7, "has to be a list"),
     ({"zebra"}, "has to be a list"), ({"zebra": 1}, "has to be a list"), ([], "names is empty"),
     (["a", "\u200b_"], r"names\[1\] has to be"),
     (["a" * (LONGEST_NAME + 1)], "1,001 characters"), ([None], r"names\[0\] has to be")],
)  # fmt: skip
def test_what_is_no_list_of_names(names, said):
    with pytest.raises(SimpromptError, match=said):
        class_names(names, "names")


def callers(clip, place: Path):
    """Every public function that takes a list of names, with the argument left open."""
    from simprompt.data.own_images import folder
    from simprompt.deploy.export.write import export
    from simprompt.novel.run_names import filled_up
    from simprompt.novel.sources import novel_names
    from simprompt.report.explain import explanation

    prompt = learn(clip, shots("fox", "owl"), "zero-shot")
    for name in ("fox", "owl"):
        (place / name).mkdir()
        for i in range(3):
            Image.new("RGB", (9, 9), (60 * i, 0, 0)).save(place / name / f"{i}.png")
    image = Image.new("RGB", (9, 9))
    fit = PromptClassifier(clip, sar=False).fit([image] * 2, ["fox", "owl"])
    return {
        "learn, novel": lambda x: learn(clip, shots("fox", "owl"), sar=True, novel=x),
        "learn, classnames": lambda x: learn(clip, shots(*x), "zero-shot"),
        "predict": lambda x: prompt.predict(image, x),
        "stream": lambda x: list(prompt.stream([image], x)),
        "probabilities": lambda x: prompt.probabilities(shots("fox"), x),
        "text_features": prompt.text_features,
        "classifier": prompt.classifier,
        "add_classes": fit.add_classes,
        "new_classes": lambda x: PromptClassifier(clip, sar=False, new_classes=x).fit(
            [image] * 2, ["fox", "owl"]
        ),
        "folder.load": lambda x: folder.load(place, new_classes=x),
        "names_of_run": lambda x: names_of_run(SAR(), clip, ["fox"], None, given=x),
        "filled_up": lambda x: filled_up(x, SAR(), clip, ["fox"], None),
        "novel_names, base": lambda x: novel_names("random-nouns:3", x),
        "novel_names, new": lambda x: novel_names("random-nouns:3", ["a"], new=x),
        "novel_names, hidden": lambda x: novel_names("random-nouns:3", ["a"], hidden=x),
        "export": lambda x: export(prompt, place / "out", "head", x),
        "explanation": lambda x: explanation(prompt, x),
    }


def test_a_text_a_set_or_an_endless_name_is_no_list_of_names_anywhere(tiny_clip, tmp_path):
    for what, call in callers(tiny_clip, tmp_path).items():
        for names in ("zebra", {"zebra", "wolf"}, ["wolf", None], ["wolf", "x" * 1_000_000]):
            if what == "learn, classnames" and not isinstance(names, list):
                continue  # the test's own split takes them apart
            with pytest.raises(SimpromptError, match=r"list of names|class name") as refused:
                call(names)
            assert len(str(refused.value)) < 400, what


def test_names_that_look_alike_are_told_apart_in_messages():
    assert join_names(["US", "us"]) == "'US' and 'us'"
    assert join_names(["cafe\u0301", "café"]) == r"'cafe\u0301' and 'caf\xe9'"
    assert join_names([str(i) for i in range(9)]) == "'0', '1', '2', '3', '4' and 4 more"


# ---- everybody who takes names


def shots(*names: str, dataset: str = "own/photos") -> Split:
    items = tuple(f"{i}" for i in range(2 * len(names)))
    labels = tuple(i // 2 for i in range(len(items)))
    origin = Origin(dataset, "1", ("a {}.",))
    return Split(items, labels, names, lambda _: Image.new("RGB", (9, 9)), origin=origin)


PAIRS = [("cat", "Cat"), ("sea_lion", "sea lion"), ("café", "cafe\u0301"), ("a&b", "a&amp;b"),
         ("dog", "ｄｏｇ"), ("cat", "cat\u200b")]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_classes_that_are_one_text_are_refused_in_python(tiny_clip, pair):
    with pytest.raises(SimpromptError, match=r"are one text .* joined with --rename"):
        learn(tiny_clip, shots(*pair, "fox"), "zero-shot")
    prompt = learn(tiny_clip, shots("fox", "owl"), "zero-shot")
    image = Image.new("RGB", (9, 9))
    with pytest.raises(SimpromptError, match="are one text"):
        prompt.predict(image, [*pair, "fox"])
    with pytest.raises(SimpromptError, match="are one text"):
        prompt.probabilities(shots("fox"), [*pair, "fox"])
    with pytest.raises(SimpromptError, match="are one text"):
        PromptClassifier(tiny_clip, sar=False).fit([image] * 4, [pair[0], pair[1]] * 2)


def test_what_nobody_sees_is_no_token(tiny_clip):
    prompt = learn(tiny_clip, shots("fox", "owl"), "zero-shot")
    assert prompt.learner.prompts(["d\u200bog\ufeff"]).ids == prompt.learner.prompts(["dog"]).ids
    assert torch.equal(prompt.text_features(["d\u200bog"]), prompt.text_features(["dog"]))


def test_imagenet_holds_two_names_twice(tiny_clip):
    """As its authors and CoOp have it; runs on it are not refused."""
    split = shots("missile", "sunglasses", "missile", dataset="imagenet")
    ready = prepare(tiny_clip, split, "zero-shot")
    assert ready.card["classnames"] == ["missile", "sunglasses", "missile"]


def test_given_novel_names_that_are_classes_are_left_out_and_said(tiny_clip):
    given = ["CAT\u200b", "wolf", "Ｗolf", "bird"]
    made = names_of_run(SAR(), tiny_clip, ["cat", "dog"], None, given=given)
    assert made.names == ("wolf", "bird")
    assert [(one.name, one.reason) for one in made.dropped] == [
        ("CAT\u200b", IS_BASE), ("Ｗolf", TWICE)
    ]  # fmt: skip
    prompt = learn(
        tiny_clip, shots("cat", "dog"), sar=SAR(weight=0.1, classes_per_step=2), novel=given,
        training={"epochs": 1},
    )  # fmt: skip
    assert prompt.card["novel"] == ["wolf", "bird"]
    assert prompt.card["novel_provenance"]["left_out"] == [["CAT\u200b", IS_BASE], ["Ｗolf", TWICE]]
