"""Specifications, the sources that need no model and no network, and how they mix."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.novel import NovelNameError, novel_names
from simprompt.novel.names import name_key
from simprompt.novel.nouns import noun_list
from simprompt.novel.sources import SOURCES
from simprompt.novel.spec import Part, parse_spec, share

BASE = ["beagle", "boxer"]


def test_spec_reads_sources_counts_settings_and_paths():
    assert parse_spec("bundled:150+wordnet[depth=6, distance=3]:50", SOURCES) == [
        Part("bundled", 150),
        Part("wordnet", 50, {"depth": "6", "distance": "3"}),
    ]
    assert parse_spec("file:my+wordnet.txt:8+random-nouns", SOURCES) == [
        Part("file", 8, {"path": "my+wordnet.txt"}),
        Part("random-nouns"),
    ]
    assert parse_spec("file:C:/a.txt", SOURCES)[0].settings == {"path": "C:/a.txt"}


@pytest.mark.parametrize(
    "spec", ["", "chatgpt", "bundled:0", "bundled:-3", "bundled:x", "file", "file:", "wordnet[3]",
             "bundled++wordnet", "bundled+chatgpt"],
)  # fmt: skip
def test_bad_specs_say_what_is_wrong(spec):
    with pytest.raises(NovelNameError) as caught:
        parse_spec(spec, SOURCES)
    assert "rite " in str(caught.value) or "Use one of" in str(caught.value)


@pytest.mark.parametrize("spec", ["wordnet[dist=3]", "bundled[x=1]", "llm[key=abc]:5"])
def test_unknown_settings_are_refused(spec):
    with pytest.raises(NovelNameError, match="has no setting"):
        novel_names(spec, BASE, dataset="dtd")


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 300)), min_size=1, max_size=5),
    st.integers(1, 400),
)
def test_shares_add_up_and_keep_counts_that_fit(counts, n):
    shares = share([Part("bundled", count) for count in counts], n)
    counted = sum(count or 0 for count in counts)
    assert all(value >= 0 for value in shares)
    assert sum(shares) == (n if None in counts else min(n, counted))
    if counted <= n:
        assert all(s == c for s, c in zip(shares, counts, strict=True) if c is not None)


def test_random_nouns_are_seeded_and_leave_out_base_and_new():
    nouns = noun_list(minimum_count=1)
    base, new = list(nouns[:50]), list(nouns[50:100])
    first = novel_names("random-nouns", base, n=100, seed=3, new=new)
    assert first == novel_names("random-nouns", base, n=100, seed=3, new=new)
    assert first.names != novel_names("random-nouns", base, n=100, seed=4, new=new).names
    assert len(first) == 100
    assert not set(first.names) & set(base + new)
    assert set(first.overlap) <= set(new)
    assert first.provenance["seed"] == 3
    everything = novel_names("random-nouns[pool=all]", base, n=len(noun_list()), new=new)
    assert len(everything) == len({name_key(noun) for noun in noun_list()}) - 100
    assert set(everything.overlap) == set(new)


def test_noun_list_is_plain_and_unique():
    nouns = noun_list()
    assert len(nouns) > 20_000
    assert len(set(nouns)) == len(nouns)
    assert all(noun.isascii() and noun == noun.strip().lower() for noun in nouns)


def test_oracle_leaks_and_says_so():
    made = novel_names("oracle", BASE, n=5, new=["pug", "husky", "Beagle"])
    assert set(made.names) == {"pug", "husky"}
    assert made.leaks
    assert made.sees_new
    assert set(made.overlap) == {"pug", "husky"}
    with pytest.raises(NovelNameError, match="needs the real new classes"):
        novel_names("oracle", BASE)


def test_only_the_oracle_sees_the_new_classes(monkeypatch):
    seen = {}

    def spy(request):
        seen["new"] = request.new
        return SOURCES["none"](request)

    monkeypatch.setitem(SOURCES, "bundled", spy)
    novel_names("bundled+oracle", BASE, n=4, new=["pug", "husky"])
    assert seen["new"] is None


def test_none_is_an_empty_list():
    assert len(novel_names("none", BASE)) == 0


def test_file_text_and_json(tmp_path):
    text = tmp_path / "names.txt"
    text.write_text("# mine\nPug\nboxer\n\nShiba_Inu # a comment\npug\n", encoding="utf-8-sig")
    made = novel_names(f"file:{text}", BASE)
    assert made.names == ("Pug", "Shiba Inu")
    assert [item.reason for item in made.dropped] == ["is a base class", "stands in the list twice"]
    for value in (["Pug"], {"names": ["Pug"], "date": "today"}):
        path = tmp_path / "names.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        assert novel_names(f"file:{path}", BASE).names == ("Pug",)


def test_file_with_hostile_names_is_refused_by_name_or_skipped(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(
        json.dumps(["pug", "x" * 500, "../../x", "", "שלום", "a\nb", "🐶", "🐶 husky"]),
        encoding="utf-8",
    )
    with pytest.raises(NovelNameError) as caught:
        novel_names(f"file:{path}", BASE)
    message = str(caught.value)
    assert "5 names that cannot be used" in message
    assert "'../../x' looks like a path" in message
    assert "'שלום' is not in Latin letters" in message
    assert len(message) < 1500
    made = novel_names(f"file[skip=yes]:{path}", BASE)
    assert made.names == ("pug", "a b", "husky")
    assert len(made.dropped) == 5


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"caf\x81\n", "neither UTF-8 nor cp1252"),
        ("a.txt", b"\n# nothing\n", "names no classes"),
        ("a.json", b'{"names": "pug"}', "no list of names"),
        ("a.json", b'["pug"', "not JSON"),
        ("missing.txt", None, "No such file"),
    ],
)
def test_unreadable_files_are_clear_errors(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NovelNameError, match=reason):
        novel_names(f"file:{path}", BASE)


def test_mixing_keeps_shares_and_removes_repeats(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("pug\nhusky\nwolf\nfox\n", encoding="utf-8")
    made = novel_names(f"file:{path}:3+random-nouns:5", BASE, n=200)
    assert made.names[:3] == ("pug", "husky", "wolf")
    assert len(made) == 8
    assert [part["got"] for part in made.provenance["parts"]] == [3, 5]
    twice = novel_names(f"file:{path}:2+file:{path}:4", BASE)
    assert twice.names == ("pug", "husky", "wolf", "fox")


def test_nothing_left_is_an_error(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Beagle\nBOXER\n", encoding="utf-8")
    with pytest.raises(NovelNameError, match="is a base class"):
        novel_names(f"file:{path}", BASE)
