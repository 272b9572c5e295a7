"""Random tables: what `folder.load` makes of them, against a plain model of the rules.

A table is drawn as rows that mean something, then written in one of the many ways of people; the
model knows the rows, the reader only the file. Ten thousand tables:

    python -m pytest -m slow tests/data/test_random_tables.py
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt.data.own_images import folder
from simprompt.data.split import DatasetError

SINGLE = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/02.png", "images/0001.png")
FILES = (*SINGLE, "images/twice.png", "images/twice.jpg", "train/a.png", "test/a.png")
GONE, NOTES, NOWHERE = "gone.png", "notes.txt", ""
WAYS = ("plain", "back", "dot", "absolute", "windows", "stem", "upper", "bare")
WORDS = (
    "cat",
    "dog",
    "Cat",
    "sea lion",
    "Größe",
    "big, cat",
    'q"x',
    "two\nlines",
    "a;b",
    "nan",
    "",
)
NUMBERS = ("1", "2.0", "3.", "-1", "")
SPLITS = {"train": "train", "Training": "train", "TEST": "test", "val": "val", "dev": "val"}
HEADERS = (
    ("path", "label", "split"), ("File Name", "CLASS", "set"), ("image_path", "species", "Subset"),
    ("img", "target", "partition"),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """What a row means: a file, the way its path is written, a label, a split."""

    file: str
    way: str
    label: str
    split: str


@dataclass(frozen=True)
class Table:
    lines: tuple[Line, ...]
    header: tuple[str, str, str]
    with_split: bool
    delimiter: str
    encoding: str
    newline: str
    blank: str
    ragged: int | None  # the row that has a value too many
    empty: int | None  # an empty line stands before this row


@st.composite
def tables(draw) -> Table:
    words = draw(st.sampled_from((WORDS[:2], WORDS, NUMBERS)))
    files = st.sampled_from((*FILES, *FILES, GONE, NOTES, NOWHERE))
    ways = st.sampled_from(draw(st.sampled_from(((WAYS[0],), WAYS[:5], WAYS))))
    splits = st.sampled_from((*SPLITS, *SPLITS, *SPLITS, "later") if draw(st.booleans())
                             else (*SPLITS,))  # fmt: skip
    line = st.builds(Line, files, ways, st.sampled_from(words), splits)
    lines = tuple(draw(st.lists(line, min_size=1, max_size=8)))
    rare = st.one_of(st.none(), st.none(), st.none(), st.integers(0, len(lines) - 1))
    return Table(
        lines, draw(st.sampled_from(HEADERS)), draw(st.booleans()),
        draw(st.sampled_from(",;\t|")),
        draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"))),
        draw(st.sampled_from(("\n", "\r\n"))), draw(st.sampled_from(("", " "))), draw(rare),
        draw(rare),
    )  # fmt: skip


def spelled(line: Line, root: Path) -> str:
    """The path of a line as its way writes it."""
    file = line.file
    if not file:
        return ""
    stem, suffix = os.path.splitext(file)
    return {
        "plain": file, "back": file.replace("/", "\\"), "dot": f"./{file}",
        "absolute": f"{root}/{file}", "windows": f"D:\\x\\{file}".replace("/", "\\"),
        "stem": stem, "upper": stem + suffix.upper(), "bare": file.rpartition("/")[2],
    }[line.way]  # fmt: skip


def written(table: Table, root: Path) -> tuple[bytes, list[int]]:
    """The file, and the line that each row begins at."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=table.delimiter, lineterminator=table.newline)
    width = 3 if table.with_split else 2
    writer.writerow(table.header[:width])
    starts = []
    for place, line in enumerate(table.lines):
        if place == table.empty:
            out.write(table.newline)
        starts.append(out.getvalue().count("\n") + 1)
        cells = [spelled(line, root), line.label, line.split][:width]
        quoted = [any(c in cell for c in '\n"' + table.delimiter) for cell in cells]
        cells = [
            cell if q else f"{table.blank}{cell}{table.blank}"
            for cell, q in zip(cells, quoted, strict=True)
        ]
        writer.writerow([*cells, "more"] if place == table.ragged else cells)
    return out.getvalue().encode(table.encoding), starts


class RefusedError(Exception):
    """The model refuses the table; the words are in the message."""


def model(table: Table, starts: list[int]) -> tuple[dict[str, set[tuple[str, str]]], Counter[str]]:
    """((part, label) of each file that is used, how many rows are not used by reason).

    Raises:
        RefusedError: the table cannot be understood.
    """
    if table.ragged is not None:
        raise RefusedError(f"line {starts[table.ragged]}: ")
    rows = [
        (line, start)
        for line, start in zip(table.lines, starts, strict=True)
        if table.with_split or line.file or line.label  # others are empty lines
    ]
    if not rows:
        raise RefusedError("holds no rows")
    parts = [SPLITS.get(line.split, "") for line, _ in rows]
    if not table.with_split or (table.header[2] != "split" and not any(parts)):
        parts = ["train"] * len(rows)
        split_known = False
    else:
        split_known = True
    if "" in parts:
        raise RefusedError(f"line {rows[parts.index('')][1]}: the split")
    unused: Counter[str] = Counter()
    entries: list[tuple[str, str, str]] = []
    numeric = all(line.label in (*NUMBERS, "nan") for line, _ in rows)
    for (line, start), part in zip(rows, parts, strict=True):
        if not line.file:
            unused["row without an image"] += 1
            continue
        item = found(line, part if split_known else "", start)
        label = "" if line.label == "nan" else line.label
        if numeric:
            label = {"2.0": "2", "3.": "3", "-1": ""}.get(label, label)
        if label:
            entries.append((item, label, part))
        else:
            unused["without a label"] += 1
    tops = {item.partition("/")[0] for item, _, _ in entries}
    if not split_known and tops == {"train", "test"} and all("/" in item for item, _, _ in entries):
        entries = [(item, label, item.partition("/")[0]) for item, label, _ in entries]
    return placed(entries, unused)


