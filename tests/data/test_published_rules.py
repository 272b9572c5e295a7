"""CoOp's rules for datasets without a split file, against its code written out, and its format."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.data import coop, split_rules
from simprompt.data.split import DatasetError

counts = st.lists(st.integers(0, 23), min_size=1, max_size=6)


@given(counts)
def test_shares_are_coop_s(sizes):
    """`read_and_split_data` with p_trn = 0.5 and p_val = 0.2."""
    by_label = {label: [f"{label}/{i}" for i in range(n)] for label, n in enumerate(sizes)}
    before = json.dumps(by_label)
    rng = random.Random(1)
    train, val, test = [], [], []
    for label, images in by_label.items():
        mixed = list(images)
        rng.shuffle(mixed)
        n_train, n_val = round(len(mixed) * 0.5), round(len(mixed) * 0.2)
        train += [(item, label) for item in mixed[:n_train]]
        val += [(item, label) for item in mixed[n_train : n_train + n_val]]
        test += [(item, label) for item in mixed[n_train + n_val :]]
    assert split_rules._shares(by_label) == (train, val, test)
    assert json.dumps(by_label) == before


@given(counts)
def test_a_fifth_is_coop_s(sizes):
    """`split_trainval` with p_val = 0.2."""
    rows = [(f"{label}/{i}", label) for i in range(23) for label, n in enumerate(sizes) if i < n]
    rng = random.Random(1)
    train, val = [], []
    for label in dict.fromkeys(label for _, label in rows):
        mixed = [row for row in rows if row[1] == label]
        rng.shuffle(mixed)
        n_val = round(len(mixed) * 0.2)
        val += mixed[:n_val]
        train += mixed[n_val:]
    assert split_rules._fifth(rows) == (train, val)


def test_class_folders_are_read_by_name_and_some_are_left_out(tmp_path):
    images = tmp_path / "images"
    for folder in ("b", "a", "BACKGROUND_Google", "Faces_easy", ".hidden"):
        (images / folder).mkdir(parents=True)
        for i in range(10):
            (images / folder / f"{i}.jpg").touch()
        (images / folder / ".DS_Store").touch()
    spec = coop.specs()["eurosat"]
    two = replace(spec, classes=2)
    wanted = split_rules._shares(
        {y: [f"{c}/{i}.jpg" for i in range(10)] for y, c in enumerate("ab")}
    )
    assert split_rules._by_folders(two, tmp_path, images) == wanted
    with pytest.raises(DatasetError, match="has 2 class folders, eurosat has 10"):
        split_rules._by_folders(spec, tmp_path, images)


def split_file(folder: Path, **parts: object) -> Path:
    path = folder / "split.json"
    table = {"train": [["a/é.jpg", 0, "cat"]], "val": [], "test": [["b/1.jpg", "1", "big_dog"]]}
    path.write_text(json.dumps({**table, **parts}, ensure_ascii=False), encoding="utf-8")
    return path


NAMES = ("cat", "big dog")


def test_a_split_file_gives_its_three_lists(tmp_path):
    path = split_file(tmp_path, val=[["v", 0, "cat"], ["w", 1, "big_dog"]])
    assert coop._read_split(path, NAMES) == (
        [("a/é.jpg", 0)],
        [("v", 0), ("w", 1)],
        [("b/1.jpg", 1)],
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([["v", 0, "big_dog"]], "label 0 is called 'big_dog' there and 'cat'"),
        ([["/etc/v", 0, "cat"]], "'/etc/v' is not below"),
        ([["a/../../v", 0, "cat"]], "is not below"),
        ([["v", 5, "cat"]], "not a split file"),
        ([["v", "x", "cat"]], "not a split file"),
        ([["v", 0]], "not a split file"),
        (None, "not a split file"),
    ],
)
def test_a_split_file_that_is_none_is_refused(tmp_path, rows, words):
    with pytest.raises(DatasetError, match=words) as refused:
        coop._read_split(split_file(tmp_path, val=rows), NAMES)
    assert str(refused.value).count("not a split file") == (words == "not a split file")


def test_a_split_file_without_a_list_is_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": [], "val": []}', encoding="utf-8")
    with pytest.raises(DatasetError, match="not a split file"):
        coop._read_split(path, NAMES)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DatasetError, match="not a split file"):
        coop._read_split(path, NAMES)
