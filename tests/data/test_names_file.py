"""A file of names, as people write one: read, or refused with the line."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.data.names import overrides, read_names
from simprompt.data.names_file import names_in
from simprompt.data.split import DatasetError
from simprompt.errors import SimpromptError
from simprompt.novel.sources import read_file

THREE = ["circle", "red square", "étoile"]

FORMS = {
    "lines": "circle\nred square\nétoile\n",
    "comments": "# mine\n\n  circle  # round\n\t# more\nred square #four sides\n\nétoile",
    "old Mac": "circle\rred square\rétoile\r",
    "quotes": '"circle"\n\'red square\'\n"étoile"',
    "pasted": '"circle",\n"red square",\n"étoile"\n',
    "commas behind": "circle,\nred square,\nétoile,\n",
    "bullets": "- circle\n- red square\n- étoile\n",
    "YAML": "names:\n  - circle\n  - red square\n  - étoile\n",
    "YOLO": "names:\n  0: circle\n  1: red square\n  2: étoile\n",
    "numbered": "0:circle\n1:red square\n2:étoile",
    "numbered, a blank": "1 circle\n2 red square\n3 étoile",
    "numbered, full stops": "1. circle\n2. red square\n3. étoile",
    "numbered, commas": "0,circle\n1,red square\n2,étoile",
    "header": "name\ncircle\nred square\nétoile",
    "table": "id,class_name\n0,circle\n1,red square\n2,étoile",
    "table of tabs": "label\tcount\ncircle\t1\nred square\t2\nétoile\t3",
    "table of semicolons": 'count;"name"\n1;circle\n2;"red square"\n3;étoile',
    "JSON": json.dumps(THREE),
    "JSON in lines": json.dumps(THREE, indent=1),
    "JSON object": json.dumps({"names": THREE}),
    "JSON by number": json.dumps({"2": "étoile", "0": "circle", "1": "red square"}),
    "JSON numbers": json.dumps({"étoile": 2, "circle": 0, "red square": 1}),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252")


@pytest.mark.filterwarnings("ignore:.*(cp1252|header)")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_by_every_reader(tmp_path, form, encoding):
    for ending in ("\n", "\r\n"):
        path = tmp_path / "names.txt"
        path.write_bytes(FORMS[form].replace("\n", ending).encode(encoding))
        assert names_in(path) == read_names(path) == read_file(path) == THREE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("circle, square, star", "line 1: 'circle, square, star' is the only line"),
        ("# mine\n\nround; square", "line 3: 'round; square' is the only line"),
        ("a\tb", "line 1: 'a\\\\tb' is the only line"),
        ("[circle, square]", r"line 1: '\[circle, square\]'"),
        ("['circle', 'square']", r"line 1: \"\['circle', 'square'\]\""),
        ('[\n"circle",\n"square"', r"line 3: '\"square\"'"),
        ('["circle", 3]', "entry 2 is 3"),
        ('["circle", null]', "entry 2 is None"),
        ('{"circle": [1]}', "no list of names"),
        ("circle, square,\nstar, moon", "line 1: 'circle, square,' ends with a comma"),
        ("cat\ndog\t3\nfox", "line 2: 'dog\\\\t3' holds a tab"),
        ("id,name\n0,cat\n1,dog,small", "line 3: '1,dog,small' has 3 values"),
        ("cat\n" + 2000 * "x", "line 2 has 2,000 characters"),
        ("cat\n" + 1_000_000 * "x", "line 2 has 1,000,000 characters"),
        ("cat\n_\ndog", "line 2 has to be a class name"),
        ("cat\nd\x07og", "line 2 holds the control character"),
        ("# nothing\n\n", "names no classes"),
        ("[]", "no list of names"),
    ],
)
def test_what_may_be_two_things_is_refused_with_the_line(tmp_path, text, line):
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    for reader in (names_in, read_names):
        with pytest.raises(SimpromptError, match=line):
            reader(path)


def test_a_file_that_is_none_is_said(tmp_path):
    with pytest.raises(SimpromptError, match=r"cannot be read: No such file"):
        names_in(tmp_path / "none.txt")
    with pytest.raises(SimpromptError, match="a directory, not a file"):
        names_in(tmp_path)
    (tmp_path / "odd.txt").write_bytes(b"cat\nd\x81g\n")
    with pytest.raises(SimpromptError, match=r"line 2: neither UTF-8 nor cp1252"):
        names_in(tmp_path / "odd.txt")
    (tmp_path / "big.txt").write_bytes(b"a\n" * (9 << 20))
    with pytest.raises(SimpromptError, match="at most 16,777,216 are read"):
        names_in(tmp_path / "big.txt")


@pytest.mark.parametrize(
    "names",
    [["dog, small", "dog, large"], ["737 MAX", "747 jumbo"], ["room #5", "c#"], ["Smith: a", "b"],
     ["tench, Tinca tinca", "white shark, man-eater, man-eating shark"], ["dog, small"]],
)  # fmt: skip
def test_a_name_may_hold_what_elsewhere_separates(tmp_path, names):
    path = tmp_path / "names.txt"
    quoted = [f'"{name}"' for name in names] if len(names) == 1 else names
    path.write_text("\n".join(quoted), encoding="utf-8")
    assert names_in(path) == names


def test_what_was_guessed_is_said(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("label\ncat\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="line 1 was read as a header"):
        assert names_in(path) == ["cat"]
    path.write_text('"label"\ncat\n', encoding="utf-8")
    assert names_in(path) == ["label", "cat"]
    path.write_bytes("café\n".encode("cp1252"))
    with pytest.warns(UserWarning, match="read as cp1252"):
        assert names_in(path) == ["café"]


@pytest.mark.filterwarnings("ignore")
@given(st.one_of(st.binary(max_size=60), st.text("ab01 ,;:#\"'[]{}\t\n-", max_size=40)))
def test_any_file_is_names_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        names = names_in(path)
    except SimpromptError:
        return
    assert names
    assert all(isinstance(name, str) and name.strip() for name in names)


def test_other_names_of_folders_come_in_the_same_encodings(tmp_path):
    path = tmp_path / "names.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes("# mine\n\na = étoile\r\nb = red square\n".encode(encoding))
        assert overrides(path) == {"a": "étoile", "b": "red square"}
    for text, reason in (
        ("a = x\nb: y", "line 2, 'b: y', has no equals sign"),
        ("a = x\na = y", "line 2, 'a = y', renames 'a' once more"),
        ('{"a": null}', "the name of 'a' is None"), ("a =", "has to be a class name"),
    ):  # fmt: skip
        path.write_text(text, encoding="utf-8")
        with pytest.raises((DatasetError, SimpromptError), match=re.escape(reason)):
            overrides(path)
