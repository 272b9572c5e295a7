"""Names out of whatever a language model writes."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.novel.parsing import message_text, parse_names

NAMES = ["Maine Coon", "crème brûlée", 'say "cheese"', "St. Bernard", "kite (bird of prey)"]


@given(st.integers(0, 400), st.booleans(), st.sampled_from([None, 1]))
def test_json_cut_anywhere_gives_a_beginning_of_the_list(cut, wrapped, indent):
    text = json.dumps({"names": NAMES} if wrapped else NAMES, indent=indent)
    got = parse_names(text[:cut])
    assert got == NAMES[: len(got)]


@given(st.integers(0, 600), st.booleans())
def test_body_cut_anywhere_gives_a_beginning_of_the_message(cut, ascii_only):
    content = json.dumps({"names": NAMES}, ensure_ascii=False)
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]},
                      ensure_ascii=ascii_only)  # fmt: skip
    got = message_text(body[:cut])
    assert content.startswith(got)
    if cut >= len(body):
        assert got == content


@given(st.text(max_size=300))
def test_nothing_makes_it_fail(text):
    assert all(isinstance(name, str) for name in parse_names(text))
    assert isinstance(message_text(text), str)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
                    max_leaves=12))  # fmt: skip
def test_no_json_makes_it_fail(value):
    assert all(isinstance(name, str) for name in parse_names(json.dumps(value)))
    assert isinstance(message_text(json.dumps(value)), str)


def test_lists_of_all_kinds():
    assert parse_names("1) cat\n2) dog") == ["cat", "dog"]
    assert parse_names("Here:\n- cat: a pet\n- **dog**\n* cow – milk\nEnjoy!") == [
        "cat",
        "dog",
        "cow",
    ]
    assert parse_names("cat, dog, and cow.") == ["cat", "dog", "cow"]
    assert parse_names("The answer is [see below].\n\n```\ncat\ndog\n```") == ["cat", "dog"]
    assert parse_names('{"data": {"classes": [{"label": "cat"}, {"label": "dog"}]}}') == [
        "cat", "dog",
    ]  # fmt: skip
    assert parse_names("As an AI, I cannot do that.") == []
    assert parse_names("- Great Dane - the tall one\n- A330-200") == ["Great Dane", "A330-200"]


HOSTILE = {
    "brackets": "{ [ " * 100_000, "nested": "[" * 100_000, "nested objects": '{"a":' * 100_000,
    "a long beginning": "[1," * 100_000, "escapes": '["a' + '\\"' * 200_000,
    "thoughts": "<think>" * 100_000, "fences": "```" * 100_000,
    "spaces": "- a" + " " * 400_000 + "b",
    "half a list": '["a", "b"' * 50_000, "digits": "1" * 500_000, "stars": "**" * 200_000,
    "lines": "a\n" * 300_000, "commas": "a, " * 300_000, "no end": '[{"name":"a"},' * 50_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_time_grows_with_the_length_alone(kind):
    """Half a second at most; a reader that begins anew at each bracket takes twenty and more."""
    text = HOSTILE[kind]
    started = time.process_time()
    parse_names(text)
    message_text(text)
    assert time.process_time() - started < 5


def test_names_deep_inside_an_answer():
    assert parse_names('{"a":' * 300 + '["x", "y"]' + "}" * 300) == ["x", "y"]
