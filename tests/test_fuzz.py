"""Every input that a reader once failed on is refused now, and so is a sample of broken ones."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import damaged
from fuzz import CORPUS, place, smaller, verdict
from readers import READERS, Reader, below, by_name
from simprompt.errors import LONGEST, SimpromptError

pytestmark = pytest.mark.integration

KEPT = sorted(CORPUS.glob("*/*"))
NAMES = {reader.name.replace(" ", "-"): reader for reader in READERS}


def outcome(reader: Reader, files: dict[str, bytes], folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong, where, _ = verdict(reader, files, folder)
    # time and memory are those of everything that the suite does beside this
    return "" if wrong in ("", "refused", "slow", "memory") else f"{wrong} at {where}"


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_failed_is_refused(kept, tmp_path):
    assert outcome(NAMES[kept.parent.name], below(kept), tmp_path / "input") == ""


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_right_inputs_and_broken_ones(reader, tmp_path):
    seeds = reader.seeds()
    if not seeds:
        pytest.skip("needs a library that is not installed")
    for files in seeds:
        assert outcome(reader, files, tmp_path / "input") == ""
    for number in range(40):
        rng = random.Random(number)
        files = reader.input(seeds, rng)
        assert outcome(reader, files, tmp_path / "input") == "", number


TEXTS = [r for r in READERS if r.name.startswith("--") or r.name.isupper()]


@pytest.mark.parametrize("reader", TEXTS, ids=lambda reader: reader.name)
def test_an_argument_of_any_characters(reader, tmp_path):
    @settings(max_examples=60)
    @given(st.text(st.characters(), max_size=60) | st.from_regex(r"[a-z.]{1,9}=[^\n]{0,9}"))
    def holds(text: str) -> None:
        files = {"text": text.encode(errors="surrogatepass")}
        assert outcome(reader, files, tmp_path / "input") == ""

    holds()


def test_other_errors_are_faults_and_are_made_small(tmp_path):
    """The fuzzer would notice."""

    def read(folder: Path) -> None:
        contents = (folder / "a").read_bytes()
        if b"!" in contents:
            raise KeyError("!")
        if b"?" in contents:
            raise SimpromptError("")

    reader = Reader("test", lambda: [{"a": b"."}], read)
    files = {"a": b"1234567!89" * 3, "b": b"more"}
    wrong, where, _ = verdict(reader, files, tmp_path)
    assert wrong.startswith("KeyError")
    assert where.startswith("test_fuzz.py")

    def fails(one: dict[str, bytes]) -> bool:
        return verdict(reader, one, tmp_path)[0] == wrong

    assert smaller(files, fails) == {"a": b"!"}
    assert verdict(reader, {"a": b"?"}, tmp_path)[0] == "a message of 0 characters"
    assert verdict(reader, {"a": b"."}, tmp_path)[0] in ("", "memory")


def test_a_message_of_any_length_keeps_its_beginning_and_its_end():
    said = str(SimpromptError(f"The file {'x' * 10_000} is wrong. Write it anew."))
    assert len(said) < LONGEST + 50
    assert said.startswith("The file xxx")
    assert said.endswith("Write it anew.")
    assert "characters ...]" in said
    assert str(SimpromptError("Short.")) == "Short."


def test_the_same_generator_makes_the_same_changes():
    files = {"a.json": b'{"a": [1, 2, {"b": "c"}]}', "b.txt": b"some words\nand lines\n"}
    made = [damaged(files, random.Random(i)) for i in range(300)]
    assert made == [damaged(files, random.Random(i)) for i in range(300)]
    assert sum(one != files for one in made) > 250


def test_names_of_readers_are_apart():
    assert len(by_name()) == len(READERS) == len(NAMES)
    assert {path.parent.name for path in KEPT} <= set(NAMES)


def test_an_input_is_written_into_an_empty_folder(tmp_path):
    place({"a/b": b"1", "c": b"2"}, tmp_path / "x")
    place({"d": b"3"}, tmp_path / "x")
    assert below(tmp_path / "x") == {"d": b"3"}
