"""Folders and labels as words, and which of them are one class."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.clip.same_text import canonical_text, repeated
from simprompt.data.names import classes, clean_name, counted, nothing_said, says_nothing
from simprompt.data.split import DatasetError

WORDS = {
    "Golden_Retriever": "golden retriever", "goldenRetriever": "golden retriever",
    "StatueOfLiberty": "statue of liberty", "USBStick": "USB stick", "caféAuLait": "café au lait",
    "iPhone": "iPhone", "WiFi": "WiFi", "McDonalds": "McDonalds", "eBay": "eBay",
    "MacBook": "MacBook", "MacBookPro": "MacBookPro", "GoPro": "GoPro", "LaTeX": "LaTeX",
    "YouTube": "YouTube", "BMW": "BMW", "O'Neill": "O'Neill", "T-shirt": "t shirt",
    "boeing-737": "boeing-737", "737-800": "737-800", "sea-lion": "sea lion",
    "001.Black_footed_Albatross": "black footed albatross", "07_cat": "cat", "1. dog": "dog",
    "n02085620-Chihuahua": "chihuahua", "n02084071": "n02084071", "2012_Bentley": "2012 bentley",
    "3D_printer": "3D printer", "12th_Street": "12th street", "0001": "0001",
    "cat\u200b": "cat", "\ufeffcat": "cat", "c\u00adat": "cat", "cafe\u0301": "café",
}  # fmt: skip


@pytest.mark.parametrize(("raw", "words"), WORDS.items())
def test_folders_become_words(raw, words):
    assert clean_name(raw) == words


@given(st.text(st.sampled_from("aB é-_.1"), max_size=10))
def test_cleaning_changes_nothing_twice(raw):
    """A name that was cleaned has no blanks to take away, and its letters stay."""
    name = clean_name(raw)
    assert name == " ".join(name.split())
    letters = [c for c in canonical_text(name) if c.isalpha()]
    assert letters == [c for c in canonical_text(raw) if c.isalpha()]


@pytest.mark.parametrize(
    "name",
    ["0", "10", "1.5", "n02084071", "class 3", "label 7", "category-2", "c0", "A", "class b",
     "new folder (2)", "d41d8cd98f00b204", "550e8400-e29b-41d4-a716-446655440000"],
)  # fmt: skip
def test_names_that_say_nothing(name):
    assert says_nothing(name)


@pytest.mark.parametrize(
    "name", ["cat", "dog 10", "boeing 747", "737-800", "facade", "犬", "iPhone", "target", "BMW"]
)
def test_names_that_say_something(name):
    assert not says_nothing(name)


def test_the_warning_names_a_few_and_the_remedy():
    assert nothing_said([]) == []
    (sentence,) = nothing_said([str(i) for i in range(10)])
    assert sentence == (
        "10 class names say nothing to CLIP, which learns from words: 0, 1, 2, 3, 4, 5, .... Give "
        "words with --rename FILE, lines such as `0 = cat`."
    )


def test_numbers_that_count_the_classes_go():
    assert counted(["1_circle", "2_square", "3 star"])
    assert classes(["1_circle", "2_square"]).names == ("circle", "square")
    for names in (["737-MAX", "747-jumbo"], ["3-toed sloth", "2-toed sloth"], ["1_cat", "dog"],
                  ["1_cat", "1_dog"], ["7_up"]):  # fmt: skip
        assert not counted(names)


names = st.lists(
    st.sampled_from(["cat", "Cat", "cat\u200b", "dog", "sea lion", "sea_lion", "fox", "0"]),
    unique=True, min_size=1,
)  # fmt: skip


@given(names, st.dictionaries(st.sampled_from(["cat", "Cat", "dog", "fox"]),
                              st.sampled_from(["dog", "Fox", "red panda"])))  # fmt: skip
def test_classes_are_texts_of_their_own_or_refused(tmp_path_factory, raw, given):
    """Folders are one class if the file says so, at most one of them unsaid; else one text is an
    error. The model knows text by lower case alone, as do these names."""
    given = {key: value for key, value in given.items() if key in raw}
    file = tmp_path_factory.getbasetemp() / "names.txt"
    file.write_text("".join(f"{k} = {v}\n" for k, v in given.items()), encoding="utf-8")
    raw = sorted(raw)
    text = {r: given.get(r, r).lower().replace("_", " ").replace("\u200b", "") for r in raw}
    groups = {t: [r for r in raw if text[r] == t] for t in text.values()}
    if any(len([r for r in own if r not in given]) > 1 for own in groups.values()):
        with pytest.raises(DatasetError, match=r"(both|all) called .*--rename"):
            classes(raw, file)
        return
    made = classes(raw, file)
    assert {t: {made.of[r] for r in own} for t, own in groups.items()} == {
        t: {made.of[own[0]]} for t, own in groups.items()
    }
    assert len(set(made.of.values())) == len(made.names) == len(groups)
    assert not repeated(made.names)
    assert [made.names[made.of[r]] for r in raw if r in given] == [
        made.names[made.of[r]] if len(groups[text[r]]) > 1 else given[r] for r in raw if r in given
    ]
    assert len(made.notes) == sum(len(own) > 1 for own in groups.values())


def test_an_override_finds_a_folder_in_either_form_of_unicode(tmp_path):
    apart = unicodedata.normalize("NFD", "café")
    (tmp_path / "names.txt").write_text("café = coffee house\n", encoding="utf-8")
    assert classes([apart, "pub"], tmp_path / "names.txt").names == ("coffee house", "pub")
