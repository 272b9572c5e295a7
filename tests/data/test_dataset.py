"""Splits, the base/new rule, the few-shot draw: each against the field's rule written out."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simprompt.data.dataset import Dataset, DatasetError, Split


def no_image(item: str) -> Image.Image:
    return Image.new("RGB", (2, 2))


def dataset(train: list[int], val: list[int] | None, n_classes: int, **kwargs) -> Dataset:
    names = tuple(f"class {i}" for i in range(n_classes))

    def split(labels: list[int], part: str) -> Split:
        items = tuple(f"{part}/{i}" for i in range(len(labels)))
        return Split(items, tuple(labels), names, no_image, **kwargs)

    return Dataset(
        name="toy",
        classnames=names,
        templates=("a photo of a {}.",),
        train=split(train, "train"),
        val=None if val is None else split(val, "val"),
        test=split(list(range(n_classes)) * 2, "test"),
    )


def field_draw(train, val, shots, seed):
    """The draw as CoOp's loaders make it: global generator, train first, then val."""
    random.seed(seed)
    drawn = []
    for rows, k in ((train, shots), (val, min(shots, 4))):
        by_label: dict[int, list] = {}
        for row in rows:
            by_label.setdefault(row[1], []).append(row)
        out = []
        for items in by_label.values():
            out.extend(random.sample(items, k) if len(items) >= k else items)
        drawn.append(out)
    return drawn


labels_of_any_size = st.integers(1, 9).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.integers(0, n - 1), max_size=60),
        st.lists(st.integers(0, n - 1), max_size=30),
    )
)


@given(labels_of_any_size, st.integers(1, 20), st.integers(0, 5))
def test_few_shot_draw_is_the_fields(case, shots, seed):
    n, train, val = case
    data = dataset(train, val, n)
    rows = list(zip(data.train.items, data.train.labels, strict=True))
    val_rows = list(zip(data.val.items, data.val.labels, strict=True))
    want, want_val = field_draw(rows, val_rows, shots, seed)
    middle = -(-n // 2)
    got, got_val = data.base.few_shot(shots, seed), data.base.few_shot_val(shots, seed)
    assert list(got.items) == [i for i, label in want if label < middle]
    assert list(got_val.items) == [i for i, label in want_val if label < middle]
    new = data.new.few_shot(shots, seed)
    assert list(zip(new.items, new.labels, strict=True)) == [
        (i, label - middle) for i, label in want if label >= middle
    ]


@given(labels_of_any_size)
def test_base_and_new_part_the_classes(case):
    n, train, _ = case
    data = dataset(train, None, n)
    assert len(data.base.classnames) == -(-n // 2)
    assert data.base.classnames + data.new.classnames == data.all.classnames == data.classnames
    for part in ("train", "test"):
        base, new, whole = (getattr(v, part) for v in (data.base, data.new, data.all))
        assert sorted(base.items + new.items) == sorted(whole.items)
        for view in (base, new):
            item_class = dict(zip(whole.items, whole.labels, strict=True))
            for item, label in zip(view.items, view.labels, strict=True):
                assert view.classnames[label] == whole.classnames[item_class[item]]


def test_images_are_loaded_only_when_asked_for():
    loaded = []

    def loader(item):
        loaded.append(item)
        return Image.new("RGB", (3, 3))

    split = Split(("a", "b"), (0, 1), ("x", "y"), loader)
    data = Dataset("toy", ("x", "y"), ("{}",), split, None, split)
    shots = data.base.few_shot(1)
    assert loaded == []
    assert shots.load(0).size == (3, 3)
    assert loaded == ["a"]


def test_rehearsal_tests_on_val_where_there_is_one():
    data = dataset([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3], 4)
    rehearsal = data.base.rehearsal()
    assert rehearsal.classnames == ("class 0", "class 1")
    assert rehearsal.test.items == ("val/0", "val/1")
    assert rehearsal.base.classnames + rehearsal.new.classnames == data.base.classnames


def test_rehearsal_keeps_groups_whole_and_leaves_test_alone():
    groups = tuple("aabbccddeeff")
    names = ("x", "y", "z")
    train = Split(tuple("0123456789AB"), (0,) * 4 + (1,) * 6 + (2,) * 2, names, no_image, groups)
    test = Split(("t0", "t1", "t2"), (0, 1, 2), names, no_image, tuple("ghi"))
    data = Dataset("toy", names, ("{}",), train, None, test)
    for seed in range(5):
        rehearsal = data.all.rehearsal(seed=seed)
        assert not set(rehearsal.train.groups) & set(rehearsal.test.groups)
        assert set(rehearsal.train.items) | set(rehearsal.test.items) == set(train.items)
        assert rehearsal.test.labels.count(0) == rehearsal.test.labels.count(1) == 2
        assert 2 not in rehearsal.test.labels  # a single drawing stays in training
    assert data.all.rehearsal(seed=1) == data.all.rehearsal(seed=1)


def test_rehearsal_without_groups_sets_a_quarter_aside():
    data = dataset([0] * 8 + [1] * 2 + [2], None, 3)
    test = data.all.rehearsal().test
    assert [test.labels.count(c) for c in range(3)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Split(("a",), (), ("x",), no_image), "one label an item"),
        (lambda: Split(("a",), (1,), ("x",), no_image), "'a' has label 1"),
        (lambda: Split(("a",), (0,), ("x",), no_image, ("g", "h")), "one group an item"),
        (lambda: dataset([0], None, 1).base.few_shot(0), "at least 1 shot"),
    ],
)
def test_errors_say_what_is_wrong(make, words):
    with pytest.raises(DatasetError, match=words):
        make()


def test_a_template_needs_a_place_for_the_name():
    split = Split((), (), ("x",), no_image)
    with pytest.raises(DatasetError, match=r"has no \{\}"):
        Dataset("toy", ("x",), ("a photo",), split, None, split)


PUBLISHED = json.loads(
    Path(__file__).with_name("published_draws.json").read_text(encoding="utf-8")
)["datasets"]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_lists_are_reproduced(name, seed):
    """Rows are known by their numbers: a draw depends on how many images each class has alone."""
    table = PUBLISHED[name]
    classnames = tuple(f"class {label}" for label in range(len(table["train"])))

    def split(part: str) -> Split:
        labels = [label for label, count in table[part] for _ in range(count)]
        rows = tuple(str(row) for row in range(len(labels)))
        return Split(rows, tuple(labels), classnames, no_image)

    data = Dataset(name, classnames, ("{}",), split("train"), split("val"), split("train"))
    for part, drawn in (
        ("train", data.all.few_shot(16, int(seed))),
        ("val", data.all.few_shot_val(16, int(seed))),
    ):
        rows = json.dumps([int(item) for item in drawn.items])
        assert hashlib.sha256(rows.encode()).hexdigest()[:16] == table["drawn"][seed][part]
