"""Cleaning and refusing names, comparing them, and the list that holds them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.novel.names import (
    MAX_CHARACTERS,
    NovelList,
    NovelNameError,
    clean_name,
    clean_names,
    name_key,
    overlap,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Sweet_Pea", "Sweet Pea"),
        ("  a\nb\t c ", "a b c"),
        ("“quoted”", "quoted"),
        ("'**bold**'", "bold"),
        ("🐶 dog", "dog"),
        ("1️⃣ one", "1 one"),
        ("he\u202ello\u200b", "hello"),
        ("St. Bernard.", "St. Bernard"),
        ("kite (bird of prey)", "kite (bird of prey)"),
        ("baluster / handrail", "baluster / handrail"),
        ("Geoffroy's spider monkey", "Geoffroy's spider monkey"),
        ("cafe\u0301 au lait", "café au lait"),
        ("2012 Bentley Continental Supersports Conv. Convertible",) * 2,
        ("A330-200", "A330-200"),
    ],
)
def test_names_are_cleaned(raw, clean):
    assert clean_name(raw) == clean


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "no letter or digit"),
        (" \n ", "no letter or digit"),
        ("🐶🎉", "no letter or digit"),
        ("'\"'", "no letter or digit"),
        ("x" * 500, "too long"),
        ("one two three four five six seven eight nine ten eleven", "too long"),
        ("../../x", "path"),
        ("/etc/passwd", "path"),
        ("C:\\x", "path"),
        ("https://example.org/cat", "path"),
        ("שלום", "not in Latin letters"),
        ("<b>cat</b>", "markup"),
        ("a {} of", "markup"),
        ("\x00", "path"),
        (None, "not text"),
        (7, "not text"),
    ],
)
def test_names_are_refused_by_name(raw, reason):
    with pytest.raises(NovelNameError, match=reason):
        clean_name(raw)


def test_other_scripts_on_request():
    assert clean_name("犬", any_script=True) == "犬"


@given(st.text(max_size=200))
def test_cleaning_is_idempotent_and_safe(raw):
    try:
        name = clean_name(raw, any_script=True)
    except NovelNameError:
        return
    assert clean_name(name, any_script=True) == name
    assert name.isprintable()
    assert len(name) <= MAX_CHARACTERS
    assert name == name.strip()


@given(st.lists(st.text(max_size=20), max_size=20))
def test_every_name_is_kept_or_dropped_with_a_reason(raw):
    good, dropped = clean_names(raw)
    assert len(good) + len(dropped) == len(raw)
    assert len({name_key(name) for name in good}) == len(good)
    assert all(item.reason for item in dropped)


def test_key_ignores_writing_but_not_meaning():
    assert name_key("Sweet_Pea") == name_key("sweet-pea") == name_key(" SWEET  pea.")
    assert name_key("crème brûlée") == name_key("creme_brulee")
    assert name_key("glass") != name_key("glasses")
    assert overlap(["Moon Orchid", "rose"], ["moon_orchid", "lotus"]) == ["Moon Orchid"]


def test_names_that_need_too_many_tokens_are_left_out_by_name():
    good, dropped = clean_names(["cat", "axolotl"], count_tokens=len, max_tokens=5)
    assert good == ["cat"]
    assert dropped[0].name == "axolotl"
    assert "7 tokens" in dropped[0].reason


def test_list_is_stored_whole_and_read_back(tmp_path):
    made = NovelList(("lynx", "café"), "file", {"file": "a.txt"}, requested=3, overlap=("ox",))
    made.save(tmp_path / "sub" / "list.json")
    value = json.loads((tmp_path / "sub" / "list.json").read_text(encoding="utf-8"))
    assert NovelList.from_json(value) == made
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["list.json"]
    value["names"].append("puma")
    with pytest.raises(NovelNameError, match="changed after it was stored"):
        NovelList.from_json(value)