def found(line: Line, part: str, start: int) -> str:
    """The file that a line means, below the root."""
    refused = RefusedError(f"line {start}: ")
    name = os.path.basename(line.file)
    stem, suffix = os.path.splitext(line.file)
    if line.file in (GONE, NOTES):
        odd = {"stem": stem, "upper": stem + suffix.upper(), "windows": f"D:/x/{line.file}"}
        item = odd.get(line.way, line.file)
        # of notes.txt, which is there, any writing but the stem is found
        return NOTES if line.file == NOTES and line.way != "stem" else item
    if line.way == "stem" and stem == "images/twice":
        raise refused
    if line.way == "bare" and name in ("1.png", "a.png"):
        if name == "a.png" and part in ("train", "test"):
            return f"{part}/a.png"
        raise refused
    return line.file


def placed(
    entries: list[tuple[str, str, str]], unused: Counter[str]
) -> tuple[dict[str, set[tuple[str, str]]], Counter[str]]:
    labels: dict[str, set[str]] = {}
    for item, label, _ in entries:
        labels.setdefault(item, set()).add(label)
    rows: list[tuple[str, str, str]] = []
    for entry in entries:
        if len(labels[entry[0]]) > 1:
            unused["image with several labels"] += 1
        elif entry in rows:
            unused["row that is there twice"] += 1
        else:
            rows.append(entry)
    readable = [row for row in rows if row[0] in FILES]
    for item in {row[0] for row in rows} - {row[0] for row in readable}:
        unused["not an image" if item == NOTES else "image that cannot be read"] += 1
    lost = {label for _, label, _ in rows} - {label for _, label, _ in readable}
    unused["class without images that can be read"] += len(lost)
    if not readable:
        raise RefusedError("no readable images")
    trained = {label for _, label, part in readable if part == "train"}
    by_case = {label.lower(): label for label in trained}
    joined = [(item, by_case.get(label.lower(), label) if label not in trained else label, part)
              for item, label, part in readable]  # fmt: skip
    if len({label.lower() for label in trained}) < len(trained):
        raise RefusedError("both called")  # of classes that are only tested on none is used
    if not trained:
        raise RefusedError("no readable images to learn from")
    used: dict[str, set[tuple[str, str]]] = {}
    for item, label, part in joined:
        if label in trained:
            used.setdefault(item, set()).add((part, label))
        else:
            unused["class without training images"] += 1
    return used, +unused


def compare(table: Table, root: Path) -> None:
    try:
        data, starts = written(table, root)
    except UnicodeEncodeError:
        return  # cp1252 has no such letter
    place = root / "table.csv"
    place.write_bytes(data)
    expected: dict[str, set[tuple[str, str]]] = {}
    refused, unused = "", Counter[str]()
    try:
        expected, unused = model(table, starts)
    except RefusedError as error:
        refused = str(error)
    if refused:
        with pytest.raises(DatasetError) as raised:
            folder.load(place)
        assert refused in str(raised.value)
        return
    own = folder.load(place)
    assert Counter(one.reason for one in own.unused) == unused
    splits = {"train": own.dataset.train, "val": own.dataset.val, "test": own.dataset.test}
    classes = sorted({label for rows in expected.values() for _, label in rows})
    held_out = all(part != "test" for rows in expected.values() for part, _ in rows)
    rows: dict[str, set[tuple[str, str]]] = {}
    for part, split in splits.items():
        for item, label in zip(split.items, split.labels, strict=True) if split else ():
            known = "train" if held_out and part == "test" else part
            rows.setdefault(item, set()).add((known, classes[label]))
    assert rows == expected
    latin = table.encoding == "cp1252" and not data.isascii()
    assert any("cp1252" in note for note in own.notes) == latin
    guessed = table.header[0] != "path"
    assert any(f"'{table.header[0]}' as the image" in note for note in own.notes) == guessed


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images beside which each table is written."""
    root = tmp_path_factory.mktemp("tables")
    for number, file in enumerate(FILES):
        (root / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), (20 * number, 5, 5)).save(root / file)
    (root / NOTES).write_text("no image", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))


def check_many(number: int, root: Path) -> None:
    @settings(max_examples=number, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(tables())
    def check(table: Table) -> None:
        compare(table, root)

    check()


def test_a_hundred_tables(place):
    check_many(100, place)


@pytest.mark.slow
def test_ten_thousand_tables(place):
    check_many(10_000, place)


@pytest.mark.parametrize("labels", [("cat", "dog", "Cat"), ("cat", "Cat", "Cat")])
def test_classes_that_are_only_tested_on_may_differ_in_case_alone(place, labels):
    parts = ("TEST", "train" if "dog" in labels else "TEST", "TEST")
    files = ("cat/1.png", "cat/2.png", "dog/1.png")
    lines = tuple(map(Line, files, ["plain"] * 3, labels, parts))
    header = ("path", "label", "split")
    compare(Table(lines, header, True, ",", "utf-8", "\n", "", None, None), place)
